"""Four sources held against each other: what is drift, what is not, how grave, since when, and what shows it."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.telemetry.kinds import DRIFT_KINDS, DRIFT_SEVERITIES
from agent.workers.scan.found import STATES, Rest
from agent.workers.watch.drift import judge
from agent.workers.watch.expectation import Expectation, Span, Wanted
from agent.workers.watch.listening import Listener
from agent.workers.watch.sources import DeclaredPort, Known, Sight, Sources
from tests.workers.watch.scenes import (
    DAY,
    HOUR,
    NOW,
    WEB,
    expect,
    known,
    listener,
    port,
    rows,
    scan,
    sight,
    told,
)

OWN = frozenset({"10.20.0.1", "127.0.0.1"})


def test_what_is_as_declared_is_no_drift() -> None:
    found = scan(known(port("tcp/22", service="ssh"), port("tcp/443")))
    assert rows(scans=(found,), expectations=(expect("tcp/22", "tcp/443", others=False, closed=("tcp/25",)),)) == []


def test_what_nobody_declares_is_no_drift_without_an_expectation_that_allows_nothing_else() -> None:
    found = scan(known(port("tcp/22"), port("tcp/8", service="x")))
    assert rows(scans=(found,)) == []
    assert rows(scans=(found,), expectations=(expect("tcp/22"),)) == []
    assert rows(scans=(found,), listening=(listener("tcp/80"),), own=OWN) == []


def test_open_and_undeclared_is_high_since_it_was_first_found_so() -> None:
    found = scan(known(port("tcp/80", service="http", product="nginx"), since={("tcp", 80): NOW - DAY}))
    (row,) = rows(scans=(found,), expectations=(expect("tcp/443", others=False),))[:1]
    assert (row.severity, row.kind, row.service, row.since) == ("high", "open_undeclared", "tcp/80", NOW - DAY)
    assert row.what == "is open (http nginx) and is not declared"
    assert [(one.source, one.text) for one in row.evidence] == [
        ("declared", "expect.web: others = false"),
        ("scanned", "lan_scan, run 7: open, http nginx"),
    ]
    assert row.depends == {"scan lan_scan", "expect web"}


def test_what_must_not_be_open_is_critical_even_where_others_are_allowed() -> None:
    found = scan(known(port("tcp/23")))
    assert told(rows(scans=(found,), expectations=(expect(closed=("tcp/23",)),))) == [
        f"critical open_forbidden {WEB} tcp/23"
    ]


def test_several_expectations_hold_together() -> None:
    found = scan(known(port("tcp/22"), port("tcp/80"), port("tcp/443")))
    all_hosts = expect("tcp/22", hosts=("10.20.0.0/24",), others=False, name="all")
    assert told(rows(scans=(found,), expectations=(all_hosts, expect("tcp/443")))) == [
        f"high open_undeclared {WEB} tcp/80"
    ]
    forbids = expect(hosts=("10.0.0.0/8",), closed=("tcp/443",), name="never")
    assert told(rows(scans=(found,), expectations=(expect("tcp/443"), forbids))) == [
        f"critical open_forbidden {WEB} tcp/443"
    ]


def test_a_host_that_says_open_to_everything_is_one_row_where_nothing_else_may_be_open() -> None:
    told_of_together = (Rest("tcp", "open", "syn-ack; answers on every port", ((1, 1024),)),)
    trap = known(closed=())
    found = scan(replace(trap, host=replace(trap.host, rest=told_of_together)))
    (row,) = rows(scans=(found,), expectations=(expect("tcp/80", others=False),))
    assert (row.severity, row.kind, row.port) == ("high", "open_undeclared", 0)
    assert row.what == "says open to everything, and that is not declared"
    assert row.evidence[-1].text == "lan_scan, run 7: open to everything (1,024 ports asked)"
    assert row.depends == {"scan lan_scan", "expect web"}
    assert rows(scans=(found,), expectations=(expect("tcp/80"),)) == []


@pytest.mark.parametrize("others", [True, False])
def test_a_host_that_says_open_to_everything_is_one_grave_row_where_some_of_it_must_not_be_open(others: bool) -> None:
    trap = known(closed=())
    found = scan(replace(trap, host=replace(trap.host, rest=(Rest("tcp", "open", "syn-ack", ((1, 1024),)),))))
    never = replace(expect("tcp/80", others=others), closed=(Span("tcp", 23, 23), Span("tcp", 1000, 2000)))
    (row,) = rows(scans=(found,), expectations=(never, expect("tcp/80", name="more")))
    assert (row.severity, row.key) == ("critical", f"open_forbidden {WEB}")
    assert row.what == "says open to everything, and must not be at tcp/23, tcp/1000-1024"
    assert [one.text for one in row.evidence] == [
        "expect.web: closed",
        "lan_scan, run 7: open to everything (1,024 ports asked)",
    ]
    assert row.expectations == ("web",)
    elsewhere = replace(never, closed=(Span("tcp", 2000, 3000), Span("udp", 23, 23)), others=True)
    assert rows(scans=(found,), expectations=(elsewhere,)) == []


@pytest.mark.parametrize("state", ["closed", "filtered"])
def test_declared_and_closed_is_high(state: str) -> None:
    spans = {"closed": ((1, 1024),)} if state == "closed" else {"closed": (), "filtered": ((1, 1024),)}
    (row,) = rows(scans=(scan(known(**spans)),), expectations=(expect("tcp/443"),))
    assert (row.severity, row.kind, row.what) == ("high", "declared_closed", f"is declared, and {state}")
    assert row.since == NOW - HOUR


def test_udp_that_may_be_open_is_neither() -> None:
    quiet = known(port("udp/53", "open|filtered"))
    assert rows(scans=(scan(quiet),), expectations=(expect("udp/53", others=False, closed=("udp/53",)),)) == []


def test_what_no_scan_has_asked_for_is_told_and_is_no_drift() -> None:
    judged = judge(Sources(scans=(scan(known()),), expectations=(expect("tcp/443", "tcp/5432", "udp/53"),)), NOW)
    assert told(judged.rows) == [f"high declared_closed {WEB} tcp/443"]
    assert judged.notes == [f"expect.web: no scan has asked for 2 of its 3 ports: {WEB} tcp/5432, {WEB} udp/53"]


def test_what_a_scan_found_too_long_ago_is_not_held_against_anything() -> None:
    old = scan(known(port("tcp/80"), at=NOW - 9 * DAY))
    assert rows(scans=(old,), expectations=(expect("tcp/443", others=False),)) == []


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Wanted("tcp", 80, "http"), None),
        (Wanted("tcp", 80, "HTTP*", "nginx 1.22.*"), None),
        (Wanted("tcp", 80, "nginx"), None),
        (Wanted("tcp", 80, "", "1.22.1"), None),
        (Wanted("tcp", 80, "ssh"), "high service_differs"),
        (Wanted("tcp", 80, "http", "nginx 1.2[34]*"), "medium version_changed"),
        (Wanted("tcp", 80, "ssh", "9.*"), "high service_differs"),
    ],
)
def test_who_answers_is_held_against_patterns(wanted: Wanted, expected: str | None) -> None:
    found = scan(known(port("tcp/80", service="http", product="nginx", version="1.22.1")))
    answer = told(rows(scans=(found,), expectations=(expect(wanted),)))
    assert answer == ([f"{expected} {WEB} tcp/80"] if expected else [])


def test_what_nobody_has_identified_is_not_held_against_a_pattern() -> None:
    by_number = replace(port("tcp/80", service="http"), method="table")
    assert rows(scans=(scan(known(by_number)),), expectations=(expect(Wanted("tcp", 80, "ssh")),)) == []


def test_tls_is_part_of_a_service() -> None:
    found = scan(known(replace(port("tcp/443", service="http"), tunnel="ssl")))
    for pattern in ("https", "ssl/http", "http"):
        assert rows(scans=(found,), expectations=(expect(Wanted("tcp", 443, pattern)),)) == []
    plain = scan(known(port("tcp/443", service="http")))
    (row,) = rows(scans=(plain,), expectations=(expect(Wanted("tcp", 443, "ssl/http")),))
    assert row.kind == "service_differs"


def test_an_expectation_may_weigh_more_or_less() -> None:
    found = scan(known(port("tcp/80")))
    for weight, severity in ((-9, "info"), (-2, "low"), (-1, "medium"), (0, "high"), (1, "critical"), (9, "critical")):
        (row,) = rows(scans=(found,), expectations=(expect(others=False, weight=weight),))
        assert row.severity == severity


# -- this host ---------------------------------------------------------------------------------------------------------


def test_what_answered_others_after_the_scan_is_reachable() -> None:
    closed, listening = scan(known(address="10.20.0.1")), (listener("tcp/443"),)
    here = expect("tcp/443", hosts=("10.20.0.1",), name="here")
    after = sight("tcp/443", "10.20.0.1", first=NOW - 1800)
    before = sight("tcp/443", "10.20.0.1", last=NOW - 2 * HOUR)
    for expectations, severity in (((here,), "high"), ((), "info")):
        assert rows(expectations=expectations, listening=listening, own=OWN, scans=(closed,), sights=(after,)) == []
        found = rows(expectations=expectations, listening=listening, own=OWN, scans=(closed,), sights=(before,))
        assert told(found) == [f"{severity} listening_unreachable 10.20.0.1 tcp/443"]


def test_a_firewall_that_keeps_others_from_what_is_undeclared_is_heard_of_and_no_more() -> None:
    here = expect(hosts=("10.20.0.1",), others=False, closed=("tcp/23",), name="here")
    listening = (listener("tcp/23"), listener("tcp/80"))
    closed = scan(known(address="10.20.0.1"))
    assert told(rows(expectations=(here,), listening=listening, own=OWN, scans=(closed,))) == [
        "info listening_unreachable 10.20.0.1 tcp/23",
        "info listening_unreachable 10.20.0.1 tcp/80",
    ]


# -- seen --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["fd00:ec2::254", "192.0.0.192", "169.254.169.254"])
def test_nobody_is_told_to_scan_what_is_never_scanned(address: str) -> None:
    assert rows(scans=(scan(known(port("tcp/80"))),), sights=(sight("tcp/80", address),)) == []


def test_seen_and_never_scanned_is_one_row_for_a_host_and_one_for_each_port_of_a_host_that_is_scanned() -> None:
    seen = (sight("tcp/80", "10.20.0.77"), sight("tcp/22", "10.20.0.77", first=NOW - 2 * DAY), sight("tcp/8080"))
    found = scan(known(port("tcp/80")))
    (one, host) = rows(scans=(found,), sights=seen)
    assert (host.severity, host.key, host.since) == ("low", "seen_not_scanned 10.20.0.77", NOW - 2 * DAY)
    assert host.what == "answers others at tcp/22, tcp/80, and no scan has asked it"
    assert (one.severity, one.key) == ("low", f"seen_not_scanned {WEB} tcp/8080")
    assert one.evidence[0].data["capture"] == "edge"


def test_without_any_scan_nothing_is_said_to_be_unscanned() -> None:
    assert rows(sights=(sight("tcp/80", "10.20.0.77"),)) == []


def test_who_is_somewhere_else_in_the_world_is_not_ours_to_scan() -> None:
    far = (sight("tcp/443", "8.8.8.8"), sight("tcp/22", "fe80::1"), sight("tcp/22", "127.0.0.1"))
    assert rows(scans=(scan(known()),), sights=far) == []


def test_what_was_seen_a_long_time_ago_does_not_count() -> None:
    assert rows(scans=(scan(known()),), sights=(sight("tcp/80", "10.20.0.77", last=NOW - 8 * DAY),)) == []


def test_what_was_seen_to_answer_is_open_though_no_scan_has_asked() -> None:
    strict = expect(others=False)
    seen = (sight("tcp/8080"),)
    assert told(rows(expectations=(strict,), sights=seen)) == [f"high open_undeclared {WEB} tcp/8080"]
    assert told(rows(expectations=(expect(closed=("tcp/8080",)),), sights=seen)) == [
        f"critical open_forbidden {WEB} tcp/8080"
    ]


def test_what_is_newer_counts_between_a_scan_and_a_sight() -> None:
    closed = scan(known())
    before, after = sight("tcp/80", last=NOW - 2 * HOUR), sight("tcp/80", first=NOW - 60)
    around = sight("tcp/80")
    strict, wants = expect(others=False), expect("tcp/80")
    assert rows(scans=(closed,), expectations=(strict,), sights=(before,)) == []
    assert told(rows(scans=(closed,), expectations=(wants,), sights=(before,))) == [
        f"high declared_closed {WEB} tcp/80"
    ]
    assert told(rows(scans=(closed,), expectations=(strict,), sights=(after,))) == [
        f"high open_undeclared {WEB} tcp/80"
    ]
    assert rows(scans=(closed,), expectations=(wants,), sights=(after,)) == []
    assert told(rows(scans=(closed,), sights=(around,))) == [f"info seen_unreachable {WEB} tcp/80"]


def test_a_host_that_was_seen_after_the_scan_that_found_it_down_is_up() -> None:
    down = scan(known(state="down", closed=(), filtered=((1, 1024),)))
    wants = expect("tcp/80", "tcp/22")
    assert told(rows(scans=(down,), expectations=(wants,), sights=(sight("tcp/80", first=NOW - 60),))) == [
        f"high declared_closed {WEB} tcp/22"
    ]


# -- sites, order, bounds ----------------------------------------------------------------------------------------------


def test_the_same_address_elsewhere_is_another_host() -> None:
    here = scan(known(port("tcp/80")))
    there = scan(known(), service="branch_scan", site="branch")
    strict = expect(others=False)
    assert told(rows(scans=(here, there), expectations=(strict,))) == [f"high open_undeclared {WEB} tcp/80"]
    wants = expect("tcp/80")
    (row,) = rows(scans=(here, there), expectations=(wants,))
    assert (row.key, row.site) == (f"declared_closed {WEB}@branch tcp/80", "branch")
    # This host's own sockets and captures are here, and not there.
    assert rows(scans=(there,), listening=(listener("tcp/80"),), own=frozenset({WEB}), sights=(sight("tcp/80"),)) == []


HOSTS = ("10.0.0.1", "10.0.0.2", "fd00::1")
PORTS = ("tcp/1", "tcp/2", "udp/1")


def scene(random: Random) -> Sources:
    """A few hosts and ports, so that things meet."""

    def when() -> float:
        return NOW - random.random() * 20 * DAY

    def some(choices: tuple[str, ...], least: int = 0) -> list[str]:
        return random.sample(choices, random.randint(least, len(choices)))

    def found(address: str) -> Known:
        return known(
            *(port(text, random.choice(STATES)) for text in some(PORTS)),
            address=address,
            closed=((10, 20),),
            state=random.choice(["up", "up", "down"]),
            at=when(),
            mac=random.choice(["", "02:00:00:00:00:01"]),
        )

    def expected(name: str) -> Expectation:
        opened, closed = some(PORTS), some(PORTS)
        return expect(
            *opened,
            closed=tuple({*closed} - {*opened}),
            hosts=tuple(some((*HOSTS, "10.0.0.0/8"), 1)),
            others=random.random() < 0.5,
            name=name,
        )

    def seen() -> Sight:
        first, last = sorted((when(), when()))
        return sight(random.choice(PORTS), random.choice(HOSTS), first=first, last=last)

    def listens() -> Listener:
        address = random.choice(["0.0.0.0", "::", "127.0.0.1", "10.0.0.1"])
        return listener(random.choice(PORTS), address, since=random.choice([0.0, when()]))

    def served(name: str) -> DeclaredPort:
        wanted = random.choice([("tcp", 1), ("tcp", 2), ("udp", 1)])
        return DeclaredPort(name, *wanted, "listens")

    return Sources(
        expectations=tuple(map(expected, some(("x", "y")))),
        listening=random.choice([None, tuple(listens() for _ in range(random.randint(0, 4)))]),
        own=random.choice([frozenset({"10.0.0.1", "127.0.0.1"}), frozenset[str]()]),
        sights=tuple(seen() for _ in range(random.randint(0, 4))),
        scans=tuple(
            scan(*map(found, some(HOSTS)), service=name, site=site)
            for name, site in (("a", ""), ("b", ""), ("c", "branch"))
        ),
        services=tuple(map(served, some(("api", "web")))),
    )


@given(st.integers(0, 2**64))
@example(8238)  # undeclared, listening, found filtered, and seen to answer after that
@example(11858)  # the same of a port that one expectation wants and another forbids
@settings(max_examples=200)
def test_whatever_the_sources_say_each_row_rests_on_what_it_shows_and_none_contradicts_another(seed: int) -> None:
    sources = scene(Random(seed))
    judged = judge(sources, NOW)
    keys = [row.key for row in judged.rows]
    assert len(keys) == len(set(keys))
    ranks = [-DRIFT_SEVERITIES.index(row.severity) for row in judged.rows]
    assert ranks == sorted(ranks)
    scans = {one.service: one for one in sources.scans}
    names = {f"scan {name}" for name in scans} | {f"expect {one.name}" for one in sources.expectations}
    opened, closed = set[tuple[str, str, str]](), set[tuple[str, str, str]]()
    for row in judged.rows:
        assert row.kind in DRIFT_KINDS
        assert row.evidence
        assert row.since <= NOW
        assert row.depends <= names | {"listening", "capture edge"}
        for one in row.evidence:
            if one.source == "scanned" and row.protocol:  # a scan says nothing of what it has not asked for
                asked = scans[one.data["scan"]]
                assert asked.site == row.site
                assert asked.known[row.host].host.state_of(row.protocol, row.port) == one.data["state"]
        place = (row.site, row.host, row.service)
        if row.kind in ("open_forbidden", "open_undeclared"):
            opened.add(place)
        if row.kind in ("declared_closed", "host_down", "listening_unreachable"):
            closed.add(place)
    assert not opened & closed
    assert judge(sources, NOW) == judged


def test_more_than_can_be_held_are_counted_and_the_gravest_stay() -> None:
    hosts = [f"10.0.0.{number}" for number in range(1, 8)]
    found = scan(*(known(port("tcp/80"), address=host) for host in hosts))
    grave = expect(hosts=(hosts[-1],), closed=("tcp/80",), name="never")
    sources = Sources(scans=(found,), expectations=(expect(hosts=("10.0.0.0/8",), others=False), grave))
    judged = judge(sources, NOW, most=4)
    assert (len(judged.rows), judged.left_out) == (4, 3)
    assert judged.rows[0].key == f"open_forbidden {hosts[-1]} tcp/80"
