"""Which segments of an interface were sent, by the instants in their names: exact, and bounded. Pure.

Segments do not end in the order in which they begin: those of a fan-out overlap, an index may have to be made again,
and a clock may be set back. So what was sent last is remembered one by one; what lies further back is told by one
instant, up to which all was sent but for what is named as missing.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable

import msgspec

KEPT = 1024
"""So many that were sent last are remembered one by one, whatever becomes of them."""

MOST = 16_384
"""So many at most, while a segment that began before them goes on. Of what is missing, too."""

SLACK = 60 * 1_000_000_000
"""Nanoseconds that a segment may begin, by its first packet, before it was opened."""


class Sent(msgspec.Struct):
    """What was sent of one interface. Instants are nanoseconds since the epoch; the lists ascend.

    ``upto``: what begins there or before was sent, unless it is ``missing``. ``beyond``: what was sent of the rest.
    """

    upto: int = -1
    beyond: list[int] = []
    missing: list[int] = []

    def has(self, begin: int) -> bool:
        """Whether the segment that begins there was sent."""
        return not _in(self.missing, begin) if begin <= self.upto else _in(self.beyond, begin)

    def expect(self, begin: int) -> int:
        """A segment that is new, so was not sent, wherever it begins; returns how many are given up for want of room:
        those that have been missing for the longest time.
        """
        if begin > self.upto:  # one that bore its name before, and is gone, may have been sent
            if _in(self.beyond, begin):
                self.beyond.remove(begin)
        elif not _in(self.missing, begin):
            insort(self.missing, begin)
        over = max(0, len(self.missing) - MOST)
        del self.missing[:over]
        return over

    def add(self, begin: int) -> None:
        """It was sent, or is gone."""
        if begin > self.upto:
            if not _in(self.beyond, begin):
                insort(self.beyond, begin)
        elif _in(self.missing, begin):
            self.missing.remove(begin)

    def settle(self, unfinished: int | None, waiting: Iterable[int]) -> int:
        """Forget what need not be remembered one by one; returns how many are given up for want of room.

        ``unfinished``: when the first one began that is still written or has no index. ``waiting``: those that are to
        be sent yet.
        """
        before = self.upto
        while len(self.beyond) > KEPT:
            forced = len(self.beyond) > MOST
            if not forced and unfinished is not None and self.beyond[0] > unfinished - SLACK:
                break
            self.upto = self.beyond.pop(0)
        if self.upto == before:
            return 0
        return sum([self.expect(begin) for begin in waiting if before < begin <= self.upto])


def _in(ascending: list[int], value: int) -> bool:
    place = bisect_left(ascending, value)
    return place < len(ascending) and ascending[place] == value
