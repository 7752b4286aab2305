"""Copying segments to the disk beside the capture: a disk that is slow must not keep it from its ring.

A thread does it, and nothing else: it is in sendfile(2) all the time, where it holds no lock of the interpreter. What
is decided, counted and named, is so by whoever takes the results.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from agent.workers.capture.account import Account
from agent.workers.capture.retention import Stored

_STEP = 1024 * 1024


class Load(NamedTuple):
    """A segment of ``size`` bytes at ``source``, and where it is to be copied to, which must not exist yet.

    ``record`` is its account, read before: what is in memory may have to go while it is copied.
    """

    segment: Stored
    source: Path
    part: Path
    size: int
    record: Account | None


class Moved(NamedTuple):
    """What became of one: ``fd`` is open on the copy and holds its lock, or ``error`` is why there is none."""

    load: Load
    fd: int
    error: OSError | None


class Mover:
    """One thread at a time."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._done: deque[Moved] = deque()

    @property
    def busy(self) -> bool:
        """Whether it copies, or there are results."""
        copying = self._thread is not None and self._thread.is_alive()  # first: there is a result before it ends
        return copying or bool(self._done)

    def start(self, loads: Sequence[Load]) -> None:
        """Copy these, one after the other. Not while it is busy."""
        # Not waited for at the end of the process: a disk may hang for ever.
        self._thread = threading.Thread(target=self._copy_all, args=(tuple(loads),), name="mover", daemon=True)
        self._thread.start()

    def wait(self, within: float | None = None) -> bool:
        """Until nothing is being copied, for so many seconds at most; returns whether nothing is."""
        if self._thread is None:
            return True
        self._thread.join(within)
        return not self._thread.is_alive()

    def results(self) -> list[Moved]:
        """What has been copied, or failed to be, since this was asked last."""
        found = []
        while self._done:
            found.append(self._done.popleft())
        return found

    def _copy_all(self, loads: Sequence[Load]) -> None:
        for load in loads:
            try:
                self._done.append(Moved(load, _copied(load.source, load.part), None))
            except OSError as error:
                self._done.append(Moved(load, -1, error))


def _copied(source: Path, target: Path) -> int:
    """Copy a segment, with its time. Raises ``OSError``; then nothing is left of the copy."""
    fd = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
    try:
        with suppress(OSError):  # as of any segment that is being written
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with source.open("rb") as from_:
            while os.sendfile(fd, from_.fileno(), None, _STEP):
                pass
            modified = os.fstat(from_.fileno()).st_mtime_ns
        os.utime(fd, ns=(modified, modified))
    except BaseException:
        os.close(fd)
        with suppress(OSError):
            target.unlink()
        raise
    return fd
