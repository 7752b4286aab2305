"""Segments in memory: bounded by age and bytes, and on disk once a pin touches them."""

from __future__ import annotations

import errno
import os
import struct
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.errors import ConfigurationError, StorageFailure
from agent.workers.capture import account, finish, memory, pins, savefile
from agent.workers.capture.account import Account
from agent.workers.capture.memory import Memory
from agent.workers.capture.mover import Load, Moved, Mover
from agent.workers.capture.naming import CLOSED, OPEN, segment_name
from agent.workers.capture.retention import Limits, Stored
from agent.workers.capture.shm import PLACE
from agent.workers.capture.store import Store

SECOND = 1_000_000_000
BEGIN = 1_795_183_200 * SECOND
SIZE = 1000


def one_packet(instant: int) -> bytes:
    """A segment of ``SIZE`` bytes; there is one ``x`` in each packet."""
    length = SIZE - savefile.FILE_HEADER - savefile.RECORD_HEADER
    head = savefile.file_header(1) + struct.pack("=IIII", *divmod(instant, SECOND), length, length)
    return head + bytes(length - 1) + b"x"


class Kept:
    """A store on disk, one in memory, and a clock."""

    def __init__(self, data: Path, budget: int = 10**6) -> None:
        self.data = data
        self.now = BEGIN
        self.events: list[str] = []
        self.messages: list[str] = []
        self.disk = Store(data, Limits(budget), self._report)
        self.disk._clock = lambda: self.now
        self.memory = Memory(self.disk, data, 10 * SECOND, 6 * SIZE, self._report)
        self.memory._clock = lambda: self.now
        data.mkdir(exist_ok=True)
        self.memory.take_over()
        self.disk.adopt()
        self.memory.adopt()

    def _report(self, kind: str, message: str) -> None:
        self.events.append(kind)
        self.messages.append(message)

    def tend(self) -> None:
        """Until what it began to copy is on disk, or not."""
        self.memory.tend()
        self.memory._mover.wait()
        self.memory.tend()

    def close_segment(self, second: int, content: bytes = b"") -> None:
        """A segment that was closed one second after it began."""
        begin = BEGIN + second * SECOND
        content = content or one_packet(begin)
        part = self.memory.part("eth0", begin)
        part.write_bytes(content)
        size, packets = len(content), content.count(b"x")
        self.memory.grow(part, size)
        self.now = begin + SECOND
        os.utime(part, ns=(self.now, self.now))
        record = Account(interface="eth0", opened=begin, closed=self.now, written=packets, bytes=size, reason="time")
        self.memory.keep(part, begin, size, record)

    def on_disk(self) -> list[str]:
        return sorted(path.name[13:15] for path in self.data.rglob("*.pcap"))

    def in_memory(self) -> list[str]:
        return sorted(path.name[13:15] for path in self.memory._directory.rglob("*.pcap"))


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    made = Kept(tmp_path / "edge")
    try:
        yield made
    finally:
        made.memory.close()


def test_what_nothing_triggers_is_never_on_a_disk_and_gone_when_it_is_old(kept: Kept) -> None:
    for second in range(4):
        kept.close_segment(second)
    kept.memory.tend()
    assert kept.in_memory() == ["00", "01", "02", "03"]
    kept.now = BEGIN + 13 * SECOND
    kept.memory.tend()
    assert kept.in_memory() == ["02", "03"]
    assert kept.on_disk() == []


def test_the_bytes_are_bounded_and_the_newest_stay(kept: Kept) -> None:
    for second in range(8):
        kept.close_segment(second)
        kept.memory.make_room(SIZE)
        assert kept.memory.bytes <= 6 * SIZE
    assert kept.in_memory()[-1] == "07"
    assert kept.in_memory()[0] != "00"


def test_what_a_pin_touches_moves_to_the_disk_with_its_account(kept: Kept) -> None:
    for second in range(3):
        kept.close_segment(second)
    pins.add(kept.data, BEGIN + SECOND + 1, BEGIN + 3 * SECOND, created=kept.now)
    kept.tend()
    assert kept.on_disk() == ["01", "02"]
    assert kept.in_memory() == ["00"]
    for path in kept.data.rglob("*.pcap"):
        assert path.stat().st_mode & 0o777 == 0o640
        assert path.stat().st_size == SIZE
        assert path.read_bytes().startswith(savefile.file_header(1))
        found = account.read(path.with_suffix(".meta"))
        assert found is not None
        assert found.written == 1
    kept.close_segment(3)
    kept.close_segment(4)
    kept.tend()
    assert kept.on_disk() == ["01", "02", "03"]
    assert kept.events == []


