"""What the processes of a service use, by psutil, when somebody asks: nothing is sampled while nobody looks."""

from __future__ import annotations

import time
from types import ModuleType
from typing import Any, NamedTuple

from agent.linux.process import stat

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
        now, wall = time.monotonic(), time.time()
        cpu, oldest = 0.0, wall
        rss = threads = seen = 0
        files: int | None = 0
        for pid in pids:
            try:
                process = psutil.Process(pid)
                with process.oneshot():
                    times, memory = process.cpu_times(), process.memory_info()
                    known = stat(pid)
                    threads += known.threads if known else 0
                    oldest = min(oldest, process.create_time())
            except (psutil.Error, OSError):  # gone, or not to be looked at
                continue
            cpu += times.user + times.system
            rss += memory.rss
            seen += 1
            if files is not None and seen <= OPEN_FILES_OF:
                files = _with_files_of(process, files)
        if not seen:
            self.forget(name)
            return None
        # The first look is at all of its life.
        self._last.setdefault(name, (now - (wall - oldest), 0.0))
        usage = Usage(self._percent(name, now, cpu), rss, threads, files, seen)
        self._recent[name] = (now, usage)
        return usage

    def forget(self, name: str) -> None:
        """A new run starts from nothing."""
        self._last.pop(name, None)
        self._recent.pop(name, None)

    def _percent(self, name: str, now: float, cpu: float) -> float | None:
        at, before = self._last[name]
        self._last[name] = (now, cpu)
        if now <= at:
            return None
        return round(max(0.0, cpu - before) / (now - at) * 100.0, 1)


def _with_files_of(process: Any, count: int) -> int | None:
    """The count with this process's open files; ``None`` when we may not see them."""
    try:
        return count + int(process.num_fds())
    except (_psutil().NoSuchProcess, OSError):
        return count
    except _psutil().AccessDenied:
        return None


def _psutil() -> ModuleType:
    """psutil costs a megabyte, and an agent that nobody asks does not need it."""
    import psutil

    return psutil
