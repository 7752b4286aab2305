"""How much there was when: rows of flows spread over buckets of time.

A row says how much it has between its first and its last packet, not when in between. It is taken to have come evenly:
wrong within a row, and right in every sum. What all rows of one call have together comes out to the byte.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    I8 = NDArray[np.int64]


def spread(first: Any, last: Any, amounts: Any, begin: int, width: int, buckets: int) -> I8:
    """How much of ``amounts`` falls into each of ``buckets`` that are ``width`` long, from ``begin`` on.

    ``first`` and ``last`` of each row, ``begin`` and ``width`` are nanoseconds. Rows that begin or end outside are
    taken to do so at the edge. The sum of what comes out is that of ``amounts``, exactly.
    """
    total = int(np.asarray(amounts, np.uint64).sum(dtype=np.uint64))
    if not len(first) or not total:
        return np.zeros(buckets, np.int64)
    # In units of a bucket; differences of 64 bit integers first, since a double has only 53.
    one, other = _place(first, begin, width, buckets), _place(last, begin, width, buckets)
    other = np.maximum(one, other)
    length = other - one
    low = np.minimum(one.astype(np.intp), buckets - 1)
    high = np.minimum(other.astype(np.intp), buckets - 1)
    amount = np.asarray(amounts, np.float64)
    found = np.zeros(buckets)
    within = low == high
    found += np.bincount(low[within], amount[within], buckets)
    one, other, low, high = one[~within], other[~within], low[~within], high[~within]
    rate = amount[~within] / length[~within]
    found += np.bincount(low, rate * (low + 1 - one), buckets)
    found += np.bincount(high, rate * (other - high), buckets)
    steps = np.bincount(low + 1, rate, buckets + 1)[:buckets] - np.bincount(high, rate, buckets)
    found += np.maximum(np.cumsum(steps), 0)
    return _whole(found, total)


def _place(instants: Any, begin: int, width: int, buckets: int) -> NDArray[np.float64]:
    since = np.asarray(instants, np.uint64).astype(np.int64) - begin
    return np.clip(since / width, 0.0, float(buckets))


def _whole(parts: NDArray[np.float64], total: int) -> I8:
    """Whole numbers in the proportion of ``parts`` whose sum is ``total``: each end of a bucket is rounded."""
    running = np.cumsum(parts)
    if not running[-1] > 0:
        return np.zeros(len(parts), np.int64)
    edges = np.rint(running / running[-1] * total).astype(np.int64)
    edges[running >= running[-1]] = total
    whole: I8 = np.diff(edges, prepend=0)
    return whole
