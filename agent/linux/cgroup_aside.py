"""A lower share of the processor, where a sandbox forbids to be nice: by a cgroup within that of our service.

``SystemCallFilter=~@resources`` of the unit forbids setpriority(2), and to allow it would count against the unit. The
cgroup of a service is ours to divide, though. Its other processes stay where they are, which is possible among
threaded cgroups only (Linux' admin-guide/cgroup-v2.rst, "Threads")::

    service.NAME/        a domain that is threaded from here on: the worker
    └── aside/           threaded, with a lower cpu.weight: this process
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from agent.linux.cgroup_place import Unusable, home, read

LEAF = "aside"

_SERVICE = "service."  # of agent.linux.cgroup


def step_aside(niceness: int) -> bool:
    """Weigh as little as a process that is nice by so much, 1 to 19, against the others of our service; returns whether
    that could be.

    Nothing is done in a cgroup that is no service's of an agent, or that the processor is not divided by.
    """
    try:
        _, here = home()
    except (OSError, Unusable):
        return False
    if not here.name.startswith(_SERVICE) or "cpu" not in read(here / "cgroup.controllers").split():
        return False
    leaf = here / LEAF
    try:
        leaf.mkdir(exist_ok=True)
        _move(here, leaf, niceness)
    except OSError:
        with suppress(OSError):
            leaf.rmdir()
        return False
    return True


def _move(here: Path, leaf: Path, niceness: int) -> None:
    (leaf / "cgroup.type").write_text("threaded")
    (here / "cgroup.subtree_control").write_text("+cpu")
    (leaf / "cpu.weight.nice").write_text(str(niceness))
    (leaf / "cgroup.procs").write_text("0")
