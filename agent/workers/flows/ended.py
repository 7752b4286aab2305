"""Flow records: when a flow is over, and so can be told of.

A flow that was silent for ``idle`` is over, and what comes after that is another record. One that goes on is told of
once it has lasted ``active``: its next row begins another record. Rows are given in the order of segments, and whoever
gives them says up to when everything has been given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from agent.workers.flows.table import Table, empty, runs, together

if TYPE_CHECKING:
    from numpy.typing import NDArray

IDLE = 60 * 1_000_000_000
ACTIVE = 1800 * 1_000_000_000

MOST = 500_000
"""Flows that are kept because they may go on; 100 bytes each."""

# IANA, IPFIX Information Elements, flowEndReason (136)
IDLE_TIMEOUT, ACTIVE_TIMEOUT, END_OF_FLOW, FORCED_END, LACK_OF_RESOURCES = 1, 2, 3, 4, 5

_FIN, _RST = 0x01, 0x04
_TCP = 6


class Records(NamedTuple):
    """Finished flows in the order of their last packets, and for each why it is finished."""

    table: Table
    reasons: NDArray[np.uint8]

    def only(self, rows: NDArray[np.bool_]) -> Records:
        """Those of them."""
        return Records(self.table[rows], self.reasons[rows])


class Ending:
    """Rows in, records out. ``idle`` and ``active`` are nanoseconds; ``most`` bounds how many flows are kept."""

    def __init__(self, idle: int = IDLE, active: int = ACTIVE, most: int = MOST) -> None:
        self._idle = idle
        self._active = active
        self._most = most
        self._kept = empty()

    def add(self, rows: Table, until: int) -> Records:
        """Take rows; no row that begins before ``until`` is given later. Returns what is over by then."""
        kept = runs(together([self._kept, rows]), self._idle)
        silent = kept.last + np.uint64(self._idle) < np.uint64(until)
        reasons = np.where(silent, IDLE_TIMEOUT, 0).astype(np.uint8)
        lasted = ~silent & (kept.last - np.minimum(kept.first, kept.last) >= np.uint64(self._active))
        reasons[lasted] = ACTIVE_TIMEOUT
        over = len(kept) - int((reasons > 0).sum()) - self._most
        if over > 0:
            going = np.flatnonzero(reasons == 0)
            oldest = going[np.argpartition(kept.last[going], over - 1)[:over]]
            reasons[oldest] = LACK_OF_RESOURCES
        done = reasons > 0
        self._kept = kept[~done]
        return _told(kept[done], reasons[done])

    def finish(self, until: int) -> Records:
        """What is left; the rows that there were go up to ``until``."""
        kept, self._kept = self._kept, empty()
        silent = kept.last + np.uint64(self._idle) < np.uint64(until)
        return _told(kept, np.where(silent, IDLE_TIMEOUT, FORCED_END).astype(np.uint8))


def _told(table: Table, reasons: NDArray[np.uint8]) -> Records:
    reasons = np.where(_closed(table) & (reasons != ACTIVE_TIMEOUT), np.uint8(END_OF_FLOW), reasons)
    return _ordered(table, reasons)


def _closed(table: Table) -> NDArray[np.bool_]:
    """Flows of TCP whose sender said that it has no more to say."""
    closed: NDArray[np.bool_] = (table.protocol == _TCP) & (table.tcp_flags & np.uint16(_FIN | _RST) != 0)
    return closed


def _ordered(table: Table, reasons: NDArray[np.uint8]) -> Records:
    order = np.argsort(table.last, kind="stable")
    return Records(table[order], reasons[order])


def segment(table: Table, end: int, idle: int = IDLE) -> Records:
    """The flows of one segment that goes up to ``end``, each a record of its own: one that goes on is told in parts."""
    silent = table.last + np.uint64(idle) < np.uint64(end)
    reasons = np.where(silent, IDLE_TIMEOUT, ACTIVE_TIMEOUT).astype(np.uint8)
    return _ordered(table, np.where(_closed(table), np.uint8(END_OF_FLOW), reasons))
