"""Packets to flows: those that have everything in common become one row.

Packets are brought together by sorting, on numbers that pack what makes a flow. Sorting is by a hash of it, with the
packet's own number in the lower bits: one pass over plain integers, after which the packets of a flow stand together
in the order in which they came. The hash decides about the order alone: where a flow ends, the values themselves say.
"""

from __future__ import annotations

import dataclasses
import secrets
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.workers.index.model import Chunk, Flows, stretches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from agent.workers.index.headers import Packets

_BITS = 20
MOST = 1 << _BITS
"""Packets or rows that are grouped at a time: their numbers take the lower bits of what is sorted."""

_KEYS = np.array([secrets.randbits(64) | 1 for _ in range(8)], np.uint64)
"""Odd factors that nobody else knows: who could choose addresses that collide could make flows fall apart."""


def group(packets: Packets) -> tuple[Flows, NDArray[np.uint32]]:
    """The flows of up to ``MOST`` packets, and the places of these: flow by flow, in the order of ``packets``."""
    order, begins = _together(
        _words(packets, packets.source, packets.destination, packets.source_high, packets.destination_high)
    )
    firsts = order[begins]
    time = packets.time[order]
    source, destination, addresses = _addresses(
        packets.source[firsts],
        packets.destination[firsts],
        None if packets.source_high is None else packets.source_high[firsts],
        None if packets.destination_high is None else packets.destination_high[firsts],
    )
    flows = Flows(
        addresses=addresses,
        source=source,
        destination=destination,
        **{name: getattr(packets, name)[firsts] for name in _SAME},
        tcp_flags=np.bitwise_or.reduceat(packets.tcp_flags[order], begins),
        first=np.minimum.reduceat(time, begins),
        last=np.maximum.reduceat(time, begins),
        packets=np.diff(begins, append=len(order)).astype(np.uint32),
        octets=np.add.reduceat(packets.wire[order], begins, dtype=np.uint64),
    )
    return flows, packets.place[order].astype(np.uint32)


def merge(chunks: Sequence[Chunk]) -> list[Chunk]:
    """Chunks that follow each other in a segment as fewer, with one row for what are rows of one flow in each."""
    merged: list[Chunk] = []
    run: list[Chunk] = []
    for chunk in chunks:
        if run and not _fits(run, chunk):
            merged.append(_merged(run))
            run = []
        run.append(chunk)
    return [*merged, _merged(run)] if run else merged


def _fits(run: Sequence[Chunk], chunk: Chunk) -> bool:
    rows = sum(len(each.flows) for each in run) + len(chunk.flows)
    near = chunk.end - run[0].begin < 1 << 32
    return chunk.begin == run[-1].end and chunk.link_type == run[0].link_type and rows <= MOST and near


def _merged(run: Sequence[Chunk]) -> Chunk:
    if len(run) == 1:
        return run[0]
    base = run[0].begin

    def column(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(chunk.flows, name) for chunk in run])

    tables = np.concatenate([chunk.flows.addresses for chunk in run])
    shifts = np.cumsum([0, *(len(chunk.flows.addresses) for chunk in run[:-1])])
    source, destination = (
        np.concatenate([getattr(chunk.flows, name) + shift for chunk, shift in zip(run, shifts, strict=True)])
        for name in ("source", "destination")
    )
    addresses, rows = unique_addresses(tables[:, 0], tables[:, 1])
    source, destination = rows[source].astype(np.uint64), rows[destination].astype(np.uint64)
    columns = _Rows(**{name: column(name) for name in _Rows.__slots__})
    order, begins = _together(_words(columns, source, destination, None, None))
    firsts = order[begins]
    packets = column("packets")
    flows = Flows(
        addresses=addresses,
        source=source[firsts].astype(np.uint32),
        destination=destination[firsts].astype(np.uint32),
        **{name: getattr(columns, name)[firsts] for name in _SAME},
        tcp_flags=np.bitwise_or.reduceat(column("tcp_flags")[order], begins),
        first=np.minimum.reduceat(column("first")[order], begins),
        last=np.maximum.reduceat(column("last")[order], begins),
        packets=np.add.reduceat(packets[order], begins, dtype=np.uint32),
        octets=np.add.reduceat(column("octets")[order], begins, dtype=np.uint64),
    )

    def places(name: str) -> NDArray[np.uint32]:
        return np.concatenate([getattr(chunk, name) + np.uint32(chunk.begin - base) for chunk in run])

    return Chunk(
        begin=base,
        end=run[-1].end,
        link_type=run[0].link_type,
        first=min((chunk.first for chunk in run if chunk.packets), default=0),
        last=max(chunk.last for chunk in run),
        packets=sum(chunk.packets for chunk in run),
        octets=sum(chunk.octets for chunk in run),
        cut=sum(chunk.cut for chunk in run),
        flows=flows,
        offsets=places("offsets")[stretches(packets, order)],
        marks=places("marks"),
        mark_first=np.concatenate([chunk.mark_first for chunk in run]),
        mark_last=np.concatenate([chunk.mark_last for chunk in run]),
    )


