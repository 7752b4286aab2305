"""Which segments go, and when. Pure.

Three things are held at once: the declared ``budget``, the part of the file system that is to stay free, and the age at
which packets are no longer wanted. What goes, goes oldest first, in the order that ``shelf`` gives; of what a pin keeps
nothing goes for its age, and for room only when nothing else is left. A segment without an index is never removed,
whatever the reason: nobody has been able to ask for its packets by what is in them yet.

Sizes are bytes, instants nanoseconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass(frozen=True, slots=True, order=True)
class Stored:
    """One closed segment, with all its files. Orders by its name.

    ``begin`` is the instant in its name; no packet in it is later than ``end``. ``size`` is what its files take. Those
    of a lower ``rank`` go first. ``noticed`` is when it was found to be ahead of the clock, in nanoseconds of one that
    only runs forward.
    """

    begin: int
    interface: str
    end: int
    size: int
    indexed: bool
    rank: int = field(default=0, compare=False)
    noticed: int | None = field(default=None, compare=False)


class Limits(NamedTuple):
    """What is declared: ``free_bytes`` and ``free_share`` of the file system (0 to 1) are to stay free, whichever is
    more; ``max_age`` is in nanoseconds.
    """

    budget: int
    free_bytes: int = 0
    free_share: float = 0.0
    max_age: int | None = None


class Disk(NamedTuple):
    """What a file system says of itself: bytes that an ordinary user may still write, and all that it has."""

    free: int
    total: int


class Plan(NamedTuple):
    """``aged`` go for their age, ``going`` for room, and ``broken`` for room although they are pinned.

    ``short`` bytes are missing even then. ``waiting`` segments would have gone before others that did, or could have
    helped, and have no index.
    """

    aged: list[Stored]
    going: list[Stored]
    broken: list[Stored]
    short: int
    waiting: int


class Room(NamedTuple):
    """How many more bytes the budget and the disk would take; negative when they hold too much already."""

    budget: int
    disk: int

    @property
    def bytes(self) -> int:
        """How many both would."""
        return min(self)


def reserve(limits: Limits, disk: Disk) -> int:
    """How many bytes of this disk are to stay free."""
    return max(limits.free_bytes, int(disk.total * limits.free_share))


def room(limits: Limits, disk: Disk, used: int) -> Room:
    """What may still be written when segments take ``used`` bytes."""
    return Room(limits.budget - used, disk.free - reserve(limits, disk))


def owed(limits: Limits, disk: Disk, used: int, lent: int, lent_used: int) -> int:
    """How many bytes of this disk are to be left to others, to whom ``lent`` bytes are, ``lent_used`` of them written.

    Not more than half of what there would be without the ``used`` bytes of segments: a disk may be smaller than the
    budget.
    """
    whole = disk.free - reserve(limits, disk) + used + lent_used
    return max(0, min(lent, whole // 2) - lent_used)


def plan(
    oldest_first: Sequence[Stored],
    limits: Limits,
    disk: Disk,
    used: int,
    want: int,
    now: int,
    pinned: Callable[[Stored], bool],
    steady: int = 0,
) -> Plan:
    """What goes at ``now`` so that ``want`` more bytes may be written, of a store that takes ``used``.

    All that is too old goes, and then the fewest of the oldest that make enough room. What is ahead of the clock is as
    old as was noticed: ``steady`` is now, by that other clock.
    """
    aged = [] if limits.max_age is None else list(_outdated(oldest_first, now, steady, limits.max_age, pinned))
    need = want - room(limits, disk, used).bytes - sum(segment.size for segment in aged)
    going: list[Stored] = []
    kept: list[Stored] = []
    waiting = 0
    gone = set(aged)
    for segment in oldest_first:
        if need <= 0:
            break
        if segment in gone:
            continue
        if not segment.indexed:
            waiting += 1
        elif pinned(segment):
            kept.append(segment)
        else:
            going.append(segment)
            need -= segment.size
    broken: list[Stored] = []
    for segment in kept:
        if need <= 0:
            break
        broken.append(segment)
        need -= segment.size
    return Plan(aged, going, broken, max(0, need), waiting)


def _outdated(
    oldest_first: Iterable[Stored], now: int, steady: int, most: int, pinned: Callable[[Stored], bool]
) -> Iterator[Stored]:
    for segment in oldest_first:
        if now - most <= segment.begin <= now:  # and none ends before it begins, nor was any behind it closed earlier
            return
        if segment.end <= now:
            old = segment.end < now - most
        else:
            old = segment.noticed is not None and segment.noticed < steady - most
        if old and segment.indexed and not pinned(segment):
            yield segment
