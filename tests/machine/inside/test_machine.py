"""The machine is what the other tests in here take it for."""

from __future__ import annotations

import time
from pathlib import Path


def test_cgroups_are_unified_and_limit_processes_memory_and_time() -> None:
    controllers = Path("/sys/fs/cgroup/cgroup.controllers").read_text().split()
    assert {"pids", "memory", "cpu"} <= set(controllers)


def test_the_wall_clock_can_be_set() -> None:
    before, started = time.time(), time.monotonic()
    time.clock_settime(time.CLOCK_REALTIME, before + 3600)
    try:
        assert time.time() - before > 3599
        assert time.monotonic() - started < 60
    finally:
        time.clock_settime(time.CLOCK_REALTIME, before + time.monotonic() - started)
