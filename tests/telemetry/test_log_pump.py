"""What a child writes reaches its log, and never holds it up."""

from __future__ import annotations

import fcntl
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from agent.telemetry.log_pump import READ, TURN, LogPump, PumpState
from agent.telemetry.logs import TAIL, LogFile, LogState
from tests.telemetry.logs import NOW, STAMP, Clock, another_program, fill, unstamped


def follow(pump: LogPump) -> None:
    """Do what a loop would, to the end."""
    ready = True
    while ready:
        select.select([pump], [], [])
        ready = pump.read_ready()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe: the pump owns the reading end, the test the writing end."""
    reader, writer = os.pipe()
    yield reader, writer
    with suppress(OSError):  # the test may have closed it
        os.close(writer)


def test_output_goes_to_the_log_until_the_end(path: Path, pipe: tuple[int, int]) -> None:
    pump = LogPump(pipe[0], LogFile(path, 1 << 20, 1, lambda: NOW))
    assert pump.read_ready()
    os.write(pipe[1], b"one\nlast words")
    assert pump.read_ready()
    os.close(pipe[1])
    assert not pump.read_ready()
    pump.close()
    assert path.read_bytes() == STAMP + b"one\n" + STAMP + b"last words\n"
    assert (pump.written_bytes, pump.dropped_bytes) == (14, 0)


def test_one_turn_takes_a_bounded_amount(path: Path, pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 1 << 20)
    pump = LogPump(reader, LogFile(path, 1 << 30, 1))
    os.set_blocking(writer, False)
    sent = os.write(writer, bytes(1 << 20))
    pump.read_ready()
    assert pump.written_bytes == TURN * READ < sent
    pump.close()


def test_a_flood_is_cut_in_the_middle_its_end_kept_and_the_loss_counted(path: Path, pipe: tuple[int, int]) -> None:
    clock = Clock()
    due: list[tuple[float, Callable[[], None]]] = []
    log = LogFile(path, 1 << 30, 1, lambda: NOW)
    pump = LogPump(
        pipe[0], log, rate=1 << 20, burst=1 << 18, clock=clock, schedule=lambda s, call: due.append((s, call))
    )
    sent = b"".join(b"line %07d\n" % number for number in range(200_000))
    for at in range(0, len(sent), 65536):
        os.write(pipe[1], sent[at : at + 65536])
        assert pump.read_ready()
    # The child has fallen silent: the timer alone brings the end of its output into the log.
    [(seconds, surface)] = due
    assert 0 < seconds < 1
    clock.now += seconds
    surface()
    lines = unstamped(path.read_bytes()).split(b"\n")[:-1]
    marker = next(line for line in lines if line.startswith(b"[agent]"))
    at = lines.index(marker)
    assert marker == b"[agent] dropped %d bytes: output faster than 1048576 bytes per second" % pump.dropped_bytes
    assert log.dropped_bytes == pump.dropped_bytes == len(sent) - pump.written_bytes
    tail = b"\n".join(lines[at + 1 :]) + b"\n"
    assert sent.endswith(tail)
    assert TAIL - 100 < len(tail) <= TAIL
    assert sent.startswith(b"\n".join(lines[: at - 1]) + b"\n")
    pump.close()


def test_a_flood_that_goes_on_is_written_at_the_rate_and_no_faster(path: Path, pipe: tuple[int, int]) -> None:
    clock = Clock()
    pump = LogPump(pipe[0], LogFile(path, 1 << 30, 1), rate=1 << 20, burst=1 << 18, clock=clock)
    line = b"x" * 1023 + b"\n"
    for _ in range(1000):  # 64 KiB each millisecond is 62 times the rate, for a second
        os.write(pipe[1], line * 64)
        pump.read_ready()
        clock.now += 0.001
    assert (1 << 20) * 0.7 < pump.written_bytes < (1 << 20) * 1.6
    assert pump.written_bytes + pump.dropped_bytes == pytest.approx(1000 * 65536, abs=2 * TAIL)
    pump.close()


def test_output_within_the_rate_is_never_dropped(path: Path, pipe: tuple[int, int]) -> None:
    clock = Clock()
    pump = LogPump(pipe[0], LogFile(path, 1 << 30, 1), rate=1 << 20, clock=clock)
    for _ in range(200):
        os.write(pipe[1], bytes(10_000) + b"\n")
        pump.read_ready()
        clock.now += 0.01
    assert (pump.written_bytes, pump.dropped_bytes) == (200 * 10_001, 0)
    pump.close()


def test_the_last_words_of_a_flooding_child_are_in_its_log(path: Path) -> None:
    script = "import sys\nfor n in range(400000): sys.stdout.write('noise %d\\n' % n)\nprint('Fatal: the reason')"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as child:
        assert child.stdout
        pump = LogPump(os.dup(child.stdout.fileno()), LogFile(path, 1 << 20, 2), rate=1 << 20)
        child.stdout.close()
        follow(pump)
        pump.close()
    assert path.read_bytes().endswith(b"Z Fatal: the reason\n")
    assert pump.dropped_bytes > 0


def test_draining_ends_at_the_end_of_the_output(path: Path, pipe: tuple[int, int]) -> None:
    pump = LogPump(pipe[0], LogFile(path, 1 << 20, 1, lambda: NOW))
    os.write(pipe[1], b"x" * 60_000 + b"\nlast")
    os.close(pipe[1])
    assert pump.drain(time.monotonic() + 5)
    pump.close()
    assert path.read_bytes().endswith(b"last\n")


def test_draining_does_not_wait_for_a_grandchild_that_keeps_the_pipe(path: Path) -> None:
    reader, writer = os.pipe()
    grandchild = subprocess.Popen(["sleep", "60"], stdout=writer)
    try:
        os.write(writer, b"last words\n")
        os.close(writer)
        pump = LogPump(reader, LogFile(path, 1 << 20, 1, lambda: NOW))
        started = time.monotonic()
        assert not pump.drain(started + 5)
        assert time.monotonic() - started < 1
        assert path.read_bytes() == STAMP + b"last words\n"
        pump.close()
    finally:
        grandchild.kill()
        grandchild.wait()


def test_draining_a_pipe_that_a_grandchild_floods_comes_to_an_end(path: Path) -> None:
    reader, writer = os.pipe()
    flood = subprocess.Popen(["yes", "noise"], stdout=writer)
    try:
        os.close(writer)
        pump = LogPump(reader, LogFile(path, 1 << 20, 1))
        assert pump.read_ready()
        started = time.monotonic()
        assert not pump.drain(started + 5)
        assert time.monotonic() - started < 1
        pump.close()
    finally:
        flood.kill()
        flood.wait()


def test_a_writer_is_never_held_up_by_a_full_disk(small_disk: Path) -> None:
    fill(small_disk)
    reader, writer = os.pipe()
    log = LogFile(small_disk / "api.log", 1 << 20, 1)
    pump = LogPump(reader, log)

    def child() -> None:
        for _ in range(200):
            os.write(writer, b"y" * 65535 + b"\n")
        os.close(writer)

    thread = threading.Thread(target=child)
    thread.start()
    follow(pump)
    thread.join(5)
    assert not thread.is_alive()
    pump.close()
    log.close()
    assert log.dropped_bytes > 200 * 65536 - 2 * TAIL


def test_another_program_goes_on_emptying_the_pipe_and_knows_what_came_through(
    path: Path, pipe: tuple[int, int]
) -> None:
    reader, writer = pipe
    pump = LogPump(reader, LogFile(path, 1 << 20, 1, lambda: NOW))
    os.write(writer, b"first\nlast wo")
    pump.read_ready()
    frozen = msgspec.json.encode((pump.freeze(), pump._log.freeze()))  # type: ignore[attr-defined]  # it is a LogFile
    os.write(writer, b"rds")  # while nobody reads
    pump_state, log_state = msgspec.json.decode(frozen, type=tuple[PumpState, LogState])
    log = LogFile(path, 1 << 20, 1, lambda: NOW)
    log.thaw(log_state)
    follows = LogPump(reader, log)
    follows.thaw(pump_state)
    assert (follows.last_line, follows.written_bytes) == ("last wo", 13)
    follows.read_ready()
    assert (follows.last_line, follows.written_bytes) == ("last words", 16)
    follows.close()
    assert path.read_bytes() == STAMP + b"first\n" + STAMP + b"last words\n"


def test_a_flood_ends_where_another_program_follows_and_the_loss_is_told_once(
    path: Path, pipe: tuple[int, int]
) -> None:
    reader, writer = pipe
    log = LogFile(path, 1 << 30, 1, lambda: NOW)
    pump = LogPump(reader, log, rate=1000, burst=1000, clock=lambda: 0.0)
    os.set_blocking(writer, False)
    lines = [b"line %06d\n" % number for number in range(20_000)]
    for at in range(0, len(lines), 1000):
        os.write(writer, b"".join(lines[at : at + 1000]))
        pump.read_ready()
    assert pump.dropped_bytes > 0
    state, dropped = pump.freeze(), pump.dropped_bytes
    follows = LogPump(reader, another_program(log), rate=1000, burst=1000, clock=lambda: 0.0)
    follows.thaw(state)
    os.write(writer, b"after\n")
    follows.read_ready()
    follows.close()
    assert follows.dropped_bytes == dropped
    text = unstamped(path.read_bytes()).splitlines()
    assert text.count(b"[agent] dropped %d bytes: output faster than 1000 bytes per second" % dropped) == 1
    assert text[-2:] == [lines[-1][:-1], b"after"]
    kept = sum(len(line) + 1 for line in text if line.startswith(b"line"))
    assert kept + dropped == sum(map(len, lines))
