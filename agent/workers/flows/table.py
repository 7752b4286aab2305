"""Flows of many chunks as one table: made of the rows of indexes, joined where they are of the same flow.

A flow has one direction here, as in the index. Two rows are of one flow when they have the same addresses, ports,
protocol and VLANs, were seen on the same interface, and agree on whether they were decoded (``ODD``) and whether they
are later fragments, which have no ports.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.workers.index.model import LATER_FRAGMENT, ODD, Flows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    U2 = NDArray[np.uint16]
    U8 = NDArray[np.uint64]
    Places = NDArray[np.intp]

COLUMNS = 6
"""Of a key: source (2), destination (2), ``_ENDS``, ``_KIND``."""

MOST_ORIGINS = 65536
"""Interfaces that one table can tell apart."""

_SEEDS = np.array([secrets.randbits(64) for _ in range(COLUMNS)], np.uint64)
"""Nobody outside can make keys that all have one hash. (They would only be slow: hashes are never believed.)"""

_ODD_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_KEPT_QUIRKS = ODD | LATER_FRAGMENT


@dataclass(frozen=True, slots=True)
class Table:
    """Flows, by column.

    ``key``, shape (n, 6), is what makes a flow: source and destination (upper and lower 64 bits), ports with ethertype
    and VLAN in one number, and inner VLAN with tags, family, protocol, quirks and origin in another. ``origin`` is a
    number that stands for the interface. ``tcp_flags`` are or-ed, ``first`` and ``last`` nanoseconds since the epoch,
    ``packets`` and ``octets`` (on the wire, link header included) sums.
    """

    key: U8
    tcp_flags: U2
    first: U8
    last: U8
    packets: U8
    octets: U8

    def __len__(self) -> int:
        return len(self.first)

    def __getitem__(self, rows: Any) -> Table:
        """These rows: a mask, an array of row numbers, or a slice."""
        return Table(
            self.key[rows],
            self.tcp_flags[rows],
            self.first[rows],
            self.last[rows],
            self.packets[rows],
            self.octets[rows],
        )

    @property
    def source(self) -> U8:
        """Shape (n, 2)."""
        return self.key[:, 0:2]

    @property
    def destination(self) -> U8:
        """Shape (n, 2)."""
        return self.key[:, 2:4]

    @property
    def source_port(self) -> U8:
        """As ``Flows.source_port``."""
        return _part(self.key[:, 4], 48, 16)

    @property
    def destination_port(self) -> U8:
        """As ``Flows.destination_port``."""
        return _part(self.key[:, 4], 32, 16)

    @property
    def ethertype(self) -> U8:
        """As ``Flows.ethertype``."""
        return _part(self.key[:, 4], 16, 16)

    @property
    def vlan(self) -> U8:
        """As ``Flows.vlan``."""
        return _part(self.key[:, 4], 0, 16)

    @property
    def inner_vlan(self) -> U8:
        """As ``Flows.inner_vlan``."""
        return _part(self.key[:, 5], 48, 16)

    @property
    def tags(self) -> U8:
        """As ``Flows.tags``."""
        return _part(self.key[:, 5], 40, 8)

    @property
    def family(self) -> U8:
        """As ``Flows.family``."""
        return _part(self.key[:, 5], 32, 8)

    @property
    def protocol(self) -> U8:
        """As ``Flows.protocol``."""
        return _part(self.key[:, 5], 24, 8)

    @property
    def quirks(self) -> U8:
        """``ODD`` and ``LATER_FRAGMENT`` of ``Flows.quirks``."""
        return _part(self.key[:, 5], 16, 8)

    @property
    def origin(self) -> U8:
        """Which interface, 0..65535."""
        return _part(self.key[:, 5], 0, 16)


def _part(column: U8, shift: int, bits: int) -> U8:
    return (column >> np.uint64(shift)) & np.uint64((1 << bits) - 1)


def empty() -> Table:
    """No flow at all."""
    nothing = np.empty(0, np.uint64)
    return Table(np.empty((0, COLUMNS), np.uint64), np.empty(0, np.uint16), nothing, nothing, nothing, nothing)


def of(flows: Flows, origin: int) -> Table:
    """The rows of a chunk."""
    key = np.empty((len(flows), COLUMNS), np.uint64)
    if len(flows):
        key[:, 0:2] = flows.addresses[flows.source]
        key[:, 2:4] = flows.addresses[flows.destination]
        key[:, 4] = _packed((flows.source_port, 48), (flows.destination_port, 32), (flows.ethertype, 16))
        key[:, 4] |= flows.vlan
        key[:, 5] = _packed((flows.inner_vlan, 48), (flows.tags, 40), (flows.family, 32), (flows.protocol, 24))
        key[:, 5] |= _packed((flows.quirks & np.uint8(_KEPT_QUIRKS), 16)) | np.uint64(origin)
    return Table(
        key,
        np.asarray(flows.tcp_flags, np.uint16),
        np.asarray(flows.first, np.uint64),
        np.asarray(flows.last, np.uint64),
        np.asarray(flows.packets, np.uint64),
        np.asarray(flows.octets, np.uint64),
    )


def _packed(*parts: tuple[Any, int]) -> Any:
    total: Any = np.uint64(0)
    for column, shift in parts:
        total = total | (column.astype(np.uint64) << np.uint64(shift))
    return total


def together(tables: Sequence[Table]) -> Table:
    """All rows of these, one table after the other."""
    if len(tables) == 1:
        return tables[0]
    if not tables:
        return empty()
    names = ("key", "tcp_flags", "first", "last", "packets", "octets")
    return Table(*(np.concatenate([getattr(table, name) for table in tables]) for name in names))


def join(rows: Table) -> Table:
    """One row for each flow, in no order that means anything."""
    order, starts = groups(rows.key)
    return _summed(rows, order, starts)


def _summed(rows: Table, order: Places, starts: Places) -> Table:
    if len(starts) == len(rows):
        return rows
    return Table(
        rows.key[order[starts]],
        np.bitwise_or.reduceat(rows.tcp_flags[order], starts),
        np.minimum.reduceat(rows.first[order], starts),
        np.maximum.reduceat(rows.last[order], starts),
        np.add.reduceat(rows.packets[order], starts),
        np.add.reduceat(rows.octets[order], starts),
    )


def runs(rows: Table, gap: int) -> Table:
    """As ``join``, but a flow that was silent for more than ``gap`` nanoseconds is another one from then on.

    What is within one row stays in one.
    """
    if not len(rows):
        return rows
    order, starts = groups(rows.key)
    which = np.zeros(len(rows), np.intp)
    which[starts[1:]] = 1
    np.cumsum(which, out=which)
    within = np.lexsort((rows.first[order], which))
    order, which = order[within], which[within]
    first, last = rows.first[order], rows.last[order]
    # The latest instant so far, of this flow alone: each flow is lifted above all that came before it.
    base = np.uint64(int(first.min()))
    span = int(last.max()) - int(base) + 1
    if span * (int(which[-1]) + 1) < 1 << 63:
        lift = which.astype(np.uint64) * np.uint64(span)
        latest = np.maximum.accumulate(last - base + lift) - lift + base
    else:
        latest = _latest(last, which)
    new = np.empty(len(rows), bool)
    new[0] = True
    new[1:] = (which[1:] != which[:-1]) | (first[1:] > latest[:-1] + np.uint64(gap))
    return _summed(rows, order, np.flatnonzero(new))


def _latest(last: U8, which: Places) -> U8:
    """The running maximum within each flow, where the numbers are too large to do all of them at once."""
    latest = last.copy()
    ends = np.flatnonzero(np.append(which[1:] != which[:-1], True)) + 1
    start = 0
    for end in ends.tolist():
        np.maximum.accumulate(latest[start:end], out=latest[start:end])
        start = end
    return latest


def groups(key: U8) -> tuple[Places, Places]:
    """An order of the rows in which equal ones stand together, and where in it each new one begins.

    ``key`` has shape (n, columns), at most ``COLUMNS`` of them. Rows are sorted by a hash, which is held against the
    keys; where two keys have one hash, by the keys.
    """
    if not len(key):
        return np.empty(0, np.intp), np.empty(0, np.intp)
    hashes = _hashes(key)
    order = np.argsort(hashes)
    ordered = hashes[order]
    same_hash = ordered[1:] == ordered[:-1]
    near = np.flatnonzero(same_hash)
    if len(near) and not bool((key[order[near]] == key[order[near + 1]]).all()):
        order = np.lexsort(key.T)
        same = (key[order[1:]] == key[order[:-1]]).all(axis=1)
    else:
        same = same_hash
    return order, np.flatnonzero(np.concatenate(([True], ~same)))


def _hashes(key: U8) -> U8:
    hashes = np.zeros(len(key), np.uint64)
    for column in range(key.shape[1]):
        mixed = key[:, column] ^ _SEEDS[column]
        mixed ^= mixed >> np.uint64(32)
        mixed *= _ODD_FACTOR
        mixed ^= mixed >> np.uint64(29)
        hashes ^= mixed
        hashes *= _ODD_FACTOR
    return hashes
