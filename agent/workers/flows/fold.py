"""Totals of more flows than fit into memory: what is large is kept, what is small is added up in its group.

Rows go into a table of flows. When that holds ``most`` of them, the half of it that is smallest leaves, and is kept
only as sums by ``group`` (a host, a port …); those are bounded in the same way, and what leaves them is counted as left
out. So sums by group stay exact as long as there are fewer groups than ``most``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from agent.workers.flows.table import Table, empty, join, together

MOST = 1_000_000
"""Flows: about 100 bytes each, twice that while they are joined."""

_LEAST_PENDING = 65536


class Fold:
    """Rows in, one table of flows out. ``evict`` is given those that leave; they are the smallest by octets."""

    def __init__(self, evict: Callable[[Table], None], most: int = MOST) -> None:
        self._evict = evict
        self._most = most
        self._kept = empty()
        self._pending: list[Table] = []
        self._waiting = 0

    def add(self, rows: Table) -> None:
        """Take rows. They are joined once there are enough of them, so that each is moved a few times at most."""
        if not len(rows):
            return
        self._pending.append(rows)
        self._waiting += len(rows)
        if self._waiting >= max(_LEAST_PENDING, len(self._kept) // 2):
            self._join()

    def table(self) -> Table:
        """All flows that were kept."""
        self._join()
        return self._kept

    def _join(self) -> None:
        if not self._pending:
            return
        kept = join(together([self._kept, *self._pending]))
        self._pending, self._waiting = [], 0
        if len(kept) > self._most:
            order = np.argpartition(kept.octets, len(kept) - self._most // 2)
            self._evict(kept[order[: len(kept) - self._most // 2]])
            kept = kept[order[len(kept) - self._most // 2 :]]
        self._kept = kept
