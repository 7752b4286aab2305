"""The directory of segments: kept within its limits, and only what is ours."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from agent.errors import ConfigurationError, StorageFailure
from agent.workers.capture import account, finish, pins, removal, shelf, space, store
from agent.workers.capture.account import Account
from agent.workers.capture.catalogue import ACCOUNT, INDEX, TAIL
from agent.workers.capture.naming import CLOSED, OPEN, segment_name
from agent.workers.capture.retention import Limits
from agent.workers.capture.stock import stock
from agent.workers.capture.store import Store
from tests.workers.capture.lab import run

SECOND = 10**9
NOW = 1_000_000 * SECOND
HEADER = struct.pack("=IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1)
AN_INDEX = b"index"


class Reports:
    def __init__(self) -> None:
        self.kinds: list[str] = []
        self.messages: list[str] = []

    def __call__(self, kind: str, message: str) -> None:
        assert "\n" not in message
        self.kinds.append(kind)
        self.messages.append(message)


@pytest.fixture
def reports() -> Reports:
    return Reports()


def segment(directory: Path, interface: str, second: int, size: int, *, indexed: bool = True) -> Path:
    """A closed segment of so many bytes in all, that ended when it began."""
    path = directory / interface / segment_name(second * SECOND, CLOSED)
    path.parent.mkdir(parents=True, exist_ok=True)
    index = AN_INDEX if indexed else b""
    path.write_bytes(HEADER.ljust(size - len(index), b"."))
    os.utime(path, (second, second))
    if indexed:
        path.with_suffix(INDEX).write_bytes(index)
    return path


def names(directory: Path) -> list[str]:
    return sorted(f"{path.parent.name}/{path.name}" for path in directory.glob("*/*"))


def adopted(directory: Path, reports: Reports, budget: int = 1000, **limits: Any) -> Store:
    made = Store(directory, Limits(budget, **limits), reports, lambda: NOW)
    made.adopt()
    return made


class Clock:
    """Stands in for the monotonic clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("time.monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_segments_of_an_earlier_worker_count_and_go_first(tmp_path: Path, reports: Reports) -> None:
    oldest = segment(tmp_path, "gone0", 1, 400)
    older = segment(tmp_path, "eth0", 2, 400)
    newest = segment(tmp_path, "eth0", 3, 400)
    made = adopted(tmp_path, reports)
    assert made.bytes == 1200
    assert made.make_room(500) == 600
    assert (oldest.exists(), older.exists(), newest.exists()) == (False, False, True)
    assert [path for path in names(tmp_path) if newest.stem not in path] == []
    assert reports.kinds == []


def test_all_files_of_a_segment_count_and_go_together(tmp_path: Path, reports: Reports) -> None:
    path = segment(tmp_path, "eth0", 1, 400)
    path.with_suffix(ACCOUNT).write_bytes(bytes(30))
    made = adopted(tmp_path, reports)
    assert made.bytes == 430
    assert made.make_room(1000) == 1000
    assert names(tmp_path) == []


def test_a_segment_without_an_index_never_goes_and_goes_once_it_has_one(
    tmp_path: Path, reports: Reports, clock: Clock
) -> None:
    path = segment(tmp_path, "eth0", 1, 400, indexed=False)
    made = adopted(tmp_path, reports)
    assert made.make_room(1000) == 575
    assert made.unindexed == 1
    assert str(made.obstacle()).endswith("the budget of 1000 bytes is used up; 1 segment waits for its index")
    path.with_suffix(INDEX).write_bytes(AN_INDEX)
    assert made.make_room(1000) == 575  # it is not looked at for each packet
    clock.now += store.RESPITE
    assert made.make_room(1000) == 1000
    assert names(tmp_path) == []


def test_an_index_that_appears_counts_and_the_one_of_the_open_segment_is_removed(
    tmp_path: Path, reports: Reports
) -> None:
    made = adopted(tmp_path, reports)
    part = made.part("eth0", 1 * SECOND)
    part.write_bytes(HEADER.ljust(100))
    made.grow(part, 100)
    part.with_suffix(TAIL).write_bytes(bytes(7))
    made.tend()
    assert made.bytes == 107
    final = made.keep(part, 2 * SECOND, 100)
    assert (made.bytes, made.unindexed) == (107, 1)
    final.with_suffix(INDEX).write_bytes(AN_INDEX)
    made.tend()
    assert (made.bytes, made.unindexed) == (105, 0)
    assert names(tmp_path) == [f"eth0/{final.stem}{INDEX}", f"eth0/{final.name}"]


def test_indexes_are_looked_for_a_few_at_a_time_and_none_is_forgotten(tmp_path: Path, reports: Reports) -> None:
    paths = [segment(tmp_path, "eth0", second, 30, indexed=False) for second in range(3 * shelf.LOOKS)]
    made = adopted(tmp_path, reports, 10**6)
    made.tend()
    for path in paths:
        path.with_suffix(INDEX).write_bytes(AN_INDEX)
    for left in (2, 1, 0):
        made.tend()
        assert made.unindexed == left * shelf.LOOKS
    assert made.bytes == len(paths) * (30 + len(AN_INDEX))


def test_what_is_too_old_goes_also_where_there_is_room(tmp_path: Path, reports: Reports) -> None:
    old = segment(tmp_path, "eth0", 999_000, 100)
    waiting = segment(tmp_path, "eth0", 999_001, 100, indexed=False)
    long_lasting = segment(tmp_path, "eth0", 999_002, 100)
    os.utime(long_lasting, (999_900, 999_900))
    made = adopted(tmp_path, reports, max_age=500 * SECOND)
    made.tend()
    assert (old.exists(), waiting.exists(), long_lasting.exists()) == (False, True, True)
    assert (made.bytes, made.state, reports.kinds) == (200, "ok", [])


def test_what_is_pinned_goes_last_and_the_pin_is_named(tmp_path: Path, reports: Reports) -> None:
    pinned = segment(tmp_path, "eth0", 100, 300)
    loose = segment(tmp_path, "eth0", 200, 300)
    pin = pins.add(tmp_path, 50 * SECOND, 100 * SECOND, created=NOW, reason="the break-in")
    made = adopted(tmp_path, reports, max_age=SECOND)
    made.tend()
    assert made.pinned == 1
    assert (pinned.exists(), loose.exists()) == (True, False)
    assert made.make_room(800) == 1000
    assert not pinned.exists()
    assert reports.kinds == ["pin_broken"]
    assert reports.messages == [f"pin {pin.id} (the break-in): its oldest packets go, for nothing else is left to"]


def test_a_pin_is_found_while_the_store_is_in_use_and_so_is_its_end(tmp_path: Path, reports: Reports) -> None:
    older, newer = (segment(tmp_path, "eth0", second, 400) for second in (100, 200))
    made = adopted(tmp_path, reports)
    pin = pins.add(tmp_path, 0, 150 * SECOND, created=NOW)
    made.tend()
    assert made.make_room(500) == 600
    assert (older.exists(), newer.exists()) == (True, False)
    pins.remove(tmp_path, pin.id)
    made.tend()
    assert made.make_room(1000) == 1000
    assert reports.kinds == []


def test_the_account_is_there_before_the_segment_has_its_name_and_counts(
    tmp_path: Path, reports: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = adopted(tmp_path, reports)
    part = made.part("eth0", SECOND)
    part.write_bytes(HEADER)
    record = Account(interface="eth0", opened=1, closed=2, written=0, bytes=24, reason="size")
    seen: list[list[str]] = []
    rename = finish.rename

    def renamed(old: Path, new: Path) -> None:
        seen.append(names(tmp_path))
        rename(old, new)

    monkeypatch.setattr(finish, "rename", renamed)
    final = made.keep(part, SECOND, 24, record)
    assert seen[-1] == [f"eth0/{final.stem}{ACCOUNT}", f"eth0/{part.name}"]
    assert account.read(final.with_suffix(ACCOUNT)) == record
    assert made.bytes == 24 + final.with_suffix(ACCOUNT).stat().st_size


def test_an_account_that_the_disk_does_not_take_costs_an_old_segment(
    tmp_path: Path, reports: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment(tmp_path, "eth0", 1, 100)
    made = adopted(tmp_path, reports)
    part = made.part("eth0", 3 * SECOND)
    part.write_bytes(HEADER)

    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(finish, "_store", full)
    final = made.keep(part, 3 * SECOND, 24, Account(interface="e", opened=1, closed=2, written=0, bytes=24, reason="x"))
    assert names(tmp_path) == [f"eth0/{final.stem}{ACCOUNT}", f"eth0/{final.name}"]
    assert reports.kinds == []


def test_a_segment_that_would_not_be_named_counts_and_is_named_later(tmp_path: Path, reports: Reports) -> None:
    made = adopted(tmp_path, reports)
    part = made.part("eth0", SECOND)
    part.write_bytes(HEADER)
    made.grow(part, 24)
    run("chattr", "+i", str(part.parent))
    try:
        with pytest.raises(OSError, match="not permitted"):
            made.keep(part, SECOND, 24)
        assert made.bytes == 24
        made.tend()
        assert part.exists()
    finally:
        run("chattr", "-i", str(part.parent))
    made.tend()
    assert names(tmp_path) == [f"eth0/{segment_name(SECOND, CLOSED)}"]
    assert (made.bytes, made.unindexed) == (24, 1)


def test_the_open_segment_counts_and_is_never_removed(tmp_path: Path, reports: Reports) -> None:
    closed = segment(tmp_path, "eth0", 5, 100)
    made = adopted(tmp_path, reports)
    part = made.part("eth0", 1 * SECOND)  # older than everything
    part.write_bytes(bytes(800))
    made.grow(part, 800)
    assert made.make_room(500) == 150  # and its index will take the rest
    assert part.exists()
    assert not closed.exists()


def test_segments_that_begin_in_the_same_microsecond_both_stay(tmp_path: Path, reports: Reports) -> None:
    made = adopted(tmp_path, reports)
    for content in (b"one", b"two"):
        part = made.part("eth0", SECOND)
        part.write_bytes(content)
        made.grow(part, 3)
        made.keep(part, SECOND, 3)
    assert names(tmp_path) == ["eth0/19700101T000001.000000Z.pcap", "eth0/19700101T000001.000001Z.pcap"]
    assert made.bytes == 6


def test_an_empty_segment_is_discarded(tmp_path: Path, reports: Reports) -> None:
    made = adopted(tmp_path, reports)
    part = made.part("eth0", SECOND)
    part.touch()
    made.grow(part, 24)
    part.with_suffix(TAIL).touch()
    made.tend()
    made.discard(part)
    assert (names(tmp_path), made.bytes) == ([], 0)


def test_a_segment_that_somebody_removed_is_no_obstacle(tmp_path: Path, reports: Reports) -> None:
    path = segment(tmp_path, "eth0", 2, 600)
    made = adopted(tmp_path, reports)
    path.unlink()
    assert made.make_room(1000) == 1000
    assert names(tmp_path) == []
    assert reports.kinds == []


def stick(path: Path) -> None:
    path.unlink()
    path.mkdir()  # what unlink(2) refuses, to root as well


def test_a_segment_that_cannot_be_removed_goes_on_counting_and_others_go_instead(
    tmp_path: Path, reports: Reports, clock: Clock
) -> None:
    path, other = (segment(tmp_path, "eth0", second, 400) for second in (1, 2))
    made = adopted(tmp_path, reports)
    stick(path)
    assert made.make_room(500) == 600
    assert not other.exists()
    assert made.make_room(1000) == 600
    assert str(made.obstacle()).endswith("the budget of 1000 bytes is used up; 1 segment cannot be removed")
    path.rmdir()
    clock.now += removal.STUCK
    made.tend()
    assert made.make_room(1000) == 1000
    assert reports.kinds == ["segment_stuck"]


def test_a_disk_that_lets_nothing_be_removed_is_not_asked_for_each_segment(
    tmp_path: Path, reports: Reports, clock: Clock
) -> None:
    paths = [segment(tmp_path, "eth0", second, 100) for second in range(10)]
    made = adopted(tmp_path, reports)
    for path in paths:
        stick(path)
    assert made.make_room(1000) == 0
    assert len(reports.kinds) == 3
    assert made.make_room(1000) == 0
    assert set(reports.kinds) == {"segment_stuck"}
    assert len(reports.kinds) == 3
    clock.now += removal.RESIST
    assert made.make_room(1000) == 0
    assert len(reports.kinds) == 6


def test_a_disk_with_less_than_is_wanted_costs_old_segments_too(small_disk: Path, reports: Reports) -> None:
    data = small_disk / "data"
    for second in range(4):
        segment(data, "eth0", second, 490_000)
    made = adopted(data, reports, 2**40)
    assert made.state == "ok"
    assert made.make_room(700_000) >= 700_000
    assert len(list(data.glob("*/*.pcap"))) == 2
    assert made.make_room(1_300_000, unflushed=100_000) >= 1_300_000
    assert len(list(data.glob("*/*.pcap"))) == 1
    assert made.state == "pruning"
    assert reports.kinds == ["storage_low"]  # said once, not for each segment


def test_what_is_to_stay_free_stays_free_whoever_fills_the_disk(small_disk: Path, reports: Reports) -> None:
    data = small_disk / "data"
    for second in range(3):
        segment(data, "eth0", second, 290_000)
    made = adopted(data, reports, 1_500_000, free_share=0.25)
    assert made.make_room(100_000) >= 100_000
    assert made.state == "ok"
    (data / "somebody_elses").write_bytes(bytes(900_000))
    made.tend()
    assert len(list(data.glob("*/*.pcap"))) == 2
    assert free(data) >= 2**21 // 4
    assert (made.state, reports.kinds) == ("pruning", ["storage_low"])
    (data / "somebody_elses").write_bytes(bytes(1_400_000))
    made.tend()
    assert list(data.glob("*/*.pcap")) == []
    (data / "somebody_elses").write_bytes(bytes(1_650_000))
    assert made.make_room(1) == 0
    assert "are to stay so" in str(made.obstacle())
    (data / "somebody_elses").unlink()
    made = adopted(data, reports, 100_000, free_share=0.25)
    made.tend()
    assert (made.state, made.make_room(1)) == ("ok", 100_000)


def test_a_disk_with_room_again_is_told_once(small_disk: Path, reports: Reports) -> None:
    data = small_disk / "data"
    segment(data, "eth0", 1, 50_000)
    made = adopted(data, reports, 200_000, free_bytes=2**19)
    filler = data / "somebody_elses"
    filler.write_bytes(bytes(2**21 - 2**19 - 20_000))
    made.tend()
    filler.unlink()
    for _ in range(3):
        made.tend()
    assert (made.state, reports.kinds) == ("ok", ["storage_low", "storage_enough"])


def free(path: Path) -> int:
    state = os.statvfs(path)
    return state.f_bavail * state.f_frsize


def test_a_quota_is_found_out_and_kept_for_a_while(tmp_path: Path, reports: Reports, clock: Clock) -> None:
    for second in range(4):
        segment(tmp_path, "eth0", second, 200)
    made = adopted(tmp_path, reports, 2000)
    assert made.squeeze(OSError(errno.EDQUOT, "Disk quota exceeded"), 100)
    assert (made.bytes, made.state) == (600, "pruning")
    assert made.make_room(200) >= 200
    assert made.bytes <= 600
    assert reports.kinds == ["storage_low"]
    clock.now += space.LEARNED
    made.tend()
    assert made.make_room(200) == 2000 - made.bytes
    assert (made.state, reports.kinds) == ("ok", ["storage_low", "storage_enough"])


def test_a_quota_that_others_met_leaves_room_for_what_is_lent_to_them_once(
    tmp_path: Path, reports: Reports, clock: Clock
) -> None:
    for second in range(1, 11):
        segment(tmp_path, "eth0", second, 100)
    made = adopted(tmp_path, reports, 2000)
    made.lent = 300
    for left in (600, 500):
        assert made.squeeze(OSError(errno.EDQUOT, "Disk quota exceeded"), 100)
        made.tend()
        assert made.bytes == left


def test_a_disk_that_was_full_for_a_moment_is_not_taken_for_a_quota(tmp_path: Path, reports: Reports) -> None:
    segment(tmp_path, "eth0", 1, 200)
    segment(tmp_path, "eth0", 2, 200)
    made = adopted(tmp_path, reports, 2000)
    full = OSError(errno.ENOSPC, "No space left on device")
    assert made.squeeze(full, 100)
    assert (made.bytes, reports.kinds) == (200, [])
    assert made.squeeze(full, 100)
    assert reports.kinds == ["storage_low"]
    assert not made.squeeze(OSError(errno.EIO, "Input/output error"), 100)


def test_a_store_of_a_newer_version_is_not_touched(tmp_path: Path, reports: Reports) -> None:
    (tmp_path / "store.json").write_text('{"version": 2, "more": []}')
    part = tmp_path / "eth0" / segment_name(SECOND, OPEN)
    part.parent.mkdir()
    part.write_bytes(HEADER)
    with pytest.raises(ConfigurationError, match="the store is of version 2, and this program knows 1"):
        adopted(tmp_path, reports)
    assert part.exists()


def test_a_store_says_its_version_from_its_first_day(tmp_path: Path, reports: Reports) -> None:
    adopted(tmp_path / "data", reports)
    assert (tmp_path / "data" / "store.json").read_text() == '{"version": 1}\n'
    adopted(tmp_path / "data", reports)


def test_a_directory_that_cannot_be_made_is_a_failure_in_one_line(tmp_path: Path, reports: Reports) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFailure, match="cannot be read: Not a directory"):
        adopted(tmp_path / "file" / "data", reports)


def test_a_clock_set_back_while_a_segment_is_open_leaves_no_packet_after_its_end(
    tmp_path: Path, reports: Reports, clock: Clock
) -> None:
    wall = [NOW + 3600 * SECOND]
    made = Store(tmp_path, Limits(10**6), reports, lambda: wall[0])
    made.adopt()
    made.tend()
    part = made.part("eth0", wall[0])
    part.write_bytes(HEADER)
    made.grow(part, len(HEADER))
    clock.now += 10
    packet = wall[0] + 10 * SECOND
    wall[0] = NOW
    made.tend()
    made.keep(part, NOW + 3600 * SECOND, len(HEADER))
    made.tend()
    assert [segment.end >= packet for segment in stock(tmp_path)] == [True]
    assert reports.kinds == []
    segment(tmp_path, "eth0", NOW // SECOND, 100)
    again = adopted(tmp_path, reports)
    assert [one.end >= packet for one in again._shelf if one.begin > NOW] == [True]


def test_it_is_told_that_segments_are_ahead_of_the_clock(tmp_path: Path, reports: Reports) -> None:
    segment(tmp_path, "eth0", NOW // SECOND + 365 * 86_400, 100)
    adopted(tmp_path, reports)
    assert reports.messages == [
        "1 segment is up to 365 days ahead of the clock, which was wrong when they were captured, or is now: they go "
        "before what is captured from now on"
    ]
