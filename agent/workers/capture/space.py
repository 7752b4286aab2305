"""How much more a store may hold: by what is declared, by what the disk leaves, and by what that has refused before."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

from agent.workers.capture.adoption import Report
from agent.workers.capture.retention import Disk, Limits, Room, reserve, room

LEARNED = 600.0
"""Seconds for which a disk that took less than it promised, for a quota say, is not asked for more."""


MARGIN = 1024 * 1024
"""Bytes by which the disk must leave more than the budget to count as no longer low: sizes on disk are rounded."""


class Space:
    """The room for segments below ``directory``. Sizes are bytes."""

    def __init__(self, directory: Path, limits: Limits, report: Report) -> None:
        self._directory = directory
        self._limits = limits
        self._report = report
        #: Whether the file system leaves less than the budget.
        self.low = False
        self._learned: int | None = None
        self._forget_at = 0.0

    @property
    def limits(self) -> Limits:
        """What is declared, and no more than what the disk was found to take."""
        if self._learned is None:
            return self._limits
        return self._limits._replace(budget=min(self._limits.budget, self._learned))

    @property
    def reserve(self) -> int:
        """What is to stay free."""
        return reserve(self._limits, self.disk())

    @property
    def learned(self) -> bool:
        """Whether the disk has taken less than it promised, not long ago."""
        return self._learned is not None

    def learn(self, most: int) -> int:
        """The disk will not take more than this; returns what is stored at most, for a while."""
        self._learned = max(0, most)
        self._forget_at = time.monotonic() + LEARNED
        return self._learned

    def forget(self) -> None:
        """Believe the disk again, when it is time."""
        if self._learned is not None and time.monotonic() >= self._forget_at:
            self._learned = None

    def run_low(self, message: str) -> None:
        """The file system leaves less than the budget, and ``message`` says why."""
        if not self.low:
            self.low = True
            self._report("storage_low", message)

    def relax(self, current: Room) -> None:
        """See whether it still does, when there is so much room."""
        if self.low and not self.learned and current.disk > current.budget + MARGIN:
            self.low = False
            self._report("storage_enough", f"{current.disk} more bytes fit on the disk: the budget is the limit again")

    def disk(self, unflushed: int = 0) -> Disk:
        """What an ordinary user may still write; without a limit when the file system does not say.

        ``unflushed``: bytes that it does not know of yet.
        """
        try:
            state = os.statvfs(self._directory)
        except OSError:
            return Disk(self._limits.budget - unflushed, self._limits.budget)
        return Disk(state.f_bavail * state.f_frsize - unflushed, state.f_blocks * state.f_frsize)

    def room(self, used: int, unflushed: int = 0) -> Room:
        """What may still be written when segments take ``used``."""
        return room(self.limits, self.disk(unflushed), used)

    def obstacle(self, used: int, waiting: int, stuck: int, owed: int = 0) -> OSError:
        """Why there is no room for a packet, as an error. ``owed`` bytes of the disk are others'."""
        current = self.room(used, owed)
        if current.disk < current.budget:
            text = f"No space left on device: {self.disk().free} bytes are free"
            if floor := self.reserve:
                text += f", and {floor} are to stay so"
        else:
            text = f"the budget of {self._limits.budget} bytes is used up"
        if waiting:
            text += f"; {waiting} segment{' waits for its' if waiting == 1 else 's wait for their'} index"
        elif stuck:
            text += f"; {stuck} segment{'' if stuck == 1 else 's'} cannot be removed"
        return OSError(errno.ENOSPC, text)
