"""The closed segments of a store in the order in which they go, and those of them that wait for an index.

The order is that of time, as far as clocks tell. Where one was set back, what was closed before goes before what was
closed after, whatever their names say: else packets of a clock that was a year ahead would stay for that year, and all
that is captured now would go first. Of what a start finds nobody knows when it was closed. There the same is done with
what begins more than ``FAR`` ahead, and all of it goes before what is captured from then on.
"""

from __future__ import annotations

import time
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from agent.workers.capture.adoption import Report
from agent.workers.capture.catalogue import INDEX
from agent.workers.capture.naming import CLOSED, segment_name
from agent.workers.capture.retention import Stored
from agent.workers.capture.steps import SLACK

LOOKS = 64
"""Segments whose index is looked for at one time: an index that is long in coming must not cost packets."""

_DAY = 86_400 * 1_000_000_000

FAR = _DAY
"""Nanoseconds."""

_AHEAD, _FOUND, _FIRST = range(3)


class Shelf:
    """Closed segments below ``directory``. Sizes are bytes, instants nanoseconds since the epoch."""

    def __init__(self, directory: Path, report: Report) -> None:
        self._directory = directory
        self._report = report
        self._order: list[Stored] = []
        self._known: set[tuple[int, str]] = set()
        self._waiting: dict[tuple[int, str], Stored] = {}
        self._era = _FIRST
        #: Of all segments, and of those that have no index.
        self.bytes = self.waiting_bytes = 0

    def __iter__(self) -> Iterator[Stored]:
        return iter(self._order)

    def __len__(self) -> int:
        return len(self._order)

    @property
    def in_order(self) -> Sequence[Stored]:
        """All of them, the first that is to go first. Not to be changed."""
        return self._order

    @property
    def waiting(self) -> int:
        """How many have no index."""
        return len(self._waiting)

    def path(self, segment: Stored) -> Path:
        """Where the packets are."""
        return self._directory / segment.interface / segment_name(segment.begin, CLOSED)

    def oldest(self, now: int) -> int | None:
        """When the first begins that is not ahead of ``now``."""
        return next((one.begin for one in self._order if one.begin <= now + SLACK), None)

    def find(self, segments: Iterable[Stored], now: int) -> None:
        """Take in what was there before we were. What is so far ahead that it goes first is told."""
        ahead = []
        for segment in segments:
            if segment.begin > now + FAR:
                ahead.append(segment)
            self.put_back(_noticed(replace(segment, rank=_AHEAD if segment.begin > now + FAR else _FOUND), now))
        self._tell(ahead, now)

    def add(self, segment: Stored, now: int) -> None:
        """Take one in that has just been closed."""
        before = segment.begin > now + SLACK  # the clock was set back since it was opened
        self.put_back(_noticed(replace(segment, rank=self._era - before), now))

    def put_back(self, segment: Stored) -> None:
        """Take one in where it was before."""
        insort(self._order, segment, key=_key)
        self._known.add((segment.begin, segment.interface))
        self.bytes += segment.size
        if not segment.indexed:
            self._waiting[segment.begin, segment.interface] = segment
            self.waiting_bytes += segment.size

    def take(self, segment: Stored) -> None:
        """Take away one that is there, and has an index."""
        del self._order[self._place(segment)]
        self._known.discard((segment.begin, segment.interface))
        self.bytes -= segment.size

    def knows(self, begin: int, interface: str) -> bool:
        """Whether there is this one."""
        return (begin, interface) in self._known

    def set_back(self, now: int) -> None:
        """The clock was set back to ``now``: what comes goes after all that there is. What is ahead of it is told."""
        self._era += 1
        self._order = [_noticed(segment, now) for segment in self._order]
        for key, segment in self._waiting.items():
            self._waiting[key] = _noticed(segment, now)
        self._tell([segment for segment in self._order if segment.begin > now + SLACK], now)

    def _tell(self, ahead: Sequence[Stored], now: int) -> None:
        if ahead:
            number = "1 segment is" if len(ahead) == 1 else f"{len(ahead)} segments are"
            days = (max(segment.end for segment in ahead) - now) / _DAY
            self._report(
                "clock_ahead",
                f"{number} up to {days:.3g} days ahead of the clock, which was wrong when they were captured, or is "
                "now: they go before what is captured from now on",
            )

    def look_for_indexes(self, size: Callable[[Path], int | None]) -> list[Path]:
        """Take note of indexes that have appeared, of some segments at a time; returns the segments.

        ``size`` tells how large a file is, and ``None`` when it is not there.
        """
        found = []
        for key, segment in list(islice(self._waiting.items(), LOOKS)):
            path = self.path(segment)
            del self._waiting[key]  # the others come first, next time
            index = size(path.with_suffix(INDEX))  # an empty one says that none could be made
            if index is None:
                self._waiting[key] = segment
                continue
            self.waiting_bytes -= segment.size
            self._order[self._place(segment)] = replace(segment, size=segment.size + index, indexed=True)
            self.bytes += index
            found.append(path)
        return found

    def _place(self, segment: Stored) -> int:
        place = bisect_left(self._order, _key(segment), key=_key)
        if _key(self._order[place]) != _key(segment):
            raise KeyError(segment)
        return place


def _key(segment: Stored) -> tuple[int, int, str]:
    return segment.rank, segment.begin, segment.interface


def _noticed(segment: Stored, now: int) -> Stored:
    """With the instant from which the age counts of what is ahead of the clock: nobody knows it better."""
    if segment.noticed is not None or segment.end <= now + 2 * SLACK:
        return segment
    return replace(segment, noticed=time.monotonic_ns())
