"""Standing back for others."""

from __future__ import annotations

import subprocess
import sys


def told(call: str) -> list[str]:
    """Niceness, scheduling policy and I/O class of a process that stood back."""
    program = (
        "import ctypes, os; from agent.linux.priority import be_idle, stand_back\n"
        f"{call}\n"
        "libc = ctypes.CDLL(None)\n"
        "from agent.linux.priority import _IOPRIO_SET as numbers; import platform\n"
        "print(os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0),"
        " libc.syscall(numbers[platform.machine()] + 1, 1, 0))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True)
    return done.stdout.split()


def test_who_stands_back_is_nicer_and_the_last_at_the_disk() -> None:
    assert told("stand_back(10)") == ["10", "0", str(2 << 13 | 7)]


def test_who_is_idle_takes_what_nobody_wants() -> None:
    assert told("be_idle()") == ["0", "5", str(3 << 13)]
