"""The directory of segments of one service: adopted at start, kept within its budget, oldest first.

``DIRECTORY/INTERFACE/NAME.pcap``, see ``naming``. Every such file counts towards the budget, also those of interfaces
that are no longer declared; any other file is somebody else's and left alone. The disk is a limit like the budget: when
less is free than is wanted, the oldest segments make room too.
"""

from __future__ import annotations

import os
from bisect import insort
from collections.abc import Callable
from pathlib import Path

from agent.errors import StorageFailure
from agent.workers.capture.account import Account
from agent.workers.capture.catalogue import ACCOUNT
from agent.workers.capture.finish import finish
from agent.workers.capture.naming import CLOSED, OPEN, parse_name, segment_name, valid_interface
from agent.workers.capture.recovery import Recovered, recover
from agent.workers.capture.retention import Stored, prune_plan

#: ``report(kind, message)``: something happened that the operator should know.
Report = Callable[[str, str], None]


class Store:
    """Closed segments by age, and the bytes that open ones have taken so far. Sizes are bytes."""

    def __init__(self, directory: Path, budget: int, report: Report) -> None:
        self._directory = directory
        self._budget = budget
        self._report = report
        self._closed: list[Stored] = []  # oldest first
        self._closed_bytes = 0
        self._open: dict[Path, int] = {}
        self._disk_low = False

    @property
    def bytes(self) -> int:
        """Bytes of all segments, open ones included."""
        return self._closed_bytes + sum(self._open.values())

    def adopt(self) -> None:
        """Take over what is in the directory, completing segments that a worker left open when it was killed.

        Call once, before anything else. Raises ``StorageFailure`` when the directory cannot be made or read.
        """
        try:
            self._directory.mkdir(mode=0o750, parents=True, exist_ok=True)
            with os.scandir(self._directory) as entries:
                interfaces = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
            for interface in filter(valid_interface, interfaces):
                self._adopt_interface(interface)
        except OSError as error:
            raise StorageFailure(f"segments in {self._directory} cannot be read: {error.strerror}") from error

    def _adopt_interface(self, interface: str) -> None:
        with os.scandir(self._directory / interface) as entries:
            names = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
        for name in names:
            parsed = parse_name(name)
            if parsed is None:
                continue
            path = self._directory / interface / name
            begin, suffix = parsed
            if suffix == OPEN:
                self._recover(path)
            else:
                beside = path.with_suffix(ACCOUNT)
                size = path.stat().st_size + (beside.stat().st_size if beside.is_file() else 0)
                self._add(Stored(begin, interface, size))

    def _recover(self, path: Path) -> None:
        label = f"{path.parent.name}/{path.name}"
        try:
            modified = path.stat().st_mtime_ns
            found = recover(path)
            if found is None:
                self._report("segment_unreadable", f"{label}: not a pcap file, left alone")
                return
            if found.begin is None:
                path.unlink()
            else:
                self.keep(path, found.begin, found.length, _recovered(path, modified, found))
            self._report(
                "segment_recovered",
                f"{label}: {found.records} packets kept, {found.lost} bytes of an unfinished one cut",
            )
        except OSError as error:
            self._report("segment_unreadable", f"{label}: left alone: {error.strerror}")

    def part(self, interface: str, now: int) -> Path:
        """Where a new segment is to be written; its directory exists. Raises ``OSError``."""
        directory = self._directory / interface
        directory.mkdir(mode=0o750, exist_ok=True)
        return directory / segment_name(now, OPEN)

    def grow(self, part: Path, size: int) -> None:
        """An open segment has this size now."""
        self._open[part] = size

    def keep(self, part: Path, begin: int, size: int, record: Account | None = None) -> Path:
        """An open segment is complete: give it its name and its account. Raises ``OSError``."""
        self._open.pop(part, None)
        done = finish(part, begin, record)
        if done.missing is not None:
            self._report("storage_error", f"{part.parent.name}: a segment has no account: {done.missing.strerror}")
        self._add(Stored(done.begin, part.parent.name, size + done.beside))
        return done.path

    def discard(self, part: Path) -> None:
        """An open segment has no packet in it: remove it. Raises ``OSError``."""
        self._open.pop(part, None)
        part.unlink(missing_ok=True)

    def make_room(self, want: int, unflushed: int = 0) -> int:
        """Remove the oldest segments until ``want`` bytes may be written; returns how many may, which can be fewer.

        What may be written is what is left of the budget, and no more than the disk has free once it took the
        ``unflushed`` bytes that open segments have grown by and not handed over yet.
        """
        disk, budget = self._disk_free() - unflushed, self._budget - self.bytes
        room = min(disk, budget)
        if room >= want or not self._closed:
            return max(0, room)
        if disk >= budget:
            self._disk_low = False
        elif not self._disk_low:
            self._disk_low = True
            self._report(
                "storage_low", f"{disk} bytes are free on disk: the oldest segments go before the budget is used"
            )
        self.prune(want - room)
        return max(0, min(self._budget - self.bytes, self._disk_free() - unflushed))

    def prune(self, need: int) -> None:
        """Remove as many of the oldest segments as it takes to free ``need`` bytes."""
        for segment in prune_plan(self._closed, need):
            path = self._path(segment)
            try:
                path.unlink(missing_ok=True)
                path.with_suffix(ACCOUNT).unlink(missing_ok=True)
            except OSError as error:
                # It goes on counting, but is not tried again for each packet.
                self._report("segment_stuck", f"{path}: cannot be removed: {error.strerror}")
            else:
                self._closed_bytes -= segment.size
            self._closed.remove(segment)

    def _add(self, segment: Stored) -> None:
        insort(self._closed, segment)
        self._closed_bytes += segment.size

    def _path(self, segment: Stored) -> Path:
        return self._directory / segment.interface / segment_name(segment.begin, CLOSED)

    def _disk_free(self) -> int:
        """Bytes an ordinary user may still write; without a limit when the file system does not say."""
        try:
            state = os.statvfs(self._directory)
        except OSError:
            return self._budget
        return state.f_bavail * state.f_frsize


def _recovered(part: Path, modified: int, found: Recovered) -> Account:
    """All that is known of a segment whose worker was killed."""
    parsed = parse_name(part.name)
    opened = parsed[0] if parsed else 0
    return Account(
        interface=part.parent.name,
        opened=opened,
        closed=max(opened, modified),  # files are dated by a coarser clock
        written=found.records,
        bytes=found.length,
        reason="recovered",
    )
