"""What processes use, by looking at real ones."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.supervisor.measure import OPEN_FILES_OF, Meter

Start = Callable[[str], int]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a Python program; returns its PID once it has printed a line."""
    running = []

    def start(program: str) -> int:
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
        running.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process.pid

    yield start
    for process in running:
        process.kill()
        process.communicate()


IDLE = "import time; print(flush=True); time.sleep(60)"
BUSY = "print(flush=True)\nwhile True: pass"


def test_memory_threads_files_and_processes_are_sums(start: Start) -> None:
    meter = Meter()
    one, two = start(IDLE), start(IDLE)
    single, both = meter.look("a", [one]), meter.look("b", [one, two])
    assert single is not None and both is not None
    assert single.rss_bytes > 1024 * 1024
    assert both.rss_bytes > single.rss_bytes
    assert (single.threads, both.threads) == (1, 2)
    assert (single.processes, both.processes) == (1, 2)
    assert single.open_files == len(list(Path(f"/proc/{one}/fd").iterdir()))
    assert both.open_files == 2 * single.open_files


def test_a_busy_process_uses_a_core_and_an_idle_one_next_to_nothing(start: Start) -> None:
    meter = Meter()
    busy, idle = start(BUSY), start(IDLE)
    for name, pid in (("busy", busy), ("idle", idle)):
        assert meter.look(name, [pid]) is not None
    time.sleep(0.5)
    used = [look.cpu_percent for look in (meter.look("busy", [busy]), meter.look("idle", [idle])) if look]
    assert used[0] is not None and used[1] is not None
    assert used[0] > 20 * (used[1] + 0.5)


def test_the_first_look_is_at_all_of_its_life(start: Start) -> None:
    pid = start(BUSY)
    time.sleep(0.5)
    look = Meter().look("busy", [pid])
    assert look is not None and look.cpu_percent is not None
    assert look.cpu_percent > 10


def test_what_is_gone_is_left_out_and_a_new_run_starts_from_nothing(start: Start) -> None:
    meter = Meter()
    gone = subprocess.Popen(["/bin/true"])
    gone.wait()
    assert meter.look("a", [gone.pid]) is None
    pid = start(IDLE)
    look = meter.look("a", [gone.pid, pid])
    assert look is not None
    assert (look.processes, look.cpu_percent is not None) == (1, True)
    assert meter.look("a", []) is None


def test_open_files_are_counted_for_a_bounded_number_of_processes(start: Start) -> None:
    pid = start(IDLE)
    few, many = Meter().look("a", [pid] * OPEN_FILES_OF), Meter().look("a", [pid] * (OPEN_FILES_OF + 9))
    assert few is not None and many is not None
    assert few.open_files == many.open_files
    assert many.processes == OPEN_FILES_OF + 9
