"""When a segment is closed and how many packets the next read may take. Pure: integers in, decisions out.

Instants are nanoseconds since the epoch, UTC; durations are nanoseconds; sizes are bytes.
"""

from __future__ import annotations

import math

#: Most packets one call into libpcap may deliver: bounds how long the loop is away from its other duties.
MAX_BATCH = 8192

#: Fewest packets asked for near the size limit of a segment: it may be exceeded by that many, and costs no more turns.
MIN_BATCH = 64

#: First and longest wait, in seconds, between two attempts to open an interface or a segment again.
RETRY_FIRST = 0.25
RETRY_LONGEST = 5.0


def window(now: int, every: int) -> int:
    """The number of the rotation window that ``now`` is in. Windows are aligned to the wall clock, not to a start."""
    return now // every


def until_boundary(now: int, every: int) -> int:
    """How long until the next window begins: in ``1..every``."""
    return every - now % every


def due(*, size: int, limit: int, opened: int, now: int, every: int) -> bool:
    """Whether a segment of ``size`` bytes, opened at ``opened``, is to be closed at ``now``.

    A clock that was stepped, in either direction, also ends the window: waiting for it to come back would leave the
    segment open for as long as the step.
    """
    return size >= limit or window(opened, every) != window(now, every)


def segment_limit(size: int, budget: int, interfaces: int) -> int:
    """At how many bytes a segment is closed: as declared, unless the open ones would then take over a quarter of the
    budget."""
    return min(size, budget // (4 * interfaces))


def headroom(limit: int, record: int) -> int:
    """How many bytes to keep free beside the segments, so that reads need not be tiny: a quarter of one segment."""
    return max(limit // 4, record)


def batch(*, room: int, left: int, record: int, mean: int) -> int:
    """How many packets may be read now so that ``room`` bytes are never exceeded; 0 when not even one fits.

    ``record`` is the most one packet can take and ``mean`` what packets took so far: ``left`` bytes are missing to the
    size limit of the segment, and that one may be exceeded a little.
    """
    return min(MAX_BATCH, room // record, max(MIN_BATCH, left // mean))


def retry_delay(failures: int) -> float:
    """Seconds to wait after that many failures in a row (1 or more): doubling, bounded."""
    return min(RETRY_LONGEST, RETRY_FIRST * math.ldexp(1.0, min(failures - 1, 30)))
