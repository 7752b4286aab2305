"""Packets of many pieces in the order of time, with no more of them in memory than overlap.

What is known only by the time its packets lie in waits in a heap until that time has come; what has been read waits in
another, by its next packet. Packets of the same instant come in the order of their segments and as they stand there.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from agent.workers.retrieval.search import Batch, Piece, Stretch


class Run(NamedTuple):
    """Packets ``begin`` up to ``end``, not included, of a batch: nothing else comes between them."""

    batch: Batch
    begin: int
    end: int


def merge(parts: Iterable[Stretch | Piece], batch: Callable[[Piece], Batch | None]) -> Iterator[Run]:
    """All packets of all parts, ascending. ``parts`` come in the order of their segments; ``batch`` opens a piece."""
    waiting: list[tuple[int, tuple[int, ...], Stretch | Piece]] = [
        (part.first, (number,), part) for number, part in enumerate(parts)
    ]
    heapq.heapify(waiting)
    opened: list[tuple[int, tuple[int, ...], int, Batch]] = []
    while waiting or opened:
        while waiting and (not opened or waiting[0][0] <= opened[0][0]):
            _, rank, part = heapq.heappop(waiting)
            if isinstance(part, Stretch):
                for number, piece in enumerate(part.pieces()):
                    heapq.heappush(waiting, (piece.first, (*rank, number), piece))
            elif (found := batch(part)) is not None:
                heapq.heappush(opened, (found.times[0], rank, 0, found))
        if opened:
            _, rank, begin, first = heapq.heappop(opened)
            end = _until(first, begin, opened[0][0] if opened else None, waiting[0][0] if waiting else None)
            yield Run(first, begin, end)
            if end < len(first.times):
                heapq.heappush(opened, (first.times[end], rank, end, first))


def _until(batch: Batch, begin: int, other: int | None, unknown: int | None) -> int:
    """Up to which packet nothing else comes in between; at least one."""
    bounds = [bound for bound in (other, unknown) if bound is not None]
    if not bounds:
        return len(batch.times)
    return max(begin + 1, bisect_left(batch.times, min(bounds), begin))