def test_a_pin_that_comes_with_the_end_is_heeded_and_nothing_else_is_left(kept: Kept) -> None:
    kept.close_segment(0)
    kept.close_segment(1)
    pins.add(kept.data, BEGIN, BEGIN, created=kept.now)
    place = kept.memory._directory
    kept.memory.close()
    assert kept.on_disk() == ["00"]
    assert not place.exists()


def test_a_full_disk_leaves_what_is_pinned_in_memory_and_it_is_moved_later(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, os.strerror(28))

    kept.close_segment(0)
    pins.add(kept.data, BEGIN, BEGIN, created=kept.now)
    with monkeypatch.context() as patch:
        patch.setattr(os, "sendfile", full)
        kept.tend()
        kept.tend()
        kept.memory._mover.wait()
    assert kept.messages == ["eth0: a pinned segment stays in memory: No space left on device"]
    assert (kept.in_memory(), kept.on_disk()) == (["00"], [])
    assert not list(kept.data.rglob("*.part"))
    kept.tend()
    kept.tend()
    assert (kept.in_memory(), kept.on_disk()) == ([], ["00"])


def test_a_disk_that_is_slow_keeps_the_capture_from_nothing(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    may, sendfile = threading.Event(), os.sendfile

    def slow(*arguments: Any) -> int:
        assert may.wait(20)
        return sendfile(*arguments)

    monkeypatch.setattr(os, "sendfile", slow)
    kept.close_segment(0)
    pins.add(kept.data, BEGIN, BEGIN, created=kept.now)
    kept.memory.tend()
    kept.now += 60 * SECOND
    kept.memory.tend()
    assert kept.in_memory() == ["00"]  # too old, but for the pin
    assert kept.disk.bytes == SIZE
    may.set()
    kept.tend()
    assert (kept.in_memory(), kept.on_disk(), kept.events) == ([], ["00"], [])


def test_a_disk_that_hangs_at_the_end_is_waited_for_no_longer_and_what_it_did_not_take_is_told_and_stays(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    may, began, sendfile = threading.Event(), threading.Event(), os.sendfile

    def hung(*arguments: Any) -> int:
        began.set()
        assert may.wait(20)
        return sendfile(*arguments)

    monkeypatch.setattr(os, "sendfile", hung)
    for second in range(3):
        kept.close_segment(second)
    pins.add(kept.data, BEGIN, BEGIN + SECOND, created=kept.now)
    kept.memory.tend()
    assert began.wait(20)
    closing = threading.Thread(target=kept.memory.close, args=(0.05,), daemon=True)
    closing.start()
    closing.join(10)
    hangs, left = closing.is_alive(), kept.in_memory()
    may.set()
    closing.join()
    kept.memory._mover.wait()
    assert not hangs
    assert left == ["00", "01"]
    (message,) = kept.messages
    assert message.startswith("2 packets of 2 pinned segments are in memory alone, the disk is slow: lost")
    for moved in kept.memory._mover.results():  # as the end of the process does
        os.close(moved.fd)
    again = Kept(kept.data)
    again.tend()
    assert (again.on_disk(), list(kept.data.rglob("*.part"))) == (["00", "01"], [])
    again.memory.close()
    assert not kept.memory._directory.exists()


def test_one_segment_that_will_not_go_keeps_no_other_from_it(kept: Kept) -> None:
    for second in range(3):
        kept.close_segment(second)
    next(path for path in kept.memory._directory.rglob("*.pcap") if path.name[13:15] == "01").unlink()
    pins.add(kept.data, BEGIN, BEGIN + 9 * SECOND, created=kept.now)
    for _ in range(3):
        kept.tend()
    assert kept.on_disk() == ["00", "02"]
    assert kept.events == ["storage_error"]


def test_what_is_pinned_takes_no_more_than_the_budget_and_what_is_lost_with_the_end_is_told(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "edge", budget=2 * SIZE + 600)
    for second in range(4):
        kept.close_segment(second)
    pins.add(kept.data, BEGIN, BEGIN + 9 * SECOND, created=kept.now)
    for _ in range(3):
        kept.tend()
        assert kept.disk.bytes <= 2 * SIZE + 600
    assert kept.on_disk() == ["00", "01"]
    assert kept.in_memory() == ["02", "03"]
    (message,) = kept.messages
    assert message.startswith("pinned segments stay in memory until there is room: the budget of 2600 bytes is used up")
    kept.memory.close()
    assert kept.messages[1:] == ["2 packets of 2 pinned segments are lost: they were in memory alone"]
    assert not kept.memory._directory.exists()


def test_what_the_disk_has_but_would_not_name_is_stored_once(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    kept.close_segment(0)
    pins.add(kept.data, BEGIN, BEGIN, created=kept.now)
    with monkeypatch.context() as patch:
        patch.setattr(finish, "rename_noreplace", refused)
        kept.tend()
    kept.disk.tend()
    kept.tend()
    assert (kept.in_memory(), kept.on_disk(), kept.events) == ([], ["00"], ["storage_error"])
    assert not list(kept.data.rglob("*.part"))


def test_what_a_killed_capture_left_in_memory_is_taken_over_by_the_next_one_of_the_same_service(tmp_path: Path) -> None:
    killed, other = Kept(tmp_path / "edge"), Kept(tmp_path / "core")
    for second in range(3):
        killed.close_segment(second)
    pins.add(killed.data, BEGIN, BEGIN, created=killed.now)
    opened = killed.memory.part("eth0", BEGIN + 3 * SECOND)
    opened.write_bytes(one_packet(BEGIN + 3 * SECOND) + b"half")
    os.utime(opened, ns=(killed.now, killed.now))
    strange = killed.memory._directory / "eth1"
    strange.symlink_to(tmp_path)
    left = PLACE / f"{killed.memory._directory.name[:-8]}12345678"  # gone before it can be looked at
    left.symlink_to("nowhere")
    again = Kept(tmp_path / "edge")
    left.unlink()
    assert not killed.memory._directory.exists()
    assert other.memory._directory.exists()
    assert again.in_memory() == ["00", "01", "02", "03"]
    again.now = BEGIN + 30 * SECOND
    again.tend()
    assert (again.in_memory(), again.on_disk()) == ([], ["00"])
    (path,) = again.data.rglob("*.meta")
    assert (found := account.read(path)) is not None
    assert found.reason == "time"
    assert again.events == ["segment_recovered"]
    for each in (other, again):
        each.memory.close()


@pytest.mark.parametrize("died", ["nothing copied", "half copied", "not named", "not removed", "adopted in between"])
def test_whatever_instant_a_capture_dies_at_while_it_moves_a_segment_the_next_has_each_packet_once(
    tmp_path: Path, died: str
) -> None:
    killed = Kept(tmp_path / "edge")
    killed.close_segment(0, one_packet(BEGIN) + one_packet(BEGIN)[24:])
    (source,) = killed.memory._directory.rglob("*.pcap")
    content = source.read_bytes()
    pins.add(killed.data, BEGIN, BEGIN, created=killed.now)
    place = killed.data / "eth0"
    place.mkdir()
    stranger = place / segment_name(BEGIN, OPEN)
    stranger.write_text("not ours, and longer than a header")
    part = place / segment_name(BEGIN + 1000, OPEN)
    if died in ("half copied", "adopted in between"):
        part.write_bytes(content[:-1])
    elif died != "nothing copied":
        part.write_bytes(content)
    if died == "not removed":
        killed.disk.keep(part, BEGIN, len(content), account.read(source.with_suffix(".meta")))
    elif died == "adopted in between":  # by a capture that kept its packets on disk
        killed.disk.adopt()
    again = Kept(tmp_path / "edge")
    again.tend()
    (path,) = again.data.rglob("*.pcap")
    assert path.read_bytes() == content
    assert (found := account.read(path.with_suffix(".meta"))) is not None
    assert (found.written, found.reason) == (2, "time")
    assert (again.in_memory(), list(again.data.rglob("*.part"))) == ([], [stranger])
    assert again.disk.bytes == len(content) + path.with_suffix(".meta").stat().st_size
    again.memory.close()


def test_what_begins_alike_and_goes_on_otherwise_is_no_copy(tmp_path: Path) -> None:
    killed = Kept(tmp_path / "edge")
    killed.close_segment(0, one_packet(BEGIN) + one_packet(BEGIN)[24:])
    other = killed.data / "eth0" / segment_name(BEGIN, CLOSED)
    other.parent.mkdir()
    other.write_bytes(one_packet(BEGIN) + one_packet(BEGIN + 1)[24:])
    pins.add(killed.data, BEGIN, BEGIN, created=killed.now)
    again = Kept(tmp_path / "edge")
    again.tend()
    assert len(list(again.data.rglob("*.pcap"))) == 2
    again.memory.close()


def test_what_was_taken_over_stays_where_the_store_on_disk_cannot_be_adopted(tmp_path: Path) -> None:
    killed = Kept(tmp_path / "edge")
    killed.close_segment(0)
    failing = Memory(killed.disk, killed.data, SECOND, SIZE, killed._report)
    failing.take_over()
    failing.close()
    assert killed.in_memory() == []
    again = Kept(tmp_path / "edge")
    assert again.in_memory() == ["00"]
    again.memory.close()
    assert not list(PLACE.glob(f"{failing._directory.name[:-8]}*"))


def test_what_lies_in_memory_for_a_store_of_a_newer_version_is_not_touched(tmp_path: Path) -> None:
    killed = Kept(tmp_path / "edge")
    killed.close_segment(0)
    (killed.data / "store.json").write_text('{"version": 2}')
    with pytest.raises(ConfigurationError, match="of version 2"):
        Kept(tmp_path / "edge")
    assert killed.in_memory() == ["00"]
    killed.memory.close()
    for left in PLACE.glob(f"{killed.memory._directory.name[:-8]}*"):
        left.rmdir()


def test_where_there_is_no_such_memory_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "PLACE", tmp_path / "nowhere")
    with pytest.raises(StorageFailure, match=r"nowhere: nothing can be kept in memory there: No such file"):
        Kept(tmp_path / "edge")


def test_a_file_that_has_the_name_of_a_copy_is_left_alone_and_the_copy_gets_another(kept: Kept) -> None:
    kept.close_segment(0)
    foreign = kept.data / "eth0" / segment_name(BEGIN, OPEN)
    foreign.parent.mkdir()
    foreign.write_text("not ours")
    pins.add(kept.data, BEGIN, BEGIN, created=kept.now)
    kept.tend()
    assert foreign.read_text() == "not ours"
    assert (kept.in_memory(), kept.on_disk(), kept.events) == ([], ["00"], [])


def test_what_could_not_be_copied_is_not_removed_where_somebody_else_made_it(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.close_segment(0)
    pins.add(kept.data, BEGIN, BEGIN, created=kept.now)
    monkeypatch.setattr(os.path, "lexists", lambda _: False)  # it comes right after that was asked
    foreign = kept.data / "eth0" / segment_name(BEGIN, OPEN)
    foreign.parent.mkdir()
    foreign.write_text("not ours")
    kept.tend()
    assert foreign.read_text() == "not ours"
    assert kept.disk.bytes == 0 or kept.memory._mover.busy


def test_what_had_to_go_while_it_was_copied_is_on_disk_with_its_account(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    may, began, sendfile = threading.Event(), threading.Event(), os.sendfile

    def slow(*arguments: Any) -> int:
        began.set()
        assert may.wait(20)
        return sendfile(*arguments)

    monkeypatch.setattr(os, "sendfile", slow)
    kept.close_segment(0)
    kept.close_segment(1)
    pins.add(kept.data, BEGIN, BEGIN + 9 * SECOND, created=kept.now)
    kept.memory.tend()
    assert began.wait(20)
    kept.memory.make_room(6 * SIZE)
    assert kept.in_memory() == []
    may.set()
    kept.tend()
    assert kept.on_disk() == ["00"]
    (path,) = kept.data.rglob("*.pcap")
    assert account.read(path.with_suffix(".meta")) is not None
    assert set(kept.events) == {"pin_broken"}  # and that tells of the second


def test_the_pin_of_what_the_disk_would_not_name_yet_is_kept(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    kept.close_segment(0)
    pins.add(kept.data, BEGIN, BEGIN, created=kept.now)
    monkeypatch.setattr(finish, "rename_noreplace", refused)
    kept.tend()
    assert (kept.in_memory(), kept.disk.since) == ([], BEGIN)


def test_a_mover_is_busy_until_its_results_are_taken_whenever_it_ends(tmp_path: Path) -> None:
    class Asked(deque[Moved]):
        """The thread ends right after somebody has seen that there is nothing yet."""

        def __len__(self) -> int:
            found = super().__len__()
            may.set()
            mover.wait()
            return found

    may, mover = threading.Event(), Mover()
    source = tmp_path / "source"
    os.mkfifo(source)

    def fed() -> None:
        may.wait(20)
        source.open("wb").close()

    feeder = threading.Thread(target=fed)
    feeder.start()
    mover._done = Asked()
    mover.start([Load(Stored(BEGIN, "eth0", BEGIN, SIZE, True), source, tmp_path / "part", SIZE, None)])
    assert mover.busy
    may.set()
    feeder.join()
    mover.wait()
    assert [moved.fd for moved in mover.results()] == [-1]  # sendfile(2) takes no pipe
    assert not mover.busy
