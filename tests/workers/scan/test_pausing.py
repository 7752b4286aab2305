"""A scan sends nothing while it is paused or outside its window, and ends when it is told to."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from ipaddress import IPv4Network, ip_address
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from agent.declaration.model import Scan, Scanning
from agent.declaration.wall_clock import Offset
from agent.declaration.window import DAY, parse_window
from agent.workers.scan.pausing import EXTEND_EVERY, LOOK, Ended, Gate, opens
from tests.workers.scan.bench import ENTRY, Bench, loopback, until
from tests.workers.scan.wire import Wire, entered, wire


class Clock:
    """Ticks when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "lan.json"


@pytest.fixture
def extended() -> list[float]:
    return []


@pytest.fixture
def gate(config: Path, clock: Clock, extended: list[float]) -> Gate:
    """Its window is closed from 1100 to 1200."""

    def window(now: float) -> float | None:
        return 1200.0 if 1100 <= now < 1200 else None

    return Gate(config, window, timeout=60.0, extend=extended.append, clock=clock, ticks=clock)


def test_it_is_closed_while_the_file_is_there_and_looks_no_oftener_than_it_says(
    gate: Gate, config: Path, clock: Clock
) -> None:
    assert gate.look()
    config.with_suffix(".paused").touch()
    assert gate.look()
    clock.now += LOOK
    assert not gate.look()
    assert (gate.open, gate.why) == (False, "paused by hand")
    config.with_suffix(".paused").unlink()
    assert not gate.look()
    clock.now += LOOK
    assert gate.look()
    assert gate.held == pytest.approx(LOOK)


def test_a_link_to_nowhere_pauses_too(gate: Gate, config: Path) -> None:
    config.with_suffix(".paused").symlink_to("nowhere")
    assert not gate.look()


def test_outside_its_window_it_is_closed_and_says_until_when(gate: Gate, clock: Clock, config: Path) -> None:
    clock.now = 1150.0
    assert not gate.look()
    assert gate.why == f"outside its window until {time.strftime('%Y-%m-%d %H:%M', time.localtime(1200))}"
    config.with_suffix(".paused").touch()
    clock.now = 1250.0
    assert not gate.look()
    assert gate.why == "paused by hand"
    config.with_suffix(".paused").unlink()
    clock.now = 1260.0
    assert gate.look()
    assert gate.held == pytest.approx(110.0)


def test_the_time_for_which_it_is_closed_does_not_count_for_the_timeout(
    gate: Gate, config: Path, clock: Clock, extended: list[float]
) -> None:
    """Asked for is always what was left of 60 seconds when it closed, and when it is open what is left by then."""
    gate.look()
    clock.now += 20
    config.with_suffix(".paused").touch()
    for _ in range(20):
        assert not gate.look()
        clock.now += EXTEND_EVERY / 2
    assert extended == pytest.approx([40.0] * 10)
    config.with_suffix(".paused").unlink()
    assert gate.look()
    clock.now += 15
    assert gate.look()
    assert extended[-2:] == pytest.approx([40.0, 25.0])
    clock.now += 50
    assert gate.look()
    assert extended[-1] == 0.0


def test_nobody_is_asked_for_time_that_was_not_lost(gate: Gate, clock: Clock, extended: list[float]) -> None:
    for _ in range(9):
        assert gate.look()
        clock.now += 10
    assert not extended


def test_an_order_to_end_ends_whatever_waits(gate: Gate, config: Path) -> None:
    config.with_suffix(".ended").touch()
    with pytest.raises(Ended):
        gate.look()
    with pytest.raises(Ended):
        asyncio.run(gate.passage())


def test_long_work_that_sends_nothing_beats_lets_others_have_their_turn_and_heeds_orders(config: Path) -> None:
    gate = Gate(config, ticks=iter(range(10_000)).__next__)  # each look is due
    turns: list[str] = []

    async def other() -> None:
        turns.append("other")

    async def work() -> None:
        task = asyncio.create_task(other())
        await gate.breathe(lambda: turns.append("beat"))
        await task
        config.with_suffix(".ended").touch()
        with pytest.raises(Ended):
            await gate.breathe(lambda: turns.append("beat"))

    asyncio.run(work())
    assert turns == ["beat", "other", "beat"]


def test_without_settings_on_disk_it_is_open() -> None:
    assert Gate(None).look()


async def _forever(begun: list[str], ended: list[str]) -> str:
    begun.append("")
    try:
        await asyncio.Event().wait()
    finally:
        ended.append("")
    return "never"


def test_what_cannot_be_asked_is_cancelled_and_done_anew(config: Path) -> None:
    begun: list[str] = []
    turns: list[str] = []
    pause = config.with_suffix(".paused")

    async def work() -> str:
        if len(begun) == 1:
            return "done"
        loop = asyncio.get_running_loop()
        loop.call_soon(pause.touch)
        return await _forever(begun, [])

    def turn() -> None:
        turns.append(own.why)
        if len(turns) == 3:
            pause.unlink()

    own = Gate(config)
    assert asyncio.run(own.redo(work, turn)) == "done"
    assert turns == ["paused by hand"] * 3


