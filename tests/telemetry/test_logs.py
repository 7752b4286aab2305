"""The files of a log: stamped, rotated, bounded, and whole whatever a disk does."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.telemetry.logs import TAIL, LogFile
from tests.telemetry.logs import NOW, STAMP, Clock, another_program, everything, fill, unstamped


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
