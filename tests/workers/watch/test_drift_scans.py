"""What several scans, and reports of others, say of one host: what counts, and who takes it back."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

from agent.workers.watch.sources import Known
from tests.workers.watch.scenes import (
    DAY,
    HOUR,
    NOW,
    WEB,
    expect,
    known,
    port,
    rows,
    scan,
    sight,
    told,
)


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