@pytest.mark.parametrize("suffix", [".ended", None])
def test_nothing_goes_on_when_the_run_ends_or_the_worker_is_stopped(config: Path, suffix: str | None) -> None:
    begun: list[str] = []
    ended: list[str] = []

    async def stop() -> None:
        task = asyncio.ensure_future(Gate(config).redo(lambda: _forever(begun, ended)))
        while not begun:
            await asyncio.sleep(0)
        if suffix:
            config.with_suffix(suffix).touch()
        else:
            task.cancel()
        with pytest.raises(Ended if suffix else asyncio.CancelledError):
            await task

    asyncio.run(stop())
    assert (len(begun), len(ended)) == (1, 1)


def test_what_fails_fails_as_it_does(config: Path) -> None:
    async def fail() -> None:
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        asyncio.run(Gate(config).redo(fail))


def test_the_windows_of_a_declaration_say_when_it_opens() -> None:
    def utc(at: int) -> Offset:
        return 0, False

    monday = 4 * DAY  # 1970-01-05
    when = opens([parse_window("Mon..Fri 20:00-06:00")], utc)
    assert when(monday + 21 * 3600) is None
    assert when(monday + 7 * 3600) == monday + 20 * 3600
    assert when(monday + 5 * DAY + 7 * 3600) == monday + 7 * DAY + 20 * 3600
    assert opens([], utc)(monday) is None


# -- the worker as a process, with an nmap that takes its time ------------------------------------------------------

WAITING = 'echo $$ >> "$HERE/began"; [ -e "$HERE/go" ] && exec "$NMAP" "$@"; exec sleep 600'
"""An nmap that scans once it may."""


@pytest.fixture
def here(bench: Bench) -> Iterator[Path]:
    yield bench.directory / "fake"


def pids(here: Path) -> list[int]:
    """Of all that were started in place of nmap."""
    began = here / "began"
    return [int(line) for line in began.read_text().split()] if began.exists() else []


