"""What the tests of this floor share: real processes that leave nothing behind."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from agent.linux import libc, process
from tests.linux.processes import ROOT, Started


@pytest.fixture
def start() -> Iterator[Callable[..., Started]]:
    """Start a shell script, or Python code with ``python=True``; all are killed at the end of the test."""
    running: list[Started] = []

    def start(script: str, *, python: bool = False, environment: dict[str, str] | None = None) -> Started:
        argv = [sys.executable, "-c", f"import sys; sys.path.insert(0, {ROOT!r})\n{script}"] if python else []
        running.append(Started(argv or ["/bin/sh", "-c", script], environment))
        return running[-1]

    yield start
    for each in running:
        each.discard()


@pytest.fixture
def subreaper() -> Iterator[None]:
    """Be a subreaper for one test; what it leaves below us is killed and reaped."""
    before = set(process.descendants(os.getpid()))
    process.become_subreaper()
    yield
    libc.prctl(libc.PR_SET_CHILD_SUBREAPER, 0)
    while left := [pid for pid in process.descendants(os.getpid()) if pid not in before]:
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in left:
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)
