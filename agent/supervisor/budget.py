"""A token bucket: so many at once, so many per second for any length of time. Pure."""

from __future__ import annotations


class Budget:
    """``spend`` is asked before each; ``now`` is monotonic seconds."""

    def __init__(self, per_second: float, at_once: float, now: float) -> None:
        self._per_second = per_second
        self._at_once = at_once
        self._left = at_once
        self._filled = now

    def spend(self, now: float) -> bool:
        """Take one if there is one."""
        self._left = min(self._at_once, self._left + (now - self._filled) * self._per_second)
        self._filled = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
