"""How much a store holds of which time, for those who ask: sizes and ends of its segments. Nothing is changed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from agent.workers.capture.adoption import SLACK
from agent.workers.capture.catalogue import segments
from agent.workers.capture.retention import Stored


class Held(NamedTuple):
    """How many segments, and the bytes of all their files; ``since`` is when the oldest begins (``None``: of none)."""

    segments: int
    bytes: int
    since: int | None


def stock(directory: Path) -> list[Stored]:
    """All segments of a store, oldest first, those that are still written included. Raises ``StorageFailure``."""
    found: list[Stored] = []
    for segment in segments(directory):
        try:
            status = segment.path.stat(follow_symlinks=False)
        except OSError:  # closed under its name, or removed, since
            continue
        size = status.st_size
        for beside in (segment.account, segment.index):
            try:
                size += beside.stat(follow_symlinks=False).st_size
            except OSError:
                continue
        end = max(segment.begin, status.st_mtime_ns + SLACK)
        found.append(Stored(segment.begin, segment.interface, end, size, segment.closed and segment.indexed))
    return found


def held(found: Iterable[Stored]) -> Held:
    """These segments together."""
    kept = list(found)
    return Held(len(kept), sum(one.size for one in kept), min((one.begin for one in kept), default=None))


def within(found: Iterable[Stored], begin: int, end: int) -> list[Stored]:
    """Those of them that may hold a packet of ``begin..end``, nanoseconds since the epoch."""
    return [one for one in found if one.begin <= end and one.end >= begin]
