"""Which segments have no whole index, looked for often and cheaply: a directory that has not changed is not read.

A store may hold thousands of segments, of which a few are of interest, and a directory changes when a segment is
opened, closed, indexed or removed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from agent.errors import StorageFailure
from agent.workers.capture.catalogue import Segment, interfaces, within

_TICK = 100_000_000
"""Nanoseconds within which a directory may change again and bear the same time: file systems' clocks are coarse."""


class Lookout:
    """The store at ``directory``; ``clock`` tells nanoseconds since the epoch."""

    def __init__(self, directory: Path, clock: Callable[[], int] = time.time_ns) -> None:
        self._directory = directory
        self._clock = clock
        self._seen: dict[str, tuple[int, list[Segment]]] = {}

    def unindexed(self) -> list[Segment]:
        """Segments that are open, or have no index, oldest first. Raises ``StorageFailure``."""
        seen = {}
        try:
            for name in interfaces(self._directory):
                try:
                    seen[name] = self._look(name)
                except FileNotFoundError:  # removed meanwhile
                    continue
        except OSError as error:
            raise StorageFailure(f"segments in {self._directory} cannot be read: {error.strerror}") from error
        self._seen = seen
        return sorted(segment for _, found in seen.values() for segment in found)

    def _look(self, name: str) -> tuple[int, list[Segment]]:
        modified = (self._directory / name).stat().st_mtime_ns
        before = self._seen.get(name)
        if before is not None and before[0] == modified:
            return before
        found = [segment for segment in within(self._directory, name) if not (segment.closed and segment.indexed)]
        return (modified if abs(self._clock() - modified) > _TICK else -1), found
