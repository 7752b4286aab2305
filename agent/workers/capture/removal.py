"""Removing segments, and what to do with those that will not go."""

from __future__ import annotations

import time
from pathlib import Path

from agent.workers.capture.adoption import Report
from agent.workers.capture.catalogue import ACCOUNT, INDEX
from agent.workers.capture.retention import Stored
from agent.workers.capture.shelf import Shelf

PATIENT = 3
"""Segments in a row that would not go, after which it is the disk, and not they."""

RESIST = 5.0
"""Seconds for which nothing is removed then."""

STUCK = 60.0
"""Seconds after which it is tried again to remove what would not be."""

_MOST_TOLD = 1000


class Removal:
    """Takes segments from ``shelf``, and their files from the disk."""

    def __init__(self, shelf: Shelf, report: Report) -> None:
        self._shelf = shelf
        self._report = report
        #: Those that would not be removed: they count, and are left alone for a while.
        self.stuck: list[Stored] = []
        self._told: set[Path] = set()
        self._again_at = 0.0
        self._refusals = 0
        self._resting_until = 0.0

    @property
    def bytes(self) -> int:
        """Bytes of those that are stuck."""
        return sum(segment.size for segment in self.stuck)

    @property
    def resting(self) -> bool:
        """Whether nothing is removed for now."""
        return time.monotonic() < self._resting_until

    def remove(self, segment: Stored) -> bool:
        """Remove one; returns whether it is gone.

        The packets go first: what is left behind by a kill in between is no segment, and cleared away at the start.
        (The other way round it would be one without an index, and stay for ever.)
        """
        if self.resting:
            return False
        path = self._shelf.path(segment)
        refusal: OSError | None = None
        try:
            path.unlink(missing_ok=True)
            for suffix in (INDEX, ACCOUNT):
                path.with_suffix(suffix).unlink(missing_ok=True)
        except OSError as error:
            refusal = error
        self._shelf.take(segment)
        if refusal is not None:
            self._refuse(segment, path, refusal)
            return False
        self._refusals = 0
        self._told.discard(path)
        return True

    def again(self) -> None:
        """Try those that are stuck once more, when it is time."""
        if self.stuck and time.monotonic() >= self._again_at:
            stuck, self.stuck = self.stuck, []
            for segment in stuck:
                self._shelf.put_back(segment)

    def _refuse(self, segment: Stored, path: Path, error: OSError) -> None:
        if not self.stuck:
            self._again_at = time.monotonic() + STUCK
        self.stuck.append(segment)
        self._refusals += 1
        if path not in self._told and len(self._told) < _MOST_TOLD:
            self._told.add(path)
            self._report("segment_stuck", f"{path}: cannot be removed: {error.strerror}")
        if self._refusals >= PATIENT:
            self._refusals = 0
            self._resting_until = time.monotonic() + RESIST
