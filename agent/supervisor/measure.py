"""What the processes of a service use, by psutil, when somebody asks: nothing is sampled while nobody looks."""

from __future__ import annotations

import time
from types import ModuleType
from typing import NamedTuple

OPEN_FILES_OF = 64
"""Open files are counted for at most this many processes of a service: each count reads a directory."""
FRESH = 0.5
"""Seconds for which a measurement is good enough for the next who asks: a crowd costs little more than one."""


class Usage(NamedTuple):
    """Sums over all processes of a service; ``cpu_percent`` since the last look, 100 being one core."""

    cpu_percent: float | None
    rss_bytes: int
    threads: int
    open_files: int | None
    processes: int


class Meter:
    """Remembers CPU times between two looks."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[float, float]] = {}
        self._recent: dict[str, tuple[float, Usage]] = {}

    def recent(self, name: str) -> Usage | None:
        """What ``look`` found less than ``FRESH`` seconds ago, if it did."""
        at, usage = self._recent.get(name, (0.0, None))
        return usage if time.monotonic() - at < FRESH else None

    def look(self, name: str, pids: list[int]) -> Usage | None:
        """Measure a service by its processes. ``None`` when none of them is left."""
        psutil = _psutil()
        now = time.monotonic()
        cpu = 0.0
        rss = threads = seen = 0
        files: int | None = 0
        for pid in pids:
            try:
                process = psutil.Process(pid)
                with process.oneshot():
                    times = process.cpu_times()
                    cpu += times.user + times.system
                    rss += process.memory_info().rss
                    threads += process.num_threads()
                    born = process.create_time()
                seen += 1
                if files is not None and seen <= OPEN_FILES_OF:
                    files += process.num_fds()
            except psutil.NoSuchProcess:
                continue
            except psutil.AccessDenied:
                files = None
                born = time.time()
            if seen == 1 and name not in self._last:
                self._last[name] = (now - max(0.0, time.time() - born), 0.0)
        if not seen:
            self.forget(name)
            return None
        usage = Usage(self._percent(name, now, cpu), rss, threads, files, seen)
        self._recent[name] = (now, usage)
        return usage

    def forget(self, name: str) -> None:
        """A new run starts from nothing."""
        self._last.pop(name, None)
        self._recent.pop(name, None)

    def _percent(self, name: str, now: float, cpu: float) -> float | None:
        before = self._last.get(name)
        self._last[name] = (now, cpu)
        if before is None or now <= before[0]:
            return None
        return round(max(0.0, cpu - before[1]) / (now - before[0]) * 100.0, 1)


def _psutil() -> ModuleType:
    """psutil costs a megabyte, and an agent that nobody asks does not need it."""
    import psutil

    return psutil
