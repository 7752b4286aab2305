"""What readers find in a store: segments of all interfaces, oldest first, and nothing that is somebody else's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.errors import StorageFailure
from agent.workers.capture import catalogue
from agent.workers.capture.naming import CLOSED, OPEN, segment_name

SECOND = 10**9


def put(directory: Path, interface: str, second: int, suffix: str = CLOSED, *beside: str) -> Path:
    path = directory / interface / segment_name(second * SECOND, suffix)
    path.parent.mkdir(exist_ok=True)
    for each in (path, *(path.with_suffix(other) for other in beside)):
        each.touch()
    return path


def test_segments_are_found_oldest_first_across_interfaces(tmp_path: Path) -> None:
    second = put(tmp_path, "eth1", 2, CLOSED, ".idx", ".meta")
    third = put(tmp_path, "eth0", 3, OPEN, ".tail")
    first = put(tmp_path, "eth0", 1, CLOSED, ".meta")
    fourth = put(tmp_path, "eth1", 4, OPEN)
    found = catalogue.segments(tmp_path)
    assert [segment.path for segment in found] == [first, second, third, fourth]
    assert [segment.begin // SECOND for segment in found] == [1, 2, 3, 4]
    assert [segment.interface for segment in found] == ["eth0", "eth1", "eth0", "eth1"]
    assert [segment.closed for segment in found] == [True, True, False, False]
    assert [segment.indexed for segment in found] == [False, True, True, False]
    assert [segment.index.suffix for segment in found] == [".idx", ".idx", ".tail", ".tail"]
    assert [segment.account.exists() for segment in found] == [True, True, False, False]
    assert catalogue.interfaces(tmp_path) == ["eth0", "eth1"]


def test_an_index_beside_a_segment_of_the_other_kind_is_not_its_own(tmp_path: Path) -> None:
    put(tmp_path, "eth0", 1, CLOSED, ".tail")
    put(tmp_path, "eth0", 2, OPEN, ".idx")
    assert [segment.indexed for segment in catalogue.segments(tmp_path)] == [False, False]


def test_segments_of_one_instant_are_in_the_order_of_their_interfaces(tmp_path: Path) -> None:
    paths = [put(tmp_path, name, 1) for name in ("a", "b", "c")]
    assert [segment.path for segment in catalogue.segments(tmp_path)] == paths


def test_what_is_somebody_elses_is_left_out(tmp_path: Path) -> None:
    mine = put(tmp_path, "eth0", 1)
    (tmp_path / "store.json").write_text("{}")
    (tmp_path / "pin-x.json").write_text("{}")
    (tmp_path / "a name that is too long for an interface").mkdir()
    put(tmp_path, "a name of sixteen", 2)
    for name in ("notes.pcap", "20261120T140000.123456Z.pcap.gz", "20261320T140000.123456Z.pcap", ".hidden", "x.idx"):
        (mine.parent / name).touch()
    (mine.parent / segment_name(2 * SECOND, CLOSED)).mkdir()
    (mine.parent / segment_name(3 * SECOND, CLOSED)).symlink_to(mine)
    os.mkfifo(mine.parent / segment_name(4 * SECOND, CLOSED))
    (tmp_path / "eth9").symlink_to(mine.parent)
    assert [segment.path for segment in catalogue.segments(tmp_path)] == [mine]
    assert catalogue.interfaces(tmp_path) == ["eth0"]


def test_a_store_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert catalogue.segments(tmp_path / "none") == []
    assert catalogue.interfaces(tmp_path / "none") == []


def test_a_store_that_cannot_be_read_is_a_failure_that_says_where(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageFailure, match=f"segments in {tmp_path}/file cannot be read: Not a directory"):
        catalogue.segments(tmp_path / "file")
