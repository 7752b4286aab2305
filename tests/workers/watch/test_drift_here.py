"""This host and its containers: what listens, held against what is declared and what a scan of it found."""

from __future__ import annotations

from dataclasses import replace

from agent.workers.watch.expectation import Wanted
from agent.workers.watch.listening import Listener
from agent.workers.watch.sources import DeclaredPort
from tests.workers.watch.scenes import (
    DAY,
    HOUR,
    NOW,
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
