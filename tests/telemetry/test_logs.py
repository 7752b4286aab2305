from __future__ import annotations

import ctypes
import fcntl
import os
import re
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.telemetry.logs import READ, TAIL, TURN, LogFile, LogPump, LogState, PumpState

STAMP = b"2025-11-20T12:00:00.500Z "
NOW = 1_763_640_000.5


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log" / "api.log"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    libc = ctypes.CDLL(None, use_errno=True)
    target = tmp_path / "disk"
    target.mkdir()
    if libc.mount(b"tmpfs", os.fsencode(target), b"tmpfs", 0, b"size=256k"):
        raise OSError(ctypes.get_errno(), "mounting a tmpfs")
    yield target
    libc.umount2(os.fsencode(target), 2)


def fill(disk: Path) -> Path:
    """Take every byte that is left."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(512))
    return filler


def follow(pump: LogPump) -> None:
    """Do what a loop would, to the end."""
    ready = True
    while ready:
        select.select([pump], [], [])
        ready = pump.read_ready()


def everything(path: Path) -> bytes:
    """All files of the log, oldest first."""
    numbered = sorted(path.parent.glob(f"{path.name}.*"), key=lambda file: -int(file.suffix[1:]))
    return b"".join(file.read_bytes() for file in [*numbered, path])


def another_program(log: LogFile) -> LogFile:
    """The log as the program that follows in this process has it: everything else went with execve(2)."""
    frozen = msgspec.json.encode(log.freeze())
    log._shut()
    follows = LogFile(log.path, log._size, log._keep, log._clock)
    follows.thaw(msgspec.json.decode(frozen, type=LogState))
    return follows


def unstamped(data: bytes) -> bytes:
    return re.sub(rb"(?m)^2025-11-20T12:00:00\.500Z ", b"", data)


# -- LogFile ----------------------------------------------------------------------------------------------------------


def test_each_line_is_stamped_once_whatever_pieces_it_arrives_in(path: Path) -> None:
    log = LogFile(path, 1 << 20, 1, lambda: NOW)
    for piece in (b"on", b"e\ntwo\nth", b"", b"ree", b"\n", b"\n", b"last"):
        log.write(piece)
    assert path.read_bytes() == b"".join(
        [STAMP + b"one\n", STAMP + b"two\n", STAMP + b"three\n", STAMP + b"\n", STAMP + b"last"]
    )
    log.close()
    assert path.read_bytes().endswith(b"last\n")


def test_the_file_may_be_read_by_its_group_and_by_nobody_else(path: Path) -> None:
    previous = os.umask(0o077)
    try:
        LogFile(path, 4096, 1).write(b"text\n")
    finally:
        os.umask(previous)
    assert path.stat().st_mode & 0o7777 == 0o640


@settings(deadline=None, max_examples=60)
@given(
    pieces=st.lists(st.binary(max_size=3000).map(lambda data: data.replace(b"\r", b"\n")), max_size=20),
    size=st.integers(0, 9000),
    keep=st.integers(0, 4),
)
def test_files_stay_within_their_size_and_number_and_keep_the_newest_output(
    pieces: list[bytes], size: int, keep: int
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "api.log"
        log = LogFile(path, size, keep, lambda: NOW)
        for piece in pieces:
            log.write(piece)
        log.close()
        files = list(Path(directory).iterdir())
        assert len(files) <= keep + 1
        assert all(file.stat().st_size <= max(size, 4096) for file in files)
        if files:
            kept = unstamped(everything(path)).replace(b"\n", b"")
            assert b"".join(pieces).replace(b"\n", b"").endswith(kept)
            assert all(line.startswith(STAMP) for line in everything(path).split(b"\n")[:-1])
        assert log.dropped_bytes == 0


def test_files_from_a_time_when_more_were_kept_are_deleted(path: Path) -> None:
    path.parent.mkdir()
    for number in range(1, 6):
        path.with_name(f"api.log.{number}").write_bytes(b"old\n")
    LogFile(path, 4096, 2).write(b"new\n")
    assert sorted(file.name for file in path.parent.iterdir()) == ["api.log", "api.log.1", "api.log.2"]


def test_a_line_left_unfinished_by_a_killed_agent_is_finished(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(STAMP + b"unfini")
    LogFile(path, 4096, 1, lambda: NOW).write(b"new\n")
    assert path.read_bytes() == STAMP + b"unfini\n" + STAMP + b"new\n"


def test_a_log_renamed_by_another_program_or_run_is_begun_again(path: Path) -> None:
    one, two = LogFile(path, 4096, 3, lambda: NOW), LogFile(path, 4096, 3, lambda: NOW)
    for number in range(100):
        one.write(b"one %03d %s\n" % (number, b"x" * 50))
        two.write(b"two %03d %s\n" % (number, b"x" * 50))
    assert all(file.stat().st_size <= 4096 for file in path.parent.iterdir())
    assert unstamped(everything(path)).endswith(b"one 099 %s\ntwo 099 %s\n" % (b"x" * 50, b"x" * 50))
    path.rename(path.with_name("kept.log"))
    one.write(b"new\n")
    assert path.read_bytes() == STAMP + b"new\n"


def test_a_log_deleted_by_hand_is_begun_again(path: Path) -> None:
    log = LogFile(path, 4096, 1, lambda: NOW)
    log.write(b"one\n")
    path.unlink()
    log.write(b"two\n")
    assert path.read_bytes() == STAMP + b"two\n"


@pytest.mark.parametrize("trap", ["symlink", "fifo", "directory"])
def test_what_is_no_regular_file_is_never_written_to(path: Path, tmp_path: Path, trap: str) -> None:
    path.parent.mkdir()
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    if trap == "symlink":
        path.symlink_to(victim)
    elif trap == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    clock = Clock()
    log = LogFile(path, 4096, 1, clock)
    log.write(b"one\n")
    assert victim.read_bytes() == b"precious"
    path.rmdir() if trap == "directory" else path.unlink()
    clock.now += 1
    log.write(b"two\n")
    assert [line[25:] for line in path.read_bytes().splitlines()] == [b"one", b"two"]
    assert log.dropped_bytes == 0


def test_a_full_disk_costs_the_middle_and_never_the_end(small_disk: Path) -> None:
    clock = Clock()
    log = LogFile(small_disk / "api.log", 1 << 20, 1, clock)
    log.write(b"before\n")
    filler = fill(small_disk)
    sent = [b"line %06d of a program that does not care\n" % number for number in range(5000)]
    for line in sent:
        log.write(line)
    assert log.dropped_bytes > 0
    filler.unlink()
    log.write(b"too soon for another attempt\n")
    clock.now += 1.0
    log.write(b"after\n")
    lines = [line[25:] for line in (small_disk / "api.log").read_bytes().split(b"\n")[:-1]]
    [marker] = [line for line in lines if line.startswith(b"[agent]")]
    assert marker == b"[agent] dropped %d bytes: No space left on device" % log.dropped_bytes
    at = lines.index(marker)
    kept = lines[at + 1 :]
    assert kept[-2:] == [b"too soon for another attempt", b"after"]
    assert kept[:-2] == [line[:-1] for line in sent[-len(kept) + 2 :]]
    assert sum(len(line) + 26 for line in kept) > TAIL - 200
    # What came before the trouble is in order too, up to a line that the end of the disk cut in two.
    assert lines[: at - 1] == [b"before", *(line[:-1] for line in sent[: at - 2])]


def test_a_short_trouble_loses_nothing(small_disk: Path) -> None:
    clock = Clock()
    log = LogFile(small_disk / "api.log", 1 << 20, 1, clock)
    filler = fill(small_disk)
    sent = b"".join(b"line %04d\n" % number for number in range(1000))
    for at in range(0, len(sent), 7):
        log.write(sent[at : at + 7])
    filler.unlink()
    log.close()
    assert unstamped((small_disk / "api.log").read_bytes()) == sent
    assert log.dropped_bytes == 0


def test_what_cannot_be_written_at_the_end_is_counted(small_disk: Path) -> None:
    fill(small_disk)
    log = LogFile(small_disk / "api.log", 1 << 20, 1, lambda: NOW)
    log.write(b"lost\n")
    log.close()
    assert log.dropped_bytes == len(STAMP + b"lost\n")


def test_a_disk_that_fails_again_and_again_repeats_no_line(small_disk: Path) -> None:
    clock = Clock()
    log = LogFile(small_disk / "api.log", 1 << 20, 1, clock)
    filler = fill(small_disk)
    number = 0
    for _ in range(12):
        for _ in range(300):
            log.write(b"line %06d\n" % number)
            number += 1
        clock.now += 1.0
        with filler.open("r+b") as file:  # a little room each time, less than is waiting
            file.truncate(max(0, filler.stat().st_size - 8192))
        log.flush()
    filler.unlink()
    log.close()
    numbers = [int(n) for n in re.findall(rb"Z line (\d{6})\n", (small_disk / "api.log").read_bytes())]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == number - 1


PIECES = st.lists(st.binary(max_size=40).map(lambda piece: piece.replace(b"\0", b"\n")), max_size=30)


@settings(max_examples=60, deadline=None)
@given(PIECES, st.sets(st.integers(0, 30)), st.booleans())
def test_another_program_goes_on_in_the_middle_of_a_line_as_if_it_were_the_same(
    pieces: list[bytes], handed_over: set[int], rotating: bool
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        files = []
        for name, moments in (("one", set()), ("several", handed_over)):
            log = LogFile(Path(directory, name), 4096 if rotating else 1 << 20, 3, lambda: NOW)
            for number, piece in enumerate(pieces):
                if number in moments:
                    log = another_program(log)
                log.write(piece * (20 if rotating else 1))
            log.close()
            files.append(everything(log.path) if log.path.exists() else b"")
        assert files[0] == files[1]


def test_two_programs_later_without_a_word_in_between_the_line_still_goes_on(path: Path) -> None:
    log = LogFile(path, 1 << 20, 1, lambda: NOW)
    log.write(b"once upon")
    log = another_program(another_program(log))
    log.write(b" a time\n")
    log.close()
    assert path.read_bytes() == STAMP + b"once upon a time\n"


def test_another_program_begins_a_new_log_where_somebody_took_the_old_one_away(path: Path) -> None:
    log = LogFile(path, 1 << 20, 1, lambda: NOW)
    log.write(b"half a line")
    log = another_program(log)
    path.write_bytes(b"somebody else's half")
    log.write(b" and the rest\n")
    log.close()
    assert path.read_bytes().count(b"\n") == 1
    path.unlink()
    log = another_program(log)
    log.write(b"anew\n")
    log.close()
    assert path.read_bytes() == STAMP + b"anew\n"


@pytest.mark.parametrize("rest", [b" and its end\n", b" and", b" and its end\nnext", b"\n"])
def test_a_line_that_a_full_disk_has_cut_is_finished_by_another_program(small_disk: Path, rest: bytes) -> None:
    log = LogFile(small_disk / "api.log", 1 << 20, 1, lambda: NOW)
    log.write(b"the beginning")
    filler = fill(small_disk)
    room = (small_disk / "api.log").stat().st_size
    log.write(b"." * 5000)  # as much of it as the last page of the file has room for
    assert (small_disk / "api.log").stat().st_size > room
    log.write(rest)
    log = another_program(another_program(log))
    filler.unlink()
    log.write(b"!\n")
    log.close()
    assert unstamped((small_disk / "api.log").read_bytes()) == b"the beginning" + b"." * 5000 + rest + b"!\n"
    assert log.dropped_bytes == 0


def test_what_a_full_disk_has_cost_is_told_by_another_program_on_a_line_of_its_own(small_disk: Path) -> None:
    log = LogFile(small_disk / "api.log", 1 << 20, 1, lambda: NOW)
    log.write(b"the beginning")
    filler = fill(small_disk)
    for number in range(4000):
        log.write(b"line %06d of a program that does not care\n" % number)
    assert log.dropped_bytes > 0
    log = another_program(log)
    filler.unlink()
    log.write(b"after\n")
    log.close()
    lines = (small_disk / "api.log").read_bytes().splitlines()
    at = lines.index(STAMP + b"[agent] dropped %d bytes: No space left on device" % log.dropped_bytes)
    del lines[at - 1]  # the end of the disk has cut it anywhere, its stamp included
    assert all(line.startswith(STAMP) for line in lines)
    assert lines[-1] == STAMP + b"after"


# -- LogPump ----------------------------------------------------------------------------------------------------------


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
