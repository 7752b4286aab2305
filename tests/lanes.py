"""How the suite runs in lanes: in several processes beside each other, each of which takes a file when it has done one.

A file is never divided, so what its tests share is made once; what whole runs share (the built program, the Debian that
containers start from) lies in ``.cache`` under a lock. What takes long comes first, so that no lane is left alone with
it at the end. With one processor, and wherever pytest is started without ``--numprocesses``, there are no lanes.
"""

from __future__ import annotations

import os

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

MOST = 4
"""Lanes at most: more tests beside each other than this wait for the disk and for one another's locks."""

FIRST = (
    "tests/machine/",
    # Beside the machine, which makes first what most others wait for: those that need least of it.
    *("tests/installation/", "tests/cli/", "tests/declaration/"),
    *("tests/packaging/test_deb.py", "tests/acceptance/", "tests/system/", "tests/packaging/"),
)
"""How paths begin, in the order in which files are given out; the rest follows in pytest's own, short files alone."""


def count() -> int:
    """How many lanes this machine has, for ``--numprocesses=auto``; 0 is one process, as without the option."""
    processors = len(os.sched_getaffinity(0))
    return min(processors, MOST) if processors > 1 else 0


class Lanes(LoadScopeScheduling):  # type: ignore[misc]  # xdist ships no types
    """Gives each lane a file at a time."""

    def __init__(self, config: pytest.Config, log: Producer) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False  # by how many tests a file has says nothing of how long they take

    def _split_scope(self, nodeid: str) -> str:
        return nodeid.partition("::")[0]


def place(path: str) -> int:
    """Where a test file comes in the order of a run in lanes."""
    return next((number for number, start in enumerate(FIRST) if path.startswith(start)), len(FIRST))
