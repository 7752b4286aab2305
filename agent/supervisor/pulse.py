"""Watches one heartbeat file: tells when it has not been touched for longer than its timeout.

The file's time is wall-clock time, and the wall clock may be set. So its value is only compared with itself: a
heartbeat is a change of the file's time, seen on a monotonic clock.
"""

from __future__ import annotations

import os
from pathlib import Path

from agent.declaration.model import Heartbeat


class Pulse:
    """``look`` is called every ``interval`` seconds by whoever has a clock; ``beat`` when a child says it is alive."""

    def __init__(self, path: Path, heartbeat: Heartbeat, now: float) -> None:
        self._path = path
        self._timeout = heartbeat.timeout
        self._seen = self._modified()
        self._changed = now
        self.ever = False
        """Whether it has beaten at all."""

    def _modified(self) -> int | None:
        try:
            return self._path.stat().st_mtime_ns
        except OSError:
            return None

    def look(self, now: float) -> float | None:
        """The age in seconds when the heartbeat is stale, else ``None``."""
        modified = self._modified()
        if modified is not None and modified != self._seen:
            self._seen = modified
            self._changed = now
            self.ever = True
        age = now - self._changed
        return age if age > self._timeout else None

    def beat(self, now: float) -> None:
        """The child said so itself: touch the file on its behalf, so that outside monitors see it too."""
        self._changed = now
        self.ever = True
        try:
            os.utime(self._path)
            self._seen = self._modified()
        except OSError:
            return

    def age(self, now: float) -> float:
        self.look(now)
        return now - self._changed