def lives(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def told(bench: Bench, words: str) -> None:
    """Wait until the worker says so of itself."""
    while not any(words in note.get("STATUS", "") for note in bench.notes):
        bench.receive()


def test_a_pause_ends_nmap_within_a_second_and_what_it_was_at_is_done_anew(bench: Bench, here: Path) -> None:
    process = bench.start(loopback(), path=bench.fake(WAITING))
    until(lambda: pids(here))
    (bench.directory / "lan.paused").touch()
    assert until(lambda: not lives(pids(here)[0])) < A_SECOND  # half of one at most, if nothing else is to be done
    told(bench, "paused by hand: 0 of 1 host")
    (here / "go").touch()
    (bench.directory / "lan.paused").unlink()
    ended = bench.finish(process)
    assert ended.code == 0, ended.stderr
    assert len(pids(here)) == 2
    assert bench.rows("SELECT status, chunks_done FROM runs") == [("finished", 1)]
    assert ended.figures["held"] == ""


# -- what leaves the host ---------------------------------------------------------------------------------------------

WAYS: dict[str, dict[str, Any]] = {
    "10.77.0.2": {"engine": "connect", "ports": "10000-20000"},
    "10.77.0.3": {"engine": "syn", "ports": "10000-20000"},
    "10.77.0.4": {"ports": "udp/10000-20000"},
    "10.77.0.128/25": {"profile": "discovery"},
    "10.77.0.5": {"profile": "services", "ports": "30000-30039", "budget": Scanning(target_rate=20)},
}
"""By whom they ask: the ways in which anything is sent. Hosts say nothing, so that whatever retries has cause to."""
LISTENING = range(30000, 30040)

SILENT = """
table inet silent {
  chain in {
    type filter hook input priority 0;
    tcp dport 10000-20000 drop;
    udp dport 10000-20000 drop;
  }
}
"""
A_SECOND = 1.0
NOON = time.mktime((*time.localtime()[:3], 12, 0, 0, 0, 0, -1))
LONGER = 2.0
"""Seconds in which whatever retries would do so."""


class Way(NamedTuple):
    bench: Bench
    process: subprocess.Popen[str]
    net: IPv4Network

    def sent(self, wire: Wire, since: float) -> list[float]:
        """When packets to its hosts left, in seconds from then on."""
        return [one.at - since for one in wire.sent if one.at >= since and ip_address(one.to) in self.net]


CLOCKED = f"""
import os, time
real = time.time

def told():
    clock = os.stat(os.environ["SERVICE_CONFIG"] + ".clock")
    return clock.st_mtime + real() - clock.st_ctime

time.time = told
{ENTRY}
"""
"""The worker, by whose clock it is when the file was modified, and goes on from there."""


@pytest.fixture
def ways(tmp_path: Path, network: tuple[str, ...]) -> Iterator[list[Way]]:
    """Scans that would take minutes, at work, one in each way, an hour before their window closes at noon."""
    there = network[-1].replace("scan-a", "scan-b")
    for address in ("10.77.0.4", "10.77.0.5"):
        subprocess.run(["ip", "-n", there, "addr", "add", f"{address}/24", "dev", "wire"], check=True)
    subprocess.run(["ip", "netns", "exec", there, "nft", "-f", "-"], input=SILENT, text=True, check=True)
    found: list[Way] = []
    with entered(there):
        listeners = [socket.create_server(("10.77.0.5", port)) for port in LISTENING]
    try:
        for number, (target, settings) in enumerate(WAYS.items()):
            (directory := tmp_path / str(number)).mkdir()
            own = Bench(directory)
            scan = Scan(name="lan", targets=(target,), rate=20, window=("06:00-12:00",), **settings)
            it_is(own, NOON - 3600)
            found.append(Way(own, own.start(scan, prefix=network, entry=CLOCKED), IPv4Network(target)))
        while '"phase":"services"' not in str(found[-1].bench.notes):
            found[-1].bench.receive()
        yield found
    finally:
        for listener in listeners:
            listener.close()
        for way in found:
            way.bench.close()


def test_in_whatever_way_it_sends_it_is_held_goes_on_and_ends_within_a_second(
    ways: list[Way], network: tuple[str, ...]
) -> None:
    """By hand, and when its window closes in the middle."""
    with wire(network[-1]) as sent:

        def all_send(since: float) -> None:
            until(lambda: all(len(way.sent(sent, since)) > 5 for way in ways), 30.0)
            if since:
                for way in ways:
                    assert min(way.sent(sent, since)) < A_SECOND, way.net

        def none_sends(since: float) -> None:
            time.sleep(max(0.0, since + LONGER - time.time()))  # that nothing happens cannot be waited for
            for way in ways:
                assert max(way.sent(sent, since), default=0.0) < A_SECOND, way.net

        def tell(name: str) -> float:
            for way in ways:
                (way.bench.directory / f"lan.{name}").touch()
            return time.time()

        all_send(0.0)
        none_sends(tell("paused"))
        for way in ways:
            (way.bench.directory / "lan.paused").unlink()
        all_send(time.time())
        for way in ways:
            it_is(way.bench, NOON - 0.3)
        none_sends(time.time() + 0.3)
        for way in ways:
            told(way.bench, "outside its window until ")
            it_is(way.bench, NOON + 18 * 3600)
        all_send(time.time())
        ended = tell("ended")
        for way in ways:
            assert way.bench.finish(way.process).code == 0
            assert way.bench.rows("SELECT status FROM runs") == [("stopped",)]
        none_sends(ended)


def it_is(bench: Bench, at: float) -> None:
    """So late, by the clock of ``CLOCKED``."""
    clock = bench.directory / "lan.json.clock"
    clock.touch()
    os.utime(clock, (at, at))


def test_a_scan_that_is_paused_before_it_starts_is_ready_and_waits(bench: Bench, here: Path) -> None:
    path = bench.fake(WAITING)
    (here / "go").touch()
    (bench.directory / "lan.paused").touch()
    process = bench.start(loopback(), path=path)
    told(bench, "paused by hand")
    before = bench.heartbeat.stat().st_mtime_ns
    until(lambda: bench.heartbeat.stat().st_mtime_ns != before)
    assert {"READY": "1"} in bench.notes
    assert not pids(here)
    (bench.directory / "lan.paused").unlink()
    assert bench.finish(process).code == 0


def test_an_ended_run_keeps_what_it_found_and_the_next_one_begins_anew(bench: Bench, here: Path) -> None:
    path = bench.fake('echo $$ >> "$HERE/began"; [ $(wc -l < "$HERE/began") = 2 ] && exec sleep 600; exec "$NMAP" "$@"')
    process = bench.start(loopback("127.0.0.0/25"), path=path)
    until(lambda: len(pids(here)) == 2)
    (bench.directory / "lan.ended").touch()
    ended = bench.finish(process)
    assert ended.code == 0, ended.stderr
    message = "ended by hand after 64 of 128 hosts"
    assert ended.events["scan_stopped"]["message"] == f"127.0.0.0/25: {message}"
    assert bench.rows("SELECT status, chunks_done, message FROM runs") == [("stopped", 1, message)]
    (bench.directory / "lan.ended").unlink()
    assert bench.run(loopback("127.0.0.0/25")).code == 0
    assert bench.rows("SELECT id, status, chunks_done FROM runs") == [(1, "stopped", 1), (2, "finished", 2)]


def test_outside_its_window_a_scan_is_ready_and_waits(bench: Bench, here: Path) -> None:
    """The window is an hour of another day than today."""
    path = bench.fake(WAITING)
    day = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")[(time.localtime().tm_wday + 3) % 7]
    scan = msgspec.structs.replace(loopback(), window=(f"{day} 03:00-04:00",))
    process = bench.start(scan, path=path)
    told(bench, "outside its window until ")
    assert {"READY": "1"} in bench.notes
    assert not pids(here)
    (bench.directory / "lan.ended").touch()
    assert bench.finish(process).events["scan_stopped"]["message"].endswith("ended by hand after 0 of 1 host")
