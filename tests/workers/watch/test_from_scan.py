"""What drift takes from the memory of a scan: settled, covered, and not too old."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.errors import StorageFailure
from agent.workers.scan.memory.reading import Memory
from agent.workers.watch.from_scan import LEAST_FRESH, Stale, freshness, read
from agent.workers.watch.sources import Scanned
from tests.workers.watch.memories import remember, up
from tests.workers.watch.scenes import DAY, HOUR, NOW, port

WEB, DOWN = "10.20.0.10", "10.20.0.11"


def scanned(directory: Path, *wanted: str, now: float = NOW) -> Scanned:
    return read(directory / "scan.db", "lan_scan", "", wanted, now)


def states(found: Scanned, *ports: str, address: str = WEB) -> list[str | None]:
    host = found.known[address].host
    return [host.state_of(text.partition("/")[0], int(text.partition("/")[2])) for text in ports]


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
    known = found.known[WEB]
    assert (known.run, known.at, known.host.state) == (2, NOW - 2 * HOUR, "up")
    assert (known.port("tcp", 22) or port("tcp/1")).service == "ssh"
    assert known.since["tcp", 22] < NOW - 2 * HOUR
    assert found.known[DOWN].host.state == "down"
    assert states(found, "tcp/22", address=DOWN) == ["filtered"]
    assert "10.20.0.99" not in found.known


def test_one_run_that_misses_something_closes_nothing_and_two_do(tmp_path: Path) -> None:
    for hours in (9, 8):
        remember(tmp_path, [up(WEB, port("tcp/22"))], NOW - hours * HOUR)
    remember(tmp_path, [up(WEB)], NOW - 7 * HOUR)
    assert states(scanned(tmp_path), "tcp/22", "tcp/23") == ["open", "closed"]
    remember(tmp_path, [up(WEB)], NOW - 6 * HOUR)
    found = scanned(tmp_path)
    assert states(found, "tcp/22", "tcp/23") == ["closed", "closed"]
    assert NOW - 7 * HOUR < found.known[WEB].since["tcp", 22] <= NOW - 6 * HOUR
    remember(tmp_path, [], NOW - 5 * HOUR, silent=[WEB])
    assert scanned(tmp_path, WEB).known[WEB].host.state == "up"
    remember(tmp_path, [], NOW - 4 * HOUR, silent=[WEB])
    assert scanned(tmp_path, WEB).known[WEB].host.state == "down"


def test_what_a_run_did_not_finish_or_was_degraded_says_nothing_of_what_it_did_not_find(tmp_path: Path) -> None:
    for hours in (9, 8):
        remember(tmp_path, [up(WEB, port("tcp/22"))], NOW - hours * HOUR)
    for hours in (7, 6, 5):
        remember(tmp_path, [up(WEB)], NOW - hours * HOUR, degraded="a canary is missing")
        remember(tmp_path, [], NOW - hours * HOUR + 60, silent=[WEB, DOWN], status="stopped")
    found = scanned(tmp_path, WEB, DOWN)
    assert states(found, "tcp/22") == ["open"]
    assert DOWN not in found.known


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
    assert WEB in scanned(tmp_path).known
    with pytest.raises(Stale, match="its last run that counts ended 9 days ago"):
        scanned(tmp_path, now=NOW + 9 * DAY)


def test_what_is_scanned_seldom_stays_fresh_for_longer(tmp_path: Path) -> None:
    for days in (60, 30):
        remember(tmp_path, [up(WEB)], NOW - days * DAY)
    with Memory(tmp_path / "scan.db") as memory:
        assert freshness(memory.runs()) == pytest.approx(75 * DAY)
        assert freshness(memory.runs(1)) == LEAST_FRESH
    assert WEB in scanned(tmp_path, now=NOW).known
