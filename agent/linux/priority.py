"""Standing back for others: of processor and disk, what nobody else wants."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress

_IOPRIO_SET = {"x86_64": 251, "aarch64": 30, "riscv64": 30, "ppc64le": 273, "s390x": 282}
"""Numbers of the system call ioprio_set(2): glibc has no function for it."""

_WHO_PROCESS = 1  # linux/ioprio.h: IOPRIO_WHO_PROCESS
_CLASS_BEST_EFFORT, _CLASS_IDLE, _CLASS_SHIFT = 2, 3, 13
_LOWEST = 7


def stand_back(niceness: int) -> None:
    """Be nicer by so much, 1 to 19, and the last among those that read and write. What is not permitted is left.

    Where nobody may be nice, it is by a cgroup: see ``agent.linux.cgroup_aside``.
    """
    try:
        os.nice(niceness)
    except OSError:
        from agent.linux.cgroup_aside import step_aside

        step_aside(niceness)
    _input_output(_CLASS_BEST_EFFORT << _CLASS_SHIFT | _LOWEST)


def be_idle() -> None:
    """Run, read and write only when nobody else wants to. What is not permitted is left."""
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    _input_output(_CLASS_IDLE << _CLASS_SHIFT)


def _input_output(priority: int) -> None:
    number = _IOPRIO_SET.get(os.uname().machine)
    if number is not None:
        ctypes.CDLL(None).syscall(number, _WHO_PROCESS, 0, priority)
