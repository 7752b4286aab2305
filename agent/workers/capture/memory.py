"""Segments in memory, of an armed capture: what nothing has triggered is gone when it is old, and never on a disk.

They are files of a directory in /dev/shm, written and closed by the same code as on disk; a store of its own keeps
them within their age and their bytes. What a pin touches moves to the store on disk, beside the capture, and is kept
here until it is there. A capture that is killed leaves its directory behind; the next one of the same service takes
over what is in it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from agent.errors import StorageFailure
from agent.linux.files import why
from agent.workers.capture import account, version
from agent.workers.capture.catalogue import ACCOUNT
from agent.workers.capture.mover import Load, Moved, Mover
from agent.workers.capture.naming import MICROSECOND
from agent.workers.capture.pins import Watch
from agent.workers.capture.retention import Limits, Stored
from agent.workers.capture.shelf import Shelf
from agent.workers.capture.shm import PLACE, found, stem
from agent.workers.capture.store import Report, Store
from agent.workers.capture.takeover import take_over

_MOST = 64
"""Segments that are copied in one go: each holds a descriptor until it is named."""

PATIENCE = 5.0
"""Seconds that a disk is waited for at the end: half of the ``stop_timeout`` that there is where none is declared."""

_LOST = {
    True: "are lost: they were in memory alone",
    False: "are in memory alone, the disk is slow: lost unless this capture starts again before the machine does",
}
"""What becomes of what is pinned and not on disk at the end, by whether the disk came to an end with what it was given.
"""


class Memory(Store):
    """A store in memory beside the one of ``data`` on disk, to which it moves what is pinned.

    ``kept``: nanoseconds for which a closed segment stays. ``limit``: bytes of all of them. Raises ``StorageFailure``
    when made where there is no such memory.
    """

    def __init__(self, disk: Store, data: Path, kept: int, limit: int, report: Report) -> None:
        self._disk_store = disk
        self._data = data
        self._mover = Mover()
        self._refused: set[Path] = set()  # told once
        self._no_room = self._adopted = False
        try:
            directory = Path(tempfile.mkdtemp(prefix=stem(data), dir=PLACE))
        except OSError as error:
            raise StorageFailure(f"{PLACE}: nothing can be kept in memory there: {why(error)}") from error
        super().__init__(directory, Limits(limit, max_age=kept), report)
        self._pins = Watch(data, self._report_broken)

    def take_over(self) -> None:
        """Bring here what a killed capture of this service has left in memory; call it before any store is adopted.

        What is somebody else's is let be. Raises as ``version.check`` does.
        """
        version.check(self._data)
        for left in found(self._data):
            try:
                if left == self._directory or left.lstat().st_uid != os.geteuid():
                    continue
                take_over(left, self._directory, self._data)
            except OSError as error:
                self._report("storage_error", f"{left}: what is in memory there cannot be taken over: {why(error)}")
                continue
            shutil.rmtree(left, ignore_errors=True)

    def adopt(self) -> None:
        """As of any store."""
        super().adopt()
        self._adopted = True

    def tend(self) -> None:
        """As of any store; and what has been pinned moves to the disk."""
        super().tend()
        self._settle()
        if not self._mover.busy:
            self._move(_MOST)

    def close(self, within: float = PATIENCE) -> None:
        """Move what is pinned, and forget the rest. Whatever cannot be moved is tried once, and told.

        What a slow disk has not taken after ``within`` seconds stays, for the next capture of this service.
        """
        if not self._adopted:
            self._leave()
            return
        until = time.monotonic() + within
        self._pins.look(self._clock())
        tried: set[Stored] = set()
        in_time = self._moved(until)
        while in_time and (loads := self._move(_MOST, tried)):
            tried.update(load.segment for load in loads)
            in_time = self._moved(until)
        left = self._pinned()
        if left:
            packets = sum(record.written for one in left if (record := self._account(one)) is not None)
            self._report("storage_error", f"{packets} packets of {len(left)} pinned segments {_LOST[in_time]}")
        if left and not in_time:
            for segment in set(self._shelf).difference(left):
                self._removal.remove(segment)
        else:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _leave(self) -> None:
        """Nothing began: what was taken over is left for the next."""
        with suppress(OSError):  # there is something in it
            self._directory.rmdir()

    def _moved(self, until: float) -> bool:
        """Wait for what is being copied, and name it; returns whether all was copied by then."""
        done = self._mover.wait(max(0.0, until - time.monotonic()))
        self._settle()
        return done

    def _report_broken(self, kind: str, message: str) -> None:
        """What is wrong with a pin itself, the store on disk tells."""
        if kind == "pin_broken":
            self._report(kind, message)

    def _made_shelf(self, directory: Path) -> Shelf:
        return _Bare(directory, self._report)

    def _pinned(self) -> list[Stored]:
        return [one for one in self._shelf if self._pins.ranges.touch(one.begin, one.end)]

    def _move(self, most: int, leave: set[Stored] | frozenset[Stored] = frozenset()) -> list[Load]:
        """Begin to copy what is pinned, as far as the disk has room; returns what."""
        loads: list[Load] = []
        begun, short = 0, False
        for segment in self._pinned():
            if segment in leave:
                continue
            if len(loads) == most:
                break
            if short := self._disk_store.make_room(segment.size, begun) < segment.size:
                break
            path = self._shelf.path(segment)
            try:
                size = path.stat().st_size
                part = self._free_part(segment)
            except OSError as error:
                self._refuse(path, segment, error)
                continue
            self._disk_store.grow(part, size)
            begun += size
            loads.append(Load(segment, path, part, size, self._account(segment)))
        if loads:
            self._mover.start(loads)
        if short and not loads and not self._no_room:
            reason = self._disk_store.obstacle().strerror
            self._report("storage_error", f"pinned segments stay in memory until there is room: {reason}")
        self._no_room = short and not loads
        return loads

    def _free_part(self, segment: Stored) -> Path:
        """Where to copy it: by its own instant, or a later one where there is a file already. Raises ``OSError``."""
        begin = segment.begin
        while os.path.lexists(part := self._disk_store.part(segment.interface, begin)):
            self._disk_store.unopened(part)
            begin += MICROSECOND
        return part

    def _settle(self) -> None:
        """Name what has been copied."""
        for moved in self._mover.results():
            self._settle_one(moved)

    def _settle_one(self, moved: Moved) -> None:
        load = moved.load
        if moved.error is not None:
            self._disk_store.unopened(load.part)  # and not removed: whatever is there is not ours
            if self._shelf.knows(load.segment.begin, load.segment.interface):  # else it went for room, and that is told
                self._refuse(load.source, load.segment, moved.error)
            return
        try:
            self._disk_store.keep(load.part, load.segment.begin, load.size, load.record)
        except OSError as error:  # the disk has it, and is asked for the name again and again
            self._report("storage_error", f"{load.segment.interface}: a pinned segment has no name yet: {why(error)}")
        finally:
            os.close(moved.fd)
        self._refused.discard(load.source)
        if self._shelf.knows(load.segment.begin, load.segment.interface):
            self._removal.remove(load.segment)

    def _account(self, segment: Stored) -> account.Account | None:
        return account.read(self._shelf.path(segment).with_suffix(ACCOUNT))

    def _refuse(self, path: Path, segment: Stored, error: OSError) -> None:
        """It stays; others are tried. It is tried again, and told once."""
        if path not in self._refused:
            self._refused = {one for one in self._refused if one.exists()} | {path}
            self._report("storage_error", f"{segment.interface}: a pinned segment stays in memory: {why(error)}")


class _Bare(Shelf):
    """Nobody asks for packets here, and so none need an index to go."""

    def put_back(self, segment: Stored) -> None:
        super().put_back(replace(segment, indexed=True))
