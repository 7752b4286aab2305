"""Segments in memory, of an armed capture: what nothing has triggered is gone when it is old, and never on a disk.

They are files of a directory in /dev/shm, written and closed by the same code as on disk; a store of its own keeps
them within their age and their bytes. What a pin touches moves to the store on disk. A capture that is killed
leaves its directory behind; the next one of the same service removes it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from agent.errors import StorageFailure
from agent.linux.files import why
from agent.workers.capture import account
from agent.workers.capture.catalogue import ACCOUNT
from agent.workers.capture.pins import Watch
from agent.workers.capture.retention import Limits, Stored
from agent.workers.capture.shelf import Shelf
from agent.workers.capture.store import Report, Store

PLACE = Path("/dev/shm")  # noqa: S108  # tmpfs by the Filesystem Hierarchy Standard, and sticky
_COPIED = 1024 * 1024


class Memory(Store):
    """A store in memory beside the one of ``data`` on disk, to which it moves what is pinned.

    ``kept``: nanoseconds for which a closed segment stays. ``limit``: bytes of all of them. Raises ``StorageFailure``
    when made where there is no such memory.
    """

    def __init__(self, disk: Store, data: Path, kept: int, limit: int, report: Report) -> None:
        self._stem = f"agent-capture-{hashlib.blake2b(os.fsencode(data), digest_size=8).hexdigest()}-"
        self._disk_store = disk
        self._marks = Watch(data, report)
        self._clear()
        try:
            directory = Path(tempfile.mkdtemp(prefix=self._stem, dir=PLACE))
        except OSError as error:
            raise StorageFailure(f"{PLACE}: nothing can be kept in memory there: {why(error)}") from error
        super().__init__(directory, Limits(limit, max_age=kept), report)
        self._shelf = _Bare(directory)

    def tend(self) -> None:
        """As of any store; and what has been pinned moves to the disk."""
        self._marks.look(self._clock())
        self._save()
        super().tend()

    def close(self) -> None:
        """Move what is pinned, and forget the rest."""
        self._marks.look(self._clock())
        self._save()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _save(self) -> None:
        for segment in [found for found in self._shelf if self._marks.ranges.touch(found.begin, found.end)]:
            path = self._shelf.path(segment)
            try:
                self._move(segment, path)
            except OSError as error:
                self._report("storage_error", f"{segment.interface}: a pinned segment stays in memory: {why(error)}")
                return
            self._remove(segment)

    def _move(self, segment: Stored, path: Path) -> None:
        size = path.stat().st_size
        self._disk_store.make_room(size)
        part = self._disk_store.part(segment.interface, segment.begin)
        try:
            _copy(path, part)
        except OSError:
            with suppress(OSError):
                part.unlink()
            raise
        self._disk_store.keep(part, segment.begin, size, account.read(path.with_suffix(ACCOUNT)))

    def _clear(self) -> None:
        """Remove what a killed capture of this service has left. What is somebody else's, the sticky bit protects."""
        for left in PLACE.glob(f"{self._stem}*"):
            if left.lstat().st_uid == os.geteuid():
                shutil.rmtree(left, ignore_errors=True)


class _Bare(Shelf):
    def put_back(self, segment: Stored) -> None:
        super().put_back(replace(segment, indexed=True))  # nobody asks here


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as from_, target.open("xb") as to:
        target.chmod(0o640)
        while os.sendfile(to.fileno(), from_.fileno(), None, _COPIED):
            pass
