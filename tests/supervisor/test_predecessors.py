"""What an earlier agent left is ended, all of it, and nobody else."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from agent.linux.cgroup import CgroupTree
from agent.linux.files import PrefixLock
from agent.linux.process import identify
from agent.linux.spawn import SpawnRequest, spawn
from agent.linux.sweep import MARK as MARK_VARIABLE
from agent.paths import Paths
from agent.supervisor.generation import Generation
from agent.supervisor.predecessors import ESCAPED, end_predecessors
from tests.harness import alive, wait_gone, wait_until

MARK = "fedcba9876543210:api"

Start = Callable[..., int]


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    made = Paths.of(tmp_path)
    made.run.mkdir()
    made.tmp.mkdir()
    return made


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a shell script in a session of its own; whatever carries our variable is killed at the end."""
    running: list[subprocess.Popen[bytes]] = []

    def start(script: str, **environment: str) -> int:
        running.append(
            subprocess.Popen(
                ["/bin/sh", "-c", script], start_new_session=True, env={"PATH": "/usr/bin:/bin", **environment}
            )
        )
        return running[-1].pid

    yield start
    for process in running:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def on_record(paths: Paths, pid: int, **changes: Any) -> None:
    identity = identify(pid)
    assert identity is not None
    kept = Generation(paths.generation)
    kept.record("api", identity._replace(**changes), MARK)


def test_a_recorded_worker_goes_with_its_descendants(paths: Paths, start: Start) -> None:
    worker = start("setsid env -i sleep 86731 & exec sleep 86731")
    wait_until(lambda: len(children(worker)) == 1)
    child = children(worker)[0]
    on_record(paths, worker)
    assert end_predecessors(paths, None) == (["api"], [])
    wait_gone(worker)
    assert not alive(child)


def test_an_escaped_process_goes_by_a_mark_that_was_only_expected(paths: Paths, start: Start) -> None:
    escaped = start("exec sleep 86732", **{MARK_VARIABLE: MARK})
    wait_until(lambda: Path(f"/proc/{escaped}/comm").read_text() == "sleep\n")
    Generation(paths.generation).expect("api", MARK)
    assert end_predecessors(paths, None) == ([ESCAPED], [])
    wait_gone(escaped)


@pytest.mark.parametrize("lie", [{"start_time": 1}, {"boot_id": "another"}], ids=["recycled", "before a reboot"])
def test_who_only_has_the_pid_is_left_alone(paths: Paths, start: Start, lie: dict[str, Any]) -> None:
    stranger = start("sleep 86733 & wait")
    wait_until(lambda: len(children(stranger)) == 1)
    on_record(paths, stranger, **lie)
    assert end_predecessors(paths, None) == ([], [])
    assert alive(stranger)
    assert alive(children(stranger)[0])


def test_who_carries_another_mark_is_left_alone(paths: Paths, start: Start) -> None:
    stranger = start("exec sleep 86734", **{MARK_VARIABLE: f"{MARK}x"})
    Generation(paths.generation).expect("api", MARK)
    assert end_predecessors(paths, None) == ([], [])
    assert alive(stranger)


def test_without_a_record_nobody_is_touched(paths: Paths, start: Start) -> None:
    stranger = start("exec sleep 86735", **{MARK_VARIABLE: MARK})
    assert end_predecessors(paths, None) == ([], [])
    assert alive(stranger)


def test_a_cgroup_is_emptied_of_whoever_is_in_it_and_removed_with_its_limits(paths: Paths, tree: CgroupTree) -> None:
    cgroup = tree.service("old")
    argv = ["/bin/sh", "-c", "env -i setsid sleep 86736 & exec env -i sleep 86736"]
    child = spawn(SpawnRequest(argv=argv, environment={"PATH": "/usr/bin:/bin"}, cgroup=cgroup.fd()))
    wait_until(lambda: len(cgroup.pids()) == 2)
    members = cgroup.pids()
    assert end_predecessors(paths, tree) == (["old"], [])
    assert not any(alive(pid) for pid in members)
    assert child.pidfd.wait() is not None
    child.pidfd.close()
    cgroup.close()
    assert tree.leftovers() == []


def test_what_was_laid_for_a_worker_goes_unless_somebody_else_runs_it_now(paths: Paths) -> None:
    on_record(paths, os.getpid(), boot_id="another")
    files = [paths.pid("api"), paths.config("api"), paths.heartbeat("api")]
    for file in files:
        file.write_text(f"{os.getpid()}\n")
    lock = PrefixLock(paths.service_lock("api"))
    lock.acquire()
    end_predecessors(paths, None)
    assert all(file.exists() for file in files)
    lock.release()
    paths.pid("api").write_text("4711\n")  # of a run-once that came and went
    end_predecessors(paths, None)
    assert [file.exists() for file in files] == [True, False, False]
