"""The directory of segments: adopted, kept within its budget, and only what is ours."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from agent.errors import StorageFailure
from agent.workers.capture.naming import CLOSED, OPEN, segment_name
from agent.workers.capture.store import Store

SECOND = 10**9
HEADER = struct.pack("=IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1)


class Reports:
    def __init__(self) -> None:
        self.kinds: list[str] = []

    def __call__(self, kind: str, message: str) -> None:
        assert "\n" not in message
        self.kinds.append(kind)


@pytest.fixture
def reports() -> Reports:
    return Reports()


def segment(directory: Path, interface: str, second: int, size: int, suffix: str = CLOSED) -> Path:
    path = directory / interface / segment_name(second * SECOND, suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    return path


def names(directory: Path) -> list[str]:
    return sorted(f"{path.parent.name}/{path.name}" for path in directory.glob("*/*"))


def test_segments_of_an_earlier_worker_count_and_go_first(tmp_path: Path, reports: Reports) -> None:
    oldest = segment(tmp_path, "gone0", 1, 400)
    older = segment(tmp_path, "eth0", 2, 400)
    newest = segment(tmp_path, "eth0", 3, 400)
    store = Store(tmp_path, 1000, reports)
    store.adopt()
    assert store.bytes == 1200
    assert store.make_room(500) == 600
    assert (oldest.exists(), older.exists(), newest.exists()) == (False, False, True)
    assert reports.kinds == []


def test_the_open_segment_counts_and_is_never_removed(tmp_path: Path, reports: Reports) -> None:
    closed = segment(tmp_path, "eth0", 5, 100)
    store = Store(tmp_path, 1000, reports)
    store.adopt()
    part = store.part("eth0", 1 * SECOND)  # older than everything
    part.write_bytes(bytes(950))
    store.grow(part, 950)
    assert store.make_room(500) == 50
    assert part.exists()
    assert not closed.exists()


def test_files_that_are_not_ours_are_neither_counted_nor_touched(tmp_path: Path, reports: Reports) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    data = tmp_path / "data"
    (data / "eth0").mkdir(parents=True)
    foreign = [
        data / "eth0" / "20261120T140000.123456Z.pcap.gz",
        data / "eth0" / "20261120T140000.123456Z.pcap~",
        data / "eth0" / "20261399T140000.123456Z.pcap",
        data / "eth0" / "notes.txt",
        data / "20261120T140000.123456Z.pcap",
    ]
    for path in foreign:
        path.write_bytes(bytes(500))
    target = segment(elsewhere, "x", 1, 500)
    (data / "eth0" / target.name).symlink_to(target)
    (data / "eth1").symlink_to(elsewhere / "x")
    (data / "eth0" / segment_name(SECOND, OPEN)).mkdir()
    store = Store(data, 1000, reports)
    store.adopt()
    assert store.bytes == 0
    store.make_room(10**12)
    assert all(path.exists() for path in [*foreign, target])
    assert (data / "eth0" / target.name).is_symlink()


def test_a_segment_left_open_is_completed_and_the_empty_one_removed(tmp_path: Path, reports: Reports) -> None:
    record = struct.pack("=IIII", 7, 123_456_789, 3, 3) + b"abc"
    full = segment(tmp_path, "eth0", 5, 0, OPEN)
    full.write_bytes(HEADER + record + record[:-1])
    segment(tmp_path, "eth0", 6, 0, OPEN).write_bytes(HEADER)
    segment(tmp_path, "eth0", 9, 0, OPEN)
    foreign = segment(tmp_path, "eth0", 8, 50, OPEN)
    store = Store(tmp_path, 1000, reports)
    store.adopt()
    kept = "eth0/19700101T000007.123456Z.pcap"
    account = Path(kept).with_suffix(".meta")
    assert names(tmp_path) == sorted([kept, str(account), f"eth0/{foreign.name}"])
    assert (tmp_path / kept).read_bytes() == HEADER + record
    assert store.bytes == len(HEADER + record) + (tmp_path / account).stat().st_size
    assert sorted(reports.kinds) == ["segment_recovered"] * 3 + ["segment_unreadable"]


def test_segments_that_begin_in_the_same_microsecond_both_stay(tmp_path: Path, reports: Reports) -> None:
    store = Store(tmp_path, 1000, reports)
    store.adopt()
    for content in (b"one", b"two"):
        part = store.part("eth0", SECOND)
        part.write_bytes(content)
        store.grow(part, 3)
        store.keep(part, SECOND, 3)
    assert names(tmp_path) == ["eth0/19700101T000001.000000Z.pcap", "eth0/19700101T000001.000001Z.pcap"]
    assert store.bytes == 6


def test_an_empty_segment_is_discarded(tmp_path: Path, reports: Reports) -> None:
    store = Store(tmp_path, 1000, reports)
    store.adopt()
    part = store.part("eth0", SECOND)
    part.touch()
    store.grow(part, 24)
    store.discard(part)
    assert (names(tmp_path), store.bytes) == ([], 0)


def test_a_segment_that_somebody_removed_is_no_obstacle(tmp_path: Path, reports: Reports) -> None:
    segment(tmp_path, "eth0", 1, 600).unlink()
    path = segment(tmp_path, "eth0", 2, 600)
    store = Store(tmp_path, 1000, reports)
    store.adopt()
    path.unlink()
    assert store.make_room(1000) == 1000
    assert reports.kinds == []


def test_a_segment_that_cannot_be_removed_goes_on_counting_and_is_reported_once(
    small_disk: Path, reports: Reports
) -> None:
    data = small_disk / "data"
    path = segment(data, "eth0", 1, 600)
    store = Store(data, 1000, reports)
    store.adopt()
    path.unlink()
    path.mkdir()  # what unlink(2) refuses, to root as well
    assert store.make_room(1000) == 400
    assert store.make_room(1000) == 400
    assert reports.kinds == ["segment_stuck"]


def test_a_disk_with_less_than_is_wanted_costs_old_segments_too(small_disk: Path, reports: Reports) -> None:
    data = small_disk / "data"
    for second in range(4):
        segment(data, "eth0", second, 500_000)
    store = Store(data, 2**40, reports)
    store.adopt()
    assert store.make_room(700_000) >= 700_000
    assert len(names(data)) == 2
    assert store.make_room(1_300_000, unflushed=100_000) >= 1_300_000
    assert len(names(data)) == 1
    assert reports.kinds == ["storage_low"]  # said once, not for each segment


def test_a_directory_that_cannot_be_made_is_a_failure_in_one_line(tmp_path: Path, reports: Reports) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFailure, match="cannot be read: Not a directory"):
        Store(tmp_path / "file" / "data", 1000, reports).adopt()
