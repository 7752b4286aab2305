"""Watches one heartbeat file: tells when it has not been touched for longer than its timeout.

The file's time is wall-clock time, and the wall clock may be set. So a heartbeat is a change of the file's time, seen
on a monotonic clock; when it was between two looks is believed of the file as far as that can be.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from agent.declaration.model import Heartbeat

TICK = 0.02
"""Seconds by which the time of a file may lag: the kernel stamps it with its last tick, at least 100 a second."""


class Beat(msgspec.Struct, frozen=True):
    """A pulse between two programs: whether it ever beat, when last (monotonic), and the file's time as seen then."""

    ever: bool
    beaten: float
    seen: int | None


class Pulse:
    """``look`` is called now and then by whoever has a clock; ``beat`` when a child says it is alive."""

    def __init__(self, path: Path, heartbeat: Heartbeat, now: float, wall: Callable[[], float] = time.time) -> None:
        self.ever = False
        """Whether it has beaten at all."""
        self._path = path
        self._timeout = heartbeat.timeout
        self._wall = wall
        self._seen = self._modified()
        self._beaten = self._looked = now

    def freeze(self) -> Beat:
        """What another program in this process needs to go on watching."""
        return Beat(self.ever, self._beaten, self._seen)

    def thaw(self, beat: Beat) -> None:
        """Go on where an earlier program was frozen: what came since is seen at the next look."""
        self.ever, self._beaten, self._seen = beat.ever, beat.beaten, beat.seen
        self._looked = beat.beaten

    @property
    def due(self) -> float:
        """When it will have been silent for too long, as far as is known."""
        return self._beaten + self._timeout

    def look(self, now: float) -> float | None:
        """The age in seconds when the heartbeat is stale, else ``None``."""
        age = self.age(now)
        return age if age > self._timeout else None

    def age(self, now: float) -> float:
        """Seconds since the last heartbeat, or since the first moment when there was none."""
        modified = self._modified()
        if modified is not None and modified != self._seen:
            self._seen = modified
            ago, unseen = self._wall() - modified / 1e9, now - self._looked
            self._beaten = now - min(ago, unseen) if 0 <= ago <= unseen + TICK else now
            self.ever = True
        self._looked = now
        return now - self._beaten

    def beat(self, now: float) -> None:
        """The child said so itself: touch the file on its behalf, so that outside monitors see it too."""
        self._beaten = self._looked = now
        self.ever = True
        try:
            os.utime(self._path, follow_symlinks=False)
            self._seen = self._modified()
        except OSError:
            return

    def restart(self, now: float) -> None:
        """What was before does not count."""
        self.age(now)
        self._beaten = now

    def _modified(self) -> int | None:
        try:
            return self._path.stat().st_mtime_ns
        except OSError:
            return None
