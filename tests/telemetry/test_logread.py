from __future__ import annotations

import itertools
import os
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.telemetry.logread import BUDGET, CURSOR, LINE_LIMIT, end, read_after, tail
from agent.telemetry.logs import LogFile

STAMP = "2025-11-20T12:00:00.500Z"
NOW = 1_763_640_000.5


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "api.log"


def texts(lines: list) -> list[str]:  # type: ignore[type-arg]  # of LogLine; the tests only look at .line
    return [line.line for line in lines]


def test_the_tail_is_the_last_finished_lines_with_their_times(path: Path) -> None:
    log = LogFile(path, 1 << 20, 2, lambda: NOW)
    log.write(b"one\ntwo\nthree\nunfinished")
    assert [(line.time, line.line) for line in tail(path, 2)] == [(STAMP, "two"), (STAMP, "three")]
    assert texts(tail(path, 10)) == ["one", "two", "three"]
    assert tail(path, 0) == []


def test_a_log_that_does_not_exist_is_empty(path: Path) -> None:
    assert tail(path, 10) == []
    assert end(path) == ""
    assert read_after(path, "", 10) == ([], "", False)


def test_lines_without_a_stamp_and_bytes_that_are_not_text_come_through(path: Path) -> None:
    path.write_bytes(b"plain\n\xff\x1b[31mred\n\n")
    assert [(line.time, line.line) for line in tail(path, 3)] == [("", "plain"), ("", "�\x1b[31mred"), ("", "")]


@settings(deadline=None, max_examples=60)
@given(
    chunks=st.lists(st.binary(max_size=600).map(lambda data: data.replace(b"\n", b"\n\n")), max_size=30),
    limit=st.integers(1, 7),
    wanted=st.integers(0, 60),
)
def test_reading_on_from_each_cursor_gives_every_line_once_whatever_rotates(
    chunks: list[bytes], limit: int, wanted: int
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "api.log"
        log = LogFile(path, 4096, 1000, lambda: NOW)
        cursor, seen = "", []
        for chunk in chunks:
            log.write(chunk)
            lines, cursor, gap = read_after(path, cursor, limit)
            assert len(lines) <= limit
            assert not gap
            seen += lines
        log.close()
        while lines := read_after(path, cursor, limit)[0]:
            seen += lines
            cursor = lines[-1].cursor
        assert seen == tail(path, 1_000_000)
        assert seen[-wanted:] == tail(path, wanted) or wanted == 0
        assert end(path) == cursor or not seen
        # What the child wrote is all there; a line cut by a rotation only gains the cut.
        joined = "".join(line.line for line in seen)
        assert joined == b"".join(chunks).replace(b"\n", b"").decode("utf-8", "replace") or "�" in joined


def test_a_cursor_survives_the_renaming_of_its_file(path: Path) -> None:
    log = LogFile(path, 4096, 3, lambda: NOW)
    log.write(b"first\n")
    cursor = end(path)
    for number in range(200):
        log.write(b"line %03d of the rest of the log\n" % number)
    assert len(list(path.parent.iterdir())) == 3
    lines, _, gap = read_after(path, cursor, 1000)
    assert not gap
    assert len(lines) == 200


def test_a_cursor_into_a_deleted_file_is_a_gap_and_reading_goes_on_with_the_oldest(path: Path) -> None:
    clock = itertools.count(NOW)
    log = LogFile(path, 4096, 1, lambda: next(clock))
    log.write(b"first\n")
    cursor = end(path)
    for number in range(500):
        log.write(b"line %03d of the rest of the log\n" % number)
    lines, cursor, gap = read_after(path, cursor, 1000)
    assert gap
    assert texts(lines) == texts(tail(path, 1000))
    assert read_after(path, cursor, 1000) == ([], cursor, False)


def test_a_reused_inode_does_not_pass_for_the_file_that_had_it(path: Path) -> None:
    clock = itertools.count(NOW)
    LogFile(path, 4096, 1, lambda: next(clock)).write(b"old\nold\n")
    cursor = end(path)
    # The same inode with other content is what a file system makes of a deletion and a creation.
    path.write_bytes(b"")
    LogFile(path, 4096, 1, lambda: next(clock)).write(b"new\nnew\nnew\n")
    lines, _, gap = read_after(path, cursor, 10)
    assert gap
    assert texts(lines) == ["new", "new", "new"]


def test_a_log_that_was_deleted_is_one_gap_and_then_a_beginning(path: Path) -> None:
    path.write_bytes(b"old\n")
    cursor = end(path)
    path.unlink()
    assert read_after(path, cursor, 10) == ([], "", True)
    path.write_bytes(b"new\n")
    lines, _, gap = read_after(path, "", 10)
    assert (texts(lines), gap) == (["new"], False)


def test_an_endless_line_comes_in_bounded_pieces(path: Path) -> None:
    path.write_bytes(b"a" * (3 * LINE_LIMIT) + b"bc\nend\n")
    lines, _, _ = read_after(path, "", 100)
    assert [len(line.line) for line in lines] == [LINE_LIMIT, LINE_LIMIT, LINE_LIMIT, 2, 3]
    assert tail(path, 100) == lines


def test_a_line_being_written_waits_until_it_is_finished(path: Path) -> None:
    log = LogFile(path, 4096, 1, lambda: NOW)
    log.write(b"one\ntw")
    lines, cursor, _ = read_after(path, "", 10)
    assert texts(lines) == ["one"]
    assert read_after(path, cursor, 10) == ([], cursor, False)
    log.write(b"o\n")
    assert texts(read_after(path, cursor, 10)[0]) == ["two"]


def test_one_call_reads_a_bounded_amount_of_a_huge_file(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(64 << 30)  # sparse: reading all of it would take minutes
        file.seek(0, os.SEEK_END)
        file.write(b"\nlast\n")
    assert texts(tail(path, 1)) == ["last"]
    lines, cursor, _ = read_after(path, "", 1_000_000)
    assert int(cursor.split(":")[1]) <= BUDGET
    assert BUDGET // LINE_LIMIT // 2 < len(lines) <= BUDGET // LINE_LIMIT
    assert len(tail(path, 1_000_000)) <= BUDGET // LINE_LIMIT + 1


@settings(deadline=None)
@given(st.text(max_size=40))
def test_text_that_is_no_cursor_is_refused(text: str) -> None:
    if text and not re.fullmatch(CURSOR, text):
        with pytest.raises(ValueError, match="not a cursor"):
            read_after(Path("/nonexistent/log"), text, 1)


def test_fifos_and_links_in_the_place_of_a_log_are_not_followed(path: Path) -> None:
    os.mkfifo(path)
    path.with_name("api.log.1").symlink_to("/etc/passwd")
    assert tail(path, 10) == []