_SAME = (
    *("source_port", "destination_port", "ethertype", "vlan", "inner_vlan"),
    *("family", "protocol", "tags", "quirks"),
)
"""Columns that all packets of a flow have in common, besides the addresses."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Rows:
    """These columns, of rows of several tables."""

    source_port: NDArray[np.uint16]
    destination_port: NDArray[np.uint16]
    ethertype: NDArray[np.uint16]
    vlan: NDArray[np.uint16]
    inner_vlan: NDArray[np.uint16]
    family: NDArray[np.uint8]
    protocol: NDArray[np.uint8]
    tags: NDArray[np.uint8]
    quirks: NDArray[np.uint8]


def _words(
    columns: Packets | _Rows,
    source: NDArray[np.uint64],
    destination: NDArray[np.uint64],
    source_high: NDArray[np.uint64] | None,
    destination_high: NDArray[np.uint64] | None,
) -> list[NDArray[np.uint64]]:
    """What makes a flow, packed into as few numbers of 64 bits as hold it here. Without the upper halves of addresses,
    the lower ones are of 32 bits.
    """
    words = [
        columns.source_port.astype(np.uint64) << np.uint64(48)
        | columns.destination_port.astype(np.uint64) << np.uint64(32)
        | columns.ethertype.astype(np.uint64) << np.uint64(16)
        | columns.protocol.astype(np.uint64) << np.uint64(8)
        | columns.family.astype(np.uint64) << np.uint64(5)
        | columns.quirks.astype(np.uint64)
    ]
    if source_high is None or destination_high is None:
        words.append(source << np.uint64(32) | destination)
    else:
        words += [source, destination, source_high, destination_high]
    if columns.tags.any():
        words.append(
            columns.tags.astype(np.uint64) << np.uint64(32)
            | columns.vlan.astype(np.uint64) << np.uint64(16)
            | columns.inner_vlan.astype(np.uint64)
        )
    return words


def _together(words: Sequence[NDArray[np.uint64]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """An order in which equal rows stand together, each kind in its own order, and where in it each kind begins."""
    mixed = np.zeros(len(words[0]), np.uint64)
    for word, key in zip(words, _KEYS, strict=False):
        mixed ^= word
        mixed *= key
        mixed ^= mixed >> np.uint64(29)
    mixed *= _KEYS[-1]
    mixed &= ~np.uint64(MOST - 1)
    mixed |= np.arange(len(mixed), dtype=np.uint64)
    mixed.sort()
    order = (mixed & np.uint64(MOST - 1)).astype(np.int64)
    fresh = np.zeros(len(order), np.bool_)
    fresh[:1] = True
    for word in words:
        sorted_word = word[order]
        fresh[1:] |= sorted_word[1:] != sorted_word[:-1]
    return order, np.flatnonzero(fresh)


def _addresses(
    source: NDArray[np.uint64],
    destination: NDArray[np.uint64],
    source_high: NDArray[np.uint64] | None,
    destination_high: NDArray[np.uint64] | None,
) -> tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.uint64]]:
    """Sources and destinations as rows of a table of addresses, and that table."""
    low = np.concatenate([source, destination])
    high = None if source_high is None or destination_high is None else np.concatenate([source_high, destination_high])
    table, rows = unique_addresses(high, low)
    half = len(source)
    return rows[:half].astype(np.uint32), rows[half:].astype(np.uint32), table


def unique_addresses(
    high: NDArray[np.uint64] | None, low: NDArray[np.uint64]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The distinct addresses in ascending order, shape (n, 2), and for each given one its row in there.

    Fewer than 2^31 may be given. ``None`` for the upper halves: all are 0, and of the lower ones no more than 32 bits
    are used.
    """
    if high is None:
        known, rows = _unique_short(low)
        return _table(np.zeros_like(known), known), rows
    wide = (high != 0) | (low >> _HALF != 0)
    long, short = np.flatnonzero(wide), np.flatnonzero(~wide)
    rows = np.empty(len(low), np.int64)
    known, rows[short] = _unique_short(low[short])
    table, rows_long = _unique_long(high[long], low[long])
    rows[long] = rows_long + len(known)
    return np.concatenate([_table(np.zeros_like(known), known), table]), rows


_HALF = np.uint64(32)
_LOWER = np.uint64(0xFFFFFFFF)


def _table(high: NDArray[np.uint64], low: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return np.column_stack([high, low])


def _unique_short(values: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Of numbers of 32 bits: to sort plain integers, each with its place in the lower half, is quickest."""
    packed = values << _HALF
    packed |= np.arange(len(values), dtype=np.uint64)
    packed.sort()
    order = (packed & _LOWER).astype(np.int64)
    packed >>= _HALF
    return _numbered(order, _fresh(packed), packed)


def _unique_long(high: NDArray[np.uint64], low: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Of numbers of 128 bits: what is equal is brought together first, so that few are left to be put in order."""
    mixed = high * _KEYS[0]
    mixed ^= mixed >> np.uint64(29)
    mixed ^= low
    mixed *= _KEYS[1]
    bits = np.uint64(max(1, len(low).bit_length()))
    mixed &= ~((np.uint64(1) << bits) - np.uint64(1))
    mixed |= np.arange(len(low), dtype=np.uint64)
    mixed.sort()
    order = (mixed & ((np.uint64(1) << bits) - np.uint64(1))).astype(np.int64)
    high, low = high[order], low[order]
    _, some = _numbered(order, fresh := _fresh(high) | _fresh(low), low)
    high, low = high[fresh], low[fresh]
    ascending = np.lexsort((low, high))
    high, low = high[ascending], low[ascending]
    fresh = _fresh(high) | _fresh(low)  # what collided in the hash may be there twice
    _, rows = _numbered(ascending, fresh, low)
    return _table(high[fresh], low[fresh]), rows[some]


def _fresh(ordered: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Where another value begins."""
    fresh = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=fresh[1:])
    return fresh


def _numbered(
    order: NDArray[np.int64], fresh: NDArray[np.bool_], ordered: NDArray[np.uint64]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The distinct values, and for each of the unordered ones which of these it is."""
    rows = np.empty(len(order), np.int64)
    rows[order] = np.cumsum(fresh) - 1
    return ordered[fresh], rows
