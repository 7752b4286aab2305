"""Four sources held against each other: what is drift, what is not, how grave, since when, and what shows it."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
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


def test_what_one_scan_found_open_another_has_to_deny_twice() -> None:
    found = scan(known(port("tcp/80"), at=NOW - 3 * HOUR), service="daily")
    once = known(at=NOW - HOUR)
    strict, wants = expect(others=False), expect("tcp/80")
    for both in permutations((found, scan(once, service="hourly"))):
        assert told(rows(scans=both, expectations=(strict,))) == [f"high open_undeclared {WEB} tcp/80"]
        assert rows(scans=both, expectations=(wants,)) == []
    for denied in (replace(once, before=known(at=NOW - 2 * HOUR)), replace(once, settled=True)):
        for both in permutations((found, scan(denied, service="hourly"))):
            assert rows(scans=both, expectations=(strict,)) == []
            assert told(rows(scans=both, expectations=(wants,))) == [f"high declared_closed {WEB} tcp/80"]


def test_one_silent_run_of_another_scan_neither_hides_what_is_open_nor_makes_a_host_down() -> None:
    found = scan(known(port("tcp/22"), port("tcp/6379"), at=NOW - 3 * HOUR))
    wants = expect("tcp/22", closed=("tcp/6379",))
    grave = [f"critical open_forbidden {WEB} tcp/6379"]
    for port_asked in (9999, 6379):
        silent = known(state="down", closed=(), filtered=((port_asked, port_asked),))
        assert told(rows(scans=(found, scan(silent, service="odd_scan")), expectations=(wants,))) == grave
    # Of what they have not asked for, any number of runs says nothing.
    twice = replace(silent, before=replace(silent, at=NOW - 2 * HOUR))
    other = known(state="down", closed=(), filtered=((9999, 9999),))
    other = replace(other, before=replace(other, at=NOW - 2 * HOUR))
    assert told(rows(scans=(found, scan(other, service="odd_scan")), expectations=(wants,))) == grave
    assert rows(scans=(found, scan(twice, service="odd_scan")), expectations=(wants,)) == []


def test_a_host_that_was_up_is_down_when_two_later_runs_say_so() -> None:
    def silent(at: float) -> Known:
        return known(state="down", closed=(), filtered=((1, 1024),), at=at)

    was_up = scan(known(port("tcp/22"), at=NOW - 3 * HOUR))
    wants = (expect("tcp/22"),)
    down = [f"high host_down {WEB}"]
    one = silent(NOW - HOUR)
    assert rows(scans=(was_up, scan(one, service="odd_scan")), expectations=wants) == []
    astride = replace(one, before=silent(NOW - 4 * HOUR))
    assert rows(scans=(was_up, scan(astride, service="odd_scan")), expectations=wants) == []
    both = replace(one, before=silent(NOW - 2 * HOUR))
    assert told(rows(scans=(was_up, scan(both, service="odd_scan")), expectations=wants)) == down
    others = scan(one, service="odd_scan"), scan(silent(NOW - 2 * HOUR), service="third")
    assert told(rows(scans=(was_up, *others), expectations=wants)) == down
    gone = scan(replace(one, settled=True))  # by the scan that knew it
    assert told(rows(scans=(gone,), expectations=wants)) == down
    only_up = scan(known(at=NOW - 3 * HOUR), service="odd_scan")
    assert told(rows(scans=(gone, only_up), expectations=wants)) == down


def test_a_report_of_another_host_finds_something_and_takes_back_only_what_reports_have_found() -> None:
    ours = scan(known(port("tcp/22"), at=NOW - 3 * HOUR))
    closed = replace(known(), before=known(at=NOW - 2 * HOUR))
    down = replace(known(state="down", filtered=((1, 1024),), closed=()), settled=True)
    wants, never = expect("tcp/22"), expect(closed=("tcp/22",))
    for report in (closed, down):
        theirs = replace(scan(report, service="report"), imported=True)
        for both in permutations((ours, theirs)):
            assert rows(scans=both, expectations=(wants,)) == []
            assert told(rows(scans=both, expectations=(never,))) == [f"critical open_forbidden {WEB} tcp/22"]
        before = replace(scan(known(port("tcp/22"), at=NOW - 3 * HOUR), service="before"), imported=True)
        assert rows(scans=(before, theirs), expectations=(never,)) == []
        (row,) = rows(scans=(before, theirs), expectations=(wants,))
        assert row.kind == ("host_down" if report is down else "declared_closed")
    found = replace(scan(known(port("tcp/23")), service="report"), imported=True)
    assert told(rows(scans=(ours, found), expectations=(expect(closed=("tcp/23",)),))) == [
        f"critical open_forbidden {WEB} tcp/23"
    ]
    # Whoever has a report has no scan that could have asked the others.
    assert rows(scans=(found,), sights=(sight("tcp/80", "10.20.0.77"), sight("tcp/8080"))) == []


def test_udp_that_another_scan_is_not_answered_at_stays_what_it_was_found() -> None:
    found = scan(known(port("udp/53"), at=NOW - 2 * HOUR))
    quiet = scan(known(port("udp/53", "open|filtered")), service="other")
    assert told(rows(scans=(found, quiet), expectations=(expect(closed=("udp/53",)),))) == [
        f"critical open_forbidden {WEB} udp/53"
    ]


def test_a_named_host_that_is_down_is_one_row_and_one_of_a_network_none() -> None:
    gone = scan(known(state="down", closed=(), filtered=((1, 1024),), since={("", 0): NOW - DAY}))
    ports = [f"tcp/{number}" for number in range(1, 9)]
    (row,) = rows(scans=(gone,), expectations=(expect(*ports),))
    assert (row.severity, row.key, row.since) == ("high", f"host_down {WEB}", NOW - DAY)
    assert row.what == "does not answer, and should at tcp/1, tcp/2, tcp/3, tcp/4, tcp/5 and 3 more"
    assert rows(scans=(gone,), expectations=(expect(*ports, hosts=("10.20.0.0/24",)),)) == []


def test_a_host_of_a_network_is_held_against_what_is_declared_for_all_of_it() -> None:
    found = scan(known(port("tcp/80")))
    assert told(rows(scans=(found,), expectations=(expect("tcp/22", hosts=("10.20.0.0/24",), others=False),))) == [
        f"high open_undeclared {WEB} tcp/80",
        f"high declared_closed {WEB} tcp/22",
    ]


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


def test_a_socket_that_nobody_declares_is_medium_and_high_once_a_scan_has_reached_it() -> None:
    here = expect("tcp/22", hosts=("10.20.0.1",), others=False, name="here")
    listening = (listener("tcp/22"), listener("tcp/80"))
    (row,) = rows(expectations=(here,), listening=listening, own=OWN)
    assert (row.severity, row.kind, row.since) == ("medium", "open_undeclared", NOW - DAY)
    assert row.evidence[-1].text == "0.0.0.0:80: nginx (PID 321), nginx.service"
    reached = scan(known(port("tcp/22"), port("tcp/80"), address="10.20.0.1"))
    (row,) = rows(expectations=(here,), listening=listening, own=OWN, scans=(reached,))
    assert (row.severity, [one.source for one in row.evidence]) == ("high", ["declared", "scanned", "listening"])


def test_what_only_this_host_reaches_is_not_open_to_others() -> None:
    here = expect(hosts=("10.20.0.1", "10.20.0.2"), others=False, name="here")
    only_own = (listener("tcp/80", "127.0.0.1"), listener("tcp/81", "10.20.0.9"), listener("tcp/82", "::1"))
    assert rows(expectations=(here,), listening=only_own, own=OWN) == []
    assert told(rows(expectations=(expect(hosts=("127.0.0.1",), others=False),), listening=only_own, own=OWN)) == [
        "medium open_undeclared 127.0.0.1 tcp/80"
    ]


def test_a_declared_service_may_listen_where_it_says_and_should() -> None:
    here = expect("tcp/22", hosts=("10.20.0.1",), others=False, name="here")
    api = DeclaredPort("api", "tcp", 8000, 'listens = "8000"')
    listening = (listener("tcp/22"), listener("tcp/8000"))
    assert rows(expectations=(here,), listening=listening, own=OWN, services=(api,)) == []
    (row,) = rows(listening=listening[:1], own=OWN, services=(api,))
    assert (row.severity, row.key) == ("medium", "declared_closed localhost tcp/8000")
    assert row.what == "is declared for api, and nothing listens"
    assert rows(listening=None, own=OWN, services=(api,)) == []


def test_services_that_share_a_port_are_one_row() -> None:
    services = tuple(DeclaredPort(name, "tcp", 7777, 'listens = "7777"') for name in ("green", "blue"))
    (row,) = rows(listening=(), own=OWN, services=services)
    assert (row.key, row.what) == (
        "declared_closed localhost tcp/7777",
        "is declared for green, blue, and nothing listens",
    )
    assert [one.text for one in row.evidence] == [
        'service.green: listens = "7777"',
        'service.blue: listens = "7777"',
        "nothing listens at it",
    ]


def test_expected_of_this_host_and_nothing_listens() -> None:
    here = expect("tcp/443", hosts=("10.20.0.1",), name="here")
    assert told(rows(expectations=(here,), listening=(), own=OWN)) == ["medium declared_closed 10.20.0.1 tcp/443"]
    assert rows(expectations=(here,), listening=None, own=OWN) == []


def test_what_has_stopped_listening_is_told_whatever_a_scan_said_before() -> None:
    here = expect("tcp/443", "udp/53", hosts=("10.20.0.1",), name="here")
    ports = port("tcp/443"), port("udp/53", "open|filtered")
    found = scan(known(*ports, address="10.20.0.1", at=NOW - 6 * DAY))
    both = [f"medium declared_closed 10.20.0.1 {one}" for one in ("tcp/443", "udp/53")]
    stopped = rows(expectations=(here,), listening=(), own=OWN, scans=(found,))
    assert told(stopped) == both
    assert [one.what for one in stopped] == [
        "is declared, was open, and nothing listens",
        "is declared, and nothing listens",
    ]
    assert stopped[0].depends == {"expect here", "listening"}
    running = (listener("tcp/443"), listener("udp/53"))
    assert rows(expectations=(here,), listening=running, own=OWN, scans=(found,)) == []
    assert rows(expectations=(here,), listening=None, own=OWN, scans=(found,)) == []
    # An address translation answers without a socket, and is seen to.
    before, now = (
        tuple(sight(one, "10.20.0.1", last=last) for one in ("tcp/443", "udp/53")) for last in (NOW - 2 * HOUR, NOW - 9)
    )
    for scans in ((), (found,)):
        assert told(rows(expectations=(here,), listening=(), own=OWN, scans=scans, sights=before)) == both
        seen = rows(expectations=(here,), listening=(), own=OWN, scans=scans, sights=now)
        assert [row for row in seen if row.kind == "declared_closed"] == []


def test_of_udp_ports_that_clients_get_nobody_knows_whether_a_service_listens_there() -> None:
    here = expect("udp/51820", "tcp/51820", hosts=("10.20.0.1",), name="here")
    services = tuple(DeclaredPort("vpn", protocol, 51821, 'listens = "x"') for protocol in ("udp", "tcp"))
    quiet = scan(known(port("udp/51820", "open|filtered"), address="10.20.0.1"))
    for scans in ((), (quiet,)):
        found = rows(
            expectations=(here,), services=services, listening=(), own=OWN, scans=scans, clients=(32768, 60999)
        )
        assert told(found) == [
            "medium declared_closed 10.20.0.1 tcp/51820",
            "medium declared_closed localhost tcp/51821",
        ]


def test_what_answers_without_a_socket_is_held_against_patterns_all_the_same() -> None:
    here = expect(Wanted("tcp", 443, "https"), hosts=("10.20.0.1",), name="here")
    found = scan(known(port("tcp/443", service="ssh"), address="10.20.0.1"))
    assert told(rows(expectations=(here,), listening=(), own=OWN, scans=(found,))) == [
        "high service_differs 10.20.0.1 tcp/443",
        "medium declared_closed 10.20.0.1 tcp/443",
    ]


def test_listening_and_unreachable() -> None:
    closed = scan(known(address="10.20.0.1"))
    listening = (listener("tcp/443"),)
    (row,) = rows(listening=listening, own=OWN, scans=(closed,))
    assert (row.severity, row.kind) == ("info", "listening_unreachable")
    here = expect("tcp/443", hosts=("10.20.0.1",), name="here")
    assert told(rows(expectations=(here,), listening=listening, own=OWN, scans=(closed,))) == [
        "high listening_unreachable 10.20.0.1 tcp/443"
    ]
    served = DeclaredPort("web", "tcp", 443, 'listens = "443"')
    assert told(rows(listening=listening, own=OWN, scans=(closed,), services=(served,))) == [
        "high listening_unreachable 10.20.0.1 tcp/443"
    ]


def test_who_began_to_listen_after_the_scan_is_not_unreachable_and_not_closed() -> None:
    closed = scan(known(address="10.20.0.1"))
    here = expect("tcp/443", hosts=("10.20.0.1",), name="here")
    for one in (listener("tcp/443", since=NOW - 60), listener("tcp/443", since=0)):
        assert rows(expectations=(here,), listening=(one,), own=OWN, scans=(closed,)) == []
    unseen = listener("tcp/443", since=0)
    noticed = {("tcp", "0.0.0.0", 443): NOW - DAY}
    assert told(rows(expectations=(here,), listening=(unseen,), own=OWN, scans=(closed,), noticed=noticed)) == [
        "high listening_unreachable 10.20.0.1 tcp/443"
    ]
    # A process that is old may have begun to listen a moment ago, and whoever keeps watch knows.
    old = listener("tcp/443", since=NOW - 9 * DAY)
    for since in ({}, {("tcp", "0.0.0.0", 443): NOW - 60}):
        assert rows(expectations=(here,), listening=(old,), own=OWN, scans=(closed,), noticed=since) == []


def test_what_began_while_a_scan_was_under_way_may_have_come_after_it_had_asked() -> None:
    """The run of the scene went on for a minute."""
    during = NOW - HOUR - 30
    closed = scan(known(address="10.20.0.1"))
    noticed = {("tcp", "0.0.0.0", 443): during}
    assert rows(listening=(listener("tcp/443"),), own=OWN, scans=(closed,), noticed=noticed) == []
    seen = sight("tcp/443", first=during, last=during)
    assert rows(scans=(scan(known()),), expectations=(expect("tcp/443"),), sights=(seen,)) == []


INNER = "172.17.0.2"


def inside(text: str, address: str = "0.0.0.0") -> Listener:
    return replace(listener(text, address), space="docker/0123456789ab", addresses=frozenset({INNER}))


def test_what_listens_in_a_container_is_held_against_the_addresses_that_it_has() -> None:
    strict = expect("tcp/443", hosts=("172.17.0.0/16", "10.20.0.1"), others=False, name="all")
    listening = (inside("tcp/80"), inside("tcp/443"), inside("tcp/9000", "172.17.0.9"), listener("tcp/443"))
    (row,) = rows(expectations=(strict,), listening=listening, own=OWN)
    assert (row.severity, row.key) == ("medium", f"open_undeclared {INNER} tcp/80")
    assert row.evidence[-1].text == "0.0.0.0:80 in docker/0123456789ab: nginx (PID 321), nginx.service"
    assert row.evidence[-1].data["namespace"] == "docker/0123456789ab"
    # It does not listen at the addresses of the host, and what the host has does not listen in there.
    served = DeclaredPort("web", "tcp", 80, 'listens = "80"')
    found = told(rows(listening=listening, own=OWN, services=(served,)))
    assert found == ["medium declared_closed localhost tcp/80"]


def test_a_container_that_a_scan_does_not_reach_is_told_with_who_listens_there() -> None:
    wants = expect("tcp/80", hosts=(INNER,))
    silent = scan(known(address=INNER, state="down"))
    assert told(rows(expectations=(wants,), scans=(silent,), own=OWN)) == [f"high host_down {INNER}"]
    closed = scan(known(address=INNER))
    (row,) = rows(expectations=(wants,), scans=(closed,), listening=(inside("tcp/80"),), own=OWN)
    assert (row.severity, row.kind) == ("high", "listening_unreachable")
    assert "in docker/0123456789ab" in row.evidence[1].text


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
