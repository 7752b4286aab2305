"""Count rows of an index anew, from some of their packets: those in a range of time, those that a filter lets pass.

A row tells when its first and last packet were and how many there are, not when each was. That is read from the headers
of their records in the segment: 16 bytes each, found by the offsets in the index.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.workers.capture.savefile import RECORD_HEADER, Format
from agent.workers.flows.table import Table
from agent.workers.index.model import Chunk

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]
    Rows = NDArray[np.intp]
    U8 = NDArray[np.uint64]

Stamps = Callable[[Any], tuple[Any, Any]]
"""Offsets of records, counted from the chunk's begin -> their timestamps in nanoseconds, their lengths on the wire."""

AT_ONCE = 1 << 18
"""Packets whose headers are looked at in one go: 4 MiB of them."""


def stamps(data: Any, form: Format, begin: int) -> Stamps:
    """A reader of record headers in ``data``, the bytes of a segment (an array of uint8), for a chunk at ``begin``.

    An offset whose record is not there any more, because the file is shorter than its index says, has length 0 and the
    timestamp 0.
    """
    lane = np.arange(RECORD_HEADER)
    kind = np.dtype(form.order + "u4")

    def read(offsets: Any) -> tuple[Any, Any]:
        times, lengths = np.zeros(len(offsets), np.uint64), np.zeros(len(offsets), np.uint64)
        for start in range(0, len(offsets), AT_ONCE):
            places = offsets[start : start + AT_ONCE].astype(np.int64) + begin
            there = places + RECORD_HEADER <= len(data)
            headers = data[places[there][:, None] + lane].view(kind)
            block = np.flatnonzero(there) + start
            times[block] = headers[:, 0].astype(np.uint64) * np.uint64(1_000_000_000)
            times[block] += headers[:, 1].astype(np.uint64) * np.uint64(form.unit)
            lengths[block] = headers[:, 3]
        return times, lengths

    return read


def packets_of(chunk: Chunk, rows: Rows) -> tuple[Rows, Any]:
    """Of each packet of these rows: the position of its row in ``rows``, and its offset."""
    counts = chunk.flows.packets[rows].astype(np.int64)
    starts = np.cumsum(chunk.flows.packets, dtype=np.int64)[rows] - counts
    whose = np.repeat(np.arange(len(rows)), counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return whose, chunk.offsets[np.repeat(starts, counts) + within]


def recounted(table: Table, whose: Rows, times: U8, lengths: U8) -> Table:
    """The rows of ``table`` as these packets alone make them; rows without any are left out.

    ``whose`` says to which row each packet belongs. Flags of TCP stay those of the whole row.
    """
    order = np.argsort(whose, kind="stable")
    whose, times, lengths = whose[order], times[order], lengths[order]
    if not len(whose):
        return table[:0]
    starts = np.flatnonzero(np.concatenate(([True], whose[1:] != whose[:-1])))
    ends = np.append(starts[1:], len(whose))
    return replace(
        table[whose[starts]],
        first=np.minimum.reduceat(times, starts),
        last=np.maximum.reduceat(times, starts),
        packets=(ends - starts).astype(np.uint64),
        octets=np.add.reduceat(lengths, starts),
    )


def within(chunk: Chunk, table: Table, read: Stamps, begin: int, end: int, kept: Rows | None = None) -> Table:
    """The rows of ``chunk`` (``table``: the same rows) as the packets of ``begin <= time < end`` make them. Exact.

    ``kept``: offsets, ascending, outside of which no packet counts; ``None``: all do. Only rows that are cut are
    counted anew.
    """
    first, last = table.first, table.last
    whole = (first >= np.uint64(begin)) & (last < np.uint64(end))
    if kept is not None:
        whole[:] = False
    cut = ~whole & (first < np.uint64(end)) & (last >= np.uint64(begin))
    if not cut.any():
        return table[whole]
    rows = np.flatnonzero(cut)
    whose, offsets = packets_of(chunk, rows)
    if kept is not None:
        chosen = np.isin(offsets, kept)
        whose, offsets = whose[chosen], offsets[chosen]
    times, lengths = read(offsets)
    inside = (times >= np.uint64(begin)) & (times < np.uint64(end))
    anew = recounted(table[rows], whose[inside], times[inside], lengths[inside])
    return _both(table[whole], anew)


def _both(one: Table, other: Table) -> Table:
    from agent.workers.flows.table import together

    return together([one, other])
