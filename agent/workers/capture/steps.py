"""When the clock was set while segments were open: no packet may be later than what a segment says of itself.

Packets bear the time of day as it was when they came. Set back, that is earlier than packets that came before; but
never was it further ahead of the clock that only runs forward than the most that has been seen.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

SLACK = 1_000_000_000
"""Nanoseconds by which a clock may be corrected without being set back."""


class Steps:
    """``clock`` tells nanoseconds since the epoch, ``steady`` the seconds of a clock that only runs forward."""

    def __init__(self, clock: Callable[[], int], steady: Callable[[], float]) -> None:
        self._clock = clock
        self._steady = steady
        self._ahead: dict[Path, int] = {}  # of the steady clock, at most since a segment was opened
        self._before: int | None = None

    def opened(self, part: Path) -> None:
        """A segment is open, and may get packets. Call again and again: it is what is found out of clocks."""
        now = self._now()
        known = self._ahead.get(part)
        if known is None or now > known:
            self._ahead[part] = now

    def closed(self, part: Path) -> int:
        """The instant than which no packet of a segment is later, which gets none any more."""
        now, steady = self._clock(), self._nanoseconds()
        return max(now, steady + self._ahead.pop(part, 0))

    def back(self) -> bool:
        """Whether the clock has been set back since this was asked last."""
        now = self._now()
        before, self._before = self._before, now
        return before is not None and now < before - SLACK

    def _now(self) -> int:
        return self._clock() - self._nanoseconds()

    def _nanoseconds(self) -> int:
        return int(self._steady() * 1e9)
