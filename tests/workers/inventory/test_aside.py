"""What is kept aside is an ordinary capture, whole, and never longer than it may be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.errors import StorageFailure
from agent.workers.capture.naming import parse_name
from agent.workers.inventory.aside import MOST, NAME, keep
from tests.workers.inventory.lab import fields, packets


def test_it_is_read_by_whoever_reads_captures(tmp_path: Path) -> None:
    for number in range(3):
        assert keep(tmp_path, 1, 1_700_000_000_000_000_001 + number, 100, bytes([number]) * 60)
    rows = fields(tmp_path / NAME, "frame", "frame.time_epoch", "frame.len", "frame.cap_len")
    assert rows[0] == ("1700000000.000000001", "100", "60")
    assert len(rows) == 3
    assert (tmp_path / NAME).stat().st_mode & 0o777 & ~0o640 == 0


def test_its_name_is_none_of_a_segment() -> None:
    assert parse_name(NAME) is None


def test_it_never_grows_beyond_its_bound_and_keeps_what_came_first(tmp_path: Path) -> None:
    kept = [keep(tmp_path, 1, number, 60_000, bytes(60_000)) for number in range(30)]
    assert kept == [True] * 17 + [False] * 13
    assert (tmp_path / NAME).stat().st_size <= MOST
    assert [packet.time for packet in packets(tmp_path / NAME)] == list(range(17))


def test_after_a_crash_in_the_middle_of_a_packet_it_goes_on_behind_the_last_whole_one(tmp_path: Path) -> None:
    for number in range(3):
        keep(tmp_path, 1, number, 60, bytes(60))
    os.truncate(tmp_path / NAME, (tmp_path / NAME).stat().st_size - 10)
    keep(tmp_path, 1, 9, 60, bytes(60))
    assert [packet.time for packet in packets(tmp_path / NAME)] == [0, 1, 9]


@pytest.mark.parametrize("before", [b"", b"something else", b"\0" * 100])
def test_whatever_was_there_before_it_is_begun_anew(tmp_path: Path, before: bytes) -> None:
    (tmp_path / NAME).write_bytes(before)
    keep(tmp_path, 101, 5, 60, bytes(60))
    keep(tmp_path, 1, 6, 60, bytes(60))
    assert [packet.time for packet in packets(tmp_path / NAME)] == [6]


def test_a_link_or_a_pipe_in_its_place_is_not_followed_nor_waited_for(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"precious")
    (tmp_path / NAME).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageFailure):
        keep(tmp_path, 1, 5, 60, bytes(60))
    (tmp_path / NAME).unlink()
    os.mkfifo(tmp_path / NAME)
    with pytest.raises(StorageFailure):
        keep(tmp_path, 1, 5, 60, bytes(60))
    assert (tmp_path / "elsewhere").read_bytes() == b"precious"
