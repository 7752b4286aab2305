"""Which segments have no whole index, looked for often and cheaply: a store may hold a hundred thousand of them.

A directory is read once; what comes and goes in it is told by the kernel. Where it does not tell, one that has not
changed is not read: it changes when a segment is opened, closed, indexed or removed.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from agent.errors import StorageFailure
from agent.workers.capture.catalogue import INDEX, Segment, interfaces, within
from agent.workers.capture.naming import CLOSED, parse_name
from agent.workers.index.changes import Changes, Lost

_TICK = 100_000_000
"""Nanoseconds within which a directory may change again and bear the same time: file systems' clocks are coarse."""


@dataclass(slots=True)
class _Place:
    """The directory of an interface: which one it is, who tells of it, when it changed, and what has no whole index."""

    identity: tuple[int, int]
    watch: int | None
    modified: int
    found: dict[str, Segment] = field(default_factory=dict)


class Lookout:
    """The store at ``directory``; ``clock`` tells nanoseconds since the epoch. Close it when done."""

    def __init__(
        self, directory: Path, clock: Callable[[], int] = time.time_ns, changes: Callable[[], Changes] = Changes
    ) -> None:
        self._directory = directory
        self._clock = clock
        self._changes = changes()
        self._places: dict[str, _Place] = {}

    def unindexed(self) -> list[Segment]:
        """Segments that are open, or have no index, oldest first. Raises ``StorageFailure``."""
        return sorted(segment for place in self._looked() for segment in place.found.values())

    def opened(self) -> list[Segment]:
        """Those of them that are open, oldest first. Raises ``StorageFailure``."""
        return sorted(one for place in self._looked() for name, one in place.found.items() if not name.endswith(CLOSED))

    def close(self) -> None:
        """Let go of what tells of changes."""
        self._changes.close()

    def _looked(self) -> Iterable[_Place]:
        try:
            self._heed()
            places = {}
            for name in interfaces(self._directory):
                with suppress(FileNotFoundError):  # removed meanwhile
                    places[name] = self._look(name)
        except OSError as error:
            raise StorageFailure(f"segments in {self._directory} cannot be read: {error.strerror}") from error
        self._places = places
        return places.values()

    def _heed(self) -> None:
        """Take up what is told. Raises ``OSError``."""
        by_watch = {place.watch: (name, place) for name, place in self._places.items() if place.watch is not None}
        try:
            for watch, name, there in self._changes.read():
                if watch in by_watch:
                    interface, place = by_watch[watch]
                    self._change(interface, place.found, name, there)
        except Lost:
            self._places = {}

    def _change(self, interface: str, found: dict[str, Segment], name: str, there: bool) -> None:
        if name.endswith(INDEX):
            segment = name.removesuffix(INDEX) + CLOSED
            if there:
                found.pop(segment, None)
            else:
                self._change(interface, found, segment, os.path.lexists(self._directory / interface / segment))
            return
        parsed = parse_name(name)
        if parsed is None:
            return
        segment_at = Segment(parsed[0], interface, self._directory / interface / name)
        if there and _is_file(segment_at.path) and not (segment_at.closed and os.path.lexists(segment_at.index)):
            found[name] = segment_at
        else:
            found.pop(name, None)

    def _look(self, name: str) -> _Place:
        directory = self._directory / name
        status = directory.stat()
        identity = status.st_dev, status.st_ino
        before = self._places.get(name)
        if before is not None and before.identity == identity:
            if before.watch is not None or before.modified == status.st_mtime_ns:
                return before
            watch = None
        else:
            watch = self._changes.watch(directory)
        settled = abs(self._clock() - status.st_mtime_ns) > _TICK
        found = {
            segment.path.name: segment
            for segment in within(self._directory, name)
            if not (segment.closed and segment.indexed)
        }
        return _Place(identity, watch, status.st_mtime_ns if settled else -1, found)


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False
