"""Count rows of an index anew, from some of their packets: those in a range of time, those that a filter lets pass.

A row tells when its first and last packet were and how many there are, not when each was. That is read from the headers
of their records in the segment: 16 bytes each, found by the offsets in the index.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from agent.workers.capture.savefile import RECORD_HEADER, Format
from agent.workers.flows.table import Table, together
from agent.workers.index.model import Chunk, stretches

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]
    Rows = NDArray[np.intp]
    U8 = NDArray[np.uint64]

Stamps = Callable[[Any], tuple[Any, Any]]
"""Offsets of records, counted from the chunk's begin -> their timestamps in nanoseconds, their lengths on the wire."""

WINDOW = 4 * 1024 * 1024
"""Bytes of a segment that are read at a time."""

SPARSE = 64
"""So few packets in a window are read one by one."""

_LANE = np.arange(RECORD_HEADER)


def stamps(fd: int, form: Format, begin: int) -> Stamps:
    """A reader of record headers of the segment that is open as ``fd``, for a chunk at ``begin``.

    Bytes are read, not mapped: a file may be cut short meanwhile. A record that is not there any more has length 0.
    """
    kind = np.dtype(form.order + "u4")

    def read(offsets: Any) -> tuple[Any, Any]:
        times, lengths = np.zeros(len(offsets), np.uint64), np.zeros(len(offsets), np.uint64)
        order = np.argsort(offsets, kind="stable")
        places = offsets[order].astype(np.int64) + begin
        at = 0
        while at < len(places):
            # All that begin within a window, unless they are so few that each is better read by itself.
            upto = int(np.searchsorted(places, places[at] + WINDOW))
            step = upto - at if upto - at > SPARSE else 1
            first, last = int(places[at]), int(places[at + step - 1])
            data = np.frombuffer(os.pread(fd, last - first + RECORD_HEADER, first), np.uint8)
            there = places[at : at + step] - first
            there = there[there + RECORD_HEADER <= len(data)]
            headers = data[there[:, None] + _LANE].view(kind)
            which = order[at : at + len(there)]
            times[which] = headers[:, 0].astype(np.uint64) * np.uint64(1_000_000_000)
            times[which] += headers[:, 1].astype(np.uint64) * np.uint64(form.unit)
            lengths[which] = headers[:, 3]
            at += step
        return times, lengths

    return read


def packets_of(chunk: Chunk, rows: Rows) -> tuple[Rows, Any]:
    """Of each packet of these rows: the position of its row in ``rows``, and its offset."""
    whose = np.repeat(np.arange(len(rows)), chunk.flows.packets[rows])
    return whose, chunk.offsets[stretches(chunk.flows.packets, rows)]


class Chosen(NamedTuple):
    """What of a chunk counts: rows that ``must`` do whole, of others that ``may`` the packets at ``offsets``."""

    may: Mask
    must: Mask
    offsets: Any


def within(
    chunk: Chunk,
    table: Table,
    read: Stamps,
    begin: int,
    end: int,
    *,
    gap: int | None = None,
    chosen: Chosen | None = None,
) -> Table:
    """The rows of ``chunk`` (``table``: the same rows) as their packets of ``begin <= time <= end`` make them. Exact.

    With ``gap`` (nanoseconds) a row is cut in two wherever it was silent for longer. ``chosen`` says what of the rows
    counts; ``None``: all. Where a row comes out as it is, it is not counted anew.
    """
    first, last = table.first, table.last
    touched = (first <= np.uint64(end)) & (last >= np.uint64(begin))
    if chosen is not None:
        touched &= chosen.may
    anew = touched & ((first < np.uint64(begin)) | (last > np.uint64(end)))
    if gap is not None:
        anew |= touched & (table.packets > 1) & (last - np.minimum(first, last) > np.uint64(gap))
    if chosen is not None:
        anew |= touched & ~chosen.must
    if not anew.any():
        return table[touched]
    rows = np.flatnonzero(anew)
    whose, offsets = packets_of(chunk, rows)
    if chosen is not None:
        counts = chosen.must[rows][whose] | np.isin(offsets, chosen.offsets)
        whose, offsets = whose[counts], offsets[counts]
    times, lengths = read(offsets)
    inside = (times >= np.uint64(begin)) & (times <= np.uint64(end)) & (lengths > 0)
    pieces = _pieces(table[rows], whose[inside], times[inside], lengths[inside], gap)
    return together([table[touched & ~anew], pieces])


def _pieces(table: Table, whose: Rows, times: U8, lengths: U8, gap: int | None) -> Table:
    """The rows of ``table`` as these packets alone make them; ``whose`` says to which row each belongs.

    Flags of TCP stay those of the whole row.
    """
    if not len(whose):
        return table[:0]
    order = np.lexsort((times, whose))
    whose, times, lengths = whose[order], times[order], lengths[order]
    new = np.concatenate(([True], whose[1:] != whose[:-1]))
    if gap is not None:
        new[1:] |= times[1:] - times[:-1] > np.uint64(gap)
    starts = np.flatnonzero(new)
    return replace(
        table[whose[starts]],
        first=times[starts],
        last=np.maximum.reduceat(times, starts),
        packets=np.diff(np.append(starts, len(whose))).astype(np.uint64),
        octets=np.add.reduceat(lengths, starts),
    )
