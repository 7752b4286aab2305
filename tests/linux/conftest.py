"""What the tests of this floor share: real processes that leave nothing behind."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from agent.linux import libc, process, systemd
from agent.linux.cgroup import Cgroup, CgroupTree, discover, explain
from tests.linux.processes import ROOT, Started, eventually, own_directory


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


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CgroupTree]:
    """A tree of our own, as on a machine without systemd (which would have to delegate one to the tests)."""
    monkeypatch.setattr(systemd, "RUNNING", Path("/nonexistent"))
    home = own_directory()
    found = discover(tmp_path)
    assert found is not None, explain(tmp_path)
    yield found
    (home / "cgroup.procs").write_text("0")
    for directory, _, _ in os.walk(found.directory, topdown=False):
        Path(directory).rmdir()


@pytest.fixture
def service(tree: CgroupTree) -> Iterator[Cgroup]:
    """A service's cgroup; its processes are killed and reaped, and it is removed."""
    found = tree.service("api")
    yield found
    if found.directory.exists():
        found.kill()
        eventually(lambda: not found.populated())
        assert found.remove()
