"""What drift takes from the memory of a scan: settled, covered, and not too old."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.errors import StorageFailure
from agent.workers.scan.memory.reading import Memory
from agent.workers.watch.from_scan import LEAST_FRESH, Stale, freshness, read
from agent.workers.watch.sources import Known, Looks
from tests.workers.watch.memories import imported, remember, up
from tests.workers.watch.scenes import DAY, HOUR, NOW, port

WEB, DOWN = "10.20.0.10", "10.20.0.11"


def scanned(directory: Path, *wanted: str, now: float = NOW) -> Looks:
    return Looks(read(directory / "scan.db", "lan_scan", "", wanted, now), now)


def states(found: Looks, *ports: str, address: str = WEB) -> list[str | None]:
    looks = [found.port(address, text.partition("/")[0], int(text.partition("/")[2])) for text in ports]
    return [look.state if look is not None else None for look in looks]


def host(found: Looks, address: str = WEB) -> Known:
    asked = found.host(address)
    assert asked is not None
    return asked[1]


def test_a_host_is_known_by_what_is_settled_and_by_what_was_closed_and_never_asked(tmp_path: Path) -> None:
    web = up(WEB, port("tcp/22", service="ssh"), port("tcp/80", "filtered"))
    for hours in (3, 2):
        remember(tmp_path, [web], NOW - hours * HOUR, silent=[DOWN])
    found = scanned(tmp_path, DOWN, "10.20.0.99")
    assert states(found, "tcp/22", "tcp/80", "tcp/443", "tcp/2000", "udp/53") == [
        "open",
        "filtered",
        "closed",
        None,
        None,
    ]
    known = host(found)
    assert (known.run, known.at, known.began, known.host.state) == (2, NOW - 2 * HOUR, NOW - 2 * HOUR - 10, "up")
    look = found.port(WEB, "tcp", 22)
    assert look is not None
    assert (look.known.port("tcp", 22) or port("tcp/1")).service == "ssh"
    assert look.since < look.began < look.at <= NOW - 2 * HOUR
    assert host(found, DOWN).host.state == "down"
    assert states(found, "tcp/22", address=DOWN) == ["filtered"]
    assert found.host("10.20.0.99") is None


def test_one_run_that_misses_something_closes_nothing_and_two_do(tmp_path: Path) -> None:
    for hours in (9, 8):
        remember(tmp_path, [up(WEB, port("tcp/22"))], NOW - hours * HOUR)
    remember(tmp_path, [up(WEB)], NOW - 7 * HOUR)
    assert states(scanned(tmp_path), "tcp/22", "tcp/23") == ["open", "closed"]
    remember(tmp_path, [up(WEB)], NOW - 6 * HOUR)
    found = scanned(tmp_path)
    assert states(found, "tcp/22", "tcp/23") == ["closed", "closed"]
    look = found.port(WEB, "tcp", 22)
    assert look is not None
    assert NOW - 7 * HOUR < look.since <= NOW - 6 * HOUR
    remember(tmp_path, [], NOW - 5 * HOUR, silent=[WEB])
    assert host(scanned(tmp_path, WEB)).host.state == "up"
    remember(tmp_path, [], NOW - 4 * HOUR, silent=[WEB])
    assert host(scanned(tmp_path, WEB)).host.state == "down"


def test_what_a_run_did_not_finish_or_was_degraded_says_nothing_of_what_it_did_not_find(tmp_path: Path) -> None:
    for hours in (9, 8):
        remember(tmp_path, [up(WEB, port("tcp/22"))], NOW - hours * HOUR)
    for hours in (7, 6, 5):
        remember(tmp_path, [up(WEB)], NOW - hours * HOUR, degraded="a canary is missing")
        remember(tmp_path, [], NOW - hours * HOUR + 60, silent=[WEB, DOWN], status="stopped")
    found = scanned(tmp_path, WEB, DOWN)
    assert states(found, "tcp/22") == ["open"]
    assert found.host(DOWN) is None


def test_a_look_has_the_one_before_it_of_the_same_plan(tmp_path: Path) -> None:
    """Of a host that looked the same, of one that did not, and of one that was silent."""
    other = "10.20.0.12"
    for hours in (9, 8):
        remember(tmp_path, [up(WEB), up(other, port("tcp/22"))], NOW - hours * HOUR, silent=[DOWN])
    remember(tmp_path, [up(WEB), up(other, port("tcp/23"))], NOW - 7 * HOUR)
    (_, newest) = read(tmp_path / "scan.db", "lan_scan", "", [DOWN], NOW)
    for address, before, silent in ((WEB, "closed", 0), (other, None, 0)):
        one = newest.known[address]
        assert (one.run, one.host.state_of("tcp", 24), one.silences(0)) == (3, "closed", silent)
        assert one.before is not None
        assert (one.before.run, one.before.at, one.before.host.state_of("tcp", 22)) == (2, NOW - 8 * HOUR, before)
        assert [one.denials("tcp", 24, NOW - ago * HOUR) for ago in (9, 8, 7)] == [2, 1, 0]
    assert DOWN not in newest.known
    for hours in (6, 5):
        remember(tmp_path, [up(WEB)], NOW - hours * HOUR, silent=[DOWN])
    (_, newest) = read(tmp_path / "scan.db", "lan_scan", "", [DOWN], NOW)
    assert newest.known[DOWN].silences(NOW - 7 * HOUR) == 2
    assert newest.known[DOWN].silences(NOW - 6 * HOUR) == 1


def test_a_look_that_has_missed_something_is_none_that_has_found_it(tmp_path: Path) -> None:
    for hours in (9, 8):
        remember(tmp_path, [up(WEB, port("tcp/22"))], NOW - hours * HOUR)
    remember(tmp_path, [up(WEB)], NOW - 7 * HOUR)
    look = scanned(tmp_path).port(WEB, "tcp", 22)
    assert look is not None
    assert (look.state, look.at) == ("open", NOW - 8 * HOUR - 1)
    remember(tmp_path, [], NOW - 6 * HOUR, silent=[WEB])
    (settled, _) = read(tmp_path / "scan.db", "lan_scan", "", [WEB], NOW)
    assert (settled.known[WEB].run, settled.known[WEB].at) == (3, NOW - 7 * HOUR - 1)


def test_plans_that_cover_different_ports_are_taken_together(tmp_path: Path) -> None:
    for hours in (9, 8):
        remember(tmp_path, [up(WEB, port("tcp/22"))], NOW - hours * HOUR, plan="first")
    udp = up(WEB, port("udp/53"))
    for hours in (7, 6):
        remember(tmp_path, [udp], NOW - hours * HOUR, plan="second")
    assert states(scanned(tmp_path), "tcp/22", "udp/53") == ["closed", "open"]


def test_without_a_run_that_counts_there_is_nothing_to_hold_against_anything(tmp_path: Path) -> None:
    with pytest.raises(StorageFailure, match="nothing was scanned yet"):
        scanned(tmp_path)
    remember(tmp_path, [up(WEB)], NOW, status="failed")
    with pytest.raises(Stale, match="no run has come to its end"):
        scanned(tmp_path)
    remember(tmp_path, [up(WEB)], NOW)
    assert scanned(tmp_path).host(WEB) is not None
    with pytest.raises(Stale, match="its last run that counts ended 9 days ago"):
        scanned(tmp_path, now=NOW + 9 * DAY)


def test_what_is_scanned_seldom_stays_fresh_for_longer(tmp_path: Path) -> None:
    for days in (60, 30):
        remember(tmp_path, [up(WEB)], NOW - days * DAY)
    with Memory(tmp_path / "scan.db") as memory:
        assert freshness(memory.runs()) == pytest.approx(75 * DAY)
        assert freshness(memory.runs(1)) == LEAST_FRESH
    assert scanned(tmp_path, now=NOW).host(WEB) is not None


def test_an_old_report_that_is_taken_in_late_makes_no_scan_old(tmp_path: Path) -> None:
    for hours in (3, 2):
        remember(tmp_path, [up(WEB, port("tcp/22"))], NOW - hours * HOUR)
    imported(tmp_path, [up(WEB, port("tcp/80"), port("tcp/2000"))], NOW - 99 * DAY)
    found = scanned(tmp_path)
    # Of 80 something newer is known, and of 2000 nothing that would count any more.
    assert states(found, "tcp/22", "tcp/23", "tcp/80", "tcp/2000") == ["open", "closed", "closed", None]
    assert host(found).run == 2
