from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.linux import process
from agent.linux.process import ExitStatus, Identity, Pidfd
from tests.linux.processes import ROOT, Started, eventually, open_fds, readable

Start = Callable[..., Started]


def living(pid: int) -> bool:
    found = process.stat(pid)
    return found is not None and found.alive


# Runs as PID 1 of a new PID namespace, where it may say which PID comes next: a recycled PID for sure, not by luck.
RECYCLE = """
import os, signal, subprocess, time
from pathlib import Path
from agent.linux import process, sweep

first = subprocess.Popen(["sleep", "60"])
victim = process.identify(first.pid)
first.kill()
first.wait()
time.sleep(2 / os.sysconf("SC_CLK_TCK"))  # start times are told to the tick
Path("/proc/sys/kernel/ns_last_pid").write_text(str(first.pid - 1))
second = subprocess.Popen(["sleep", "60"])
assert second.pid == victim.pid
assert process.Pidfd.open_verified(victim) is None
assert sweep.signal_all([victim], signal.SIGKILL) == 0
assert second.poll() is None
assert process.Pidfd.open_verified(process.identify(second.pid)) is not None
print("not signalled")
"""


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=15), st.integers(1, 2**22))
def test_a_command_name_may_hold_anything(comm: str, pid: int) -> None:
    rest = b"S 2 3 4 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 9 0 777 1 2"
    parsed = process.parse_stat(f"{pid} ({comm}) ".encode() + rest)
    assert parsed == process.ProcessStat(pid, comm, "S", 2, 3, 4, 4194304, 9, 777)


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_garbage_in_place_of_a_stat_line_is_no_process(data: bytes) -> None:
    process.parse_stat(data)  # raises nothing


def test_stat_tells_our_own_family() -> None:
    found = process.stat(os.getpid())
    assert found is not None
    assert (found.ppid, found.pgid, found.sid) == (os.getppid(), os.getpgrp(), os.getsid(0))
    assert found.alive


def test_threads_of_the_kernel_are_told_from_processes() -> None:
    found = process.parse_stat(b"2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 3 0 0")
    assert found is not None
    assert found.kernel_thread
    ourselves = process.stat(os.getpid())
    assert ourselves is not None
    assert not ourselves.kernel_thread
    assert process.command_line(os.getpid()) == Path("/proc/self/cmdline").read_bytes()


def test_a_zombie_has_an_identity_and_is_not_alive(start: Start) -> None:
    child = start("exec sleep 60")
    before = process.identify(child.pid)
    child.become_zombie()
    found = process.stat(child.pid)
    assert before is not None
    assert before == process.identify(child.pid)
    assert found is not None
    assert found.state == "Z"
    assert not found.alive


def test_a_leader_that_left_its_threads_running_is_alive(start: Start) -> None:
    child = start(
        "import ctypes, threading, time\n"
        "threading.Thread(target=lambda: (time.sleep(0.05), print('on', flush=True), time.sleep(60))).start()\n"
        "ctypes.CDLL(None).pthread_exit(None)",
        python=True,
    )
    child.line()
    eventually(lambda: (found := process.stat(child.pid)) and found.state == "Z")
    found = process.stat(child.pid)
    assert found is not None
    assert found.alive


def test_nobody_has_no_identity(start: Start) -> None:
    child = start("exit 0")
    child.reap()
    assert process.identify(child.pid) is None
    assert process.stat(child.pid) is None
    assert process.environ(child.pid) is None
    assert Pidfd.open(child.pid) is None
    assert Pidfd.open(0) is None
    assert Pidfd.open(-1) is None


def test_identities_of_another_start_or_another_boot_are_not_held(start: Start) -> None:
    child = start("exec sleep 60")
    true = process.identify(child.pid)
    assert true is not None
    assert Pidfd.open_verified(true._replace(start_time=true.start_time + 1)) is None
    assert Pidfd.open_verified(true._replace(boot_id="0" * 36)) is None
    held = Pidfd.open_verified(true)
    assert held is not None
    held.close()


def test_an_identity_that_is_not_held_costs_no_descriptor(start: Start) -> None:
    before = open_fds()
    Pidfd.open_verified(Identity(os.getpid(), 1, process.boot_id()))
    assert open_fds() == before


def test_a_recycled_pid_is_never_signalled() -> None:
    namespace = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    done = subprocess.run(
        [*namespace, sys.executable, "-c", RECYCLE], cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert done.stdout == "not signalled\n", done.stderr


@pytest.mark.parametrize(
    ("script", "expected", "text"),
    [
        ("exit 0", ExitStatus(0), "exited 0"),
        ("exit 7", ExitStatus(7), "exited 7"),
        ("kill -KILL $$", ExitStatus(None, 9), "killed by SIGKILL"),
        ("kill -TERM $$", ExitStatus(None, 15), "killed by SIGTERM"),
    ],
)
def test_the_end_of_a_process_is_told(start: Start, script: str, expected: ExitStatus, text: str) -> None:
    child = start(script)
    with Pidfd.open(child.pid) or pytest.fail("no pidfd") as held:
        assert readable(held.fd)
        assert held.exited()
        assert held.wait() == expected
        assert held.wait() == expected
    assert str(expected) == text
    assert expected.success == (script == "exit 0")


def test_a_core_dump_is_told(start: Start, tmp_path: Path) -> None:
    limit = resource.getrlimit(resource.RLIMIT_CORE)
    child = start(f"cd {tmp_path}; ulimit -c unlimited; kill -SEGV $$")
    with Pidfd.open(child.pid) or pytest.fail("no pidfd") as held:
        assert readable(held.fd)
        status = held.wait()
    assert status is not None
    assert status.signal == signal.SIGSEGV
    assert str(status) == "killed by SIGSEGV" + (" (core dumped)" if status.core else "")
    assert resource.getrlimit(resource.RLIMIT_CORE) == limit


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (ExitStatus(None, 11, True), "killed by SIGSEGV (core dumped)"),
        (ExitStatus(None, signal.SIGRTMIN + 3), "killed by SIGRTMIN+3"),
        (ExitStatus(None, 99), "killed by signal 99"),
        (ExitStatus(None), "ended, its exit status is not known"),
    ],
)
def test_unusual_ends_have_words_too(status: ExitStatus, text: str) -> None:
    assert str(status) == text
    assert not status.success


def test_looking_does_not_reap(start: Start) -> None:
    child = start("exec sleep 60")
    with Pidfd.open(child.pid) or pytest.fail("no pidfd") as held:
        assert not held.exited()
        assert held.wait() is None
        assert held.signal(signal.SIGTERM)
        assert readable(held.fd)
        assert held.exited()
        assert process.stat(child.pid) is not None
        assert held.wait() == ExitStatus(None, signal.SIGTERM)
        assert process.stat(child.pid) is None
        assert not held.signal(signal.SIGTERM)


def test_of_a_process_that_is_no_child_only_the_end_is_known(start: Start) -> None:
    child = start("sleep 60 & echo $!; wait")
    with Pidfd.open(int(child.line())) or pytest.fail("no pidfd") as held:
        assert held.wait() is None
        held.signal(signal.SIGKILL)
        assert readable(held.fd)
        assert held.wait() == ExitStatus(None)


def test_a_pidfd_closes_once() -> None:
    held = Pidfd.open(os.getpid())
    assert held is not None
    held.close()
    other = os.dup(0)  # very likely takes the same number
    held.close()
    os.close(other)


@pytest.fixture(params=["asked for by parent", "read from every process"])
def children_source(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to find children; the first falls back to the second where the kernel lacks it."""
    if request.param == "read from every process":
        monkeypatch.setattr(process, "has_children_files", lambda: False)


@pytest.mark.usefixtures("children_source")
def test_children_and_their_children_are_found(start: Start) -> None:
    child = start("sh -c 'sleep 60 & echo $!; wait' & echo $!; wait")
    pids = {int(child.line()), int(child.line())}
    assert set(process.descendants(child.pid)) == pids
    (direct,) = process.children_of(child.pid)
    assert pids == {direct, *process.children_of(direct)}
    assert child.pid in process.children_of(os.getpid())
    assert pids < set(process.all_pids())


def test_children_of_every_thread_are_read_where_the_kernel_lists_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for thread, children in (("7", "11 12 "), ("8", "13 "), ("9", "")):
        (tmp_path / "7" / "task" / thread).mkdir(parents=True)
        (tmp_path / "7" / "task" / thread / "children").write_text(children)
    monkeypatch.setattr(process, "_PROC", str(tmp_path))
    monkeypatch.setattr(process, "has_children_files", lambda: True)
    assert sorted(process.children_of(7)) == [11, 12, 13]
    assert process.children_of(99) == []


@settings(deadline=None)
@given(st.dictionaries(st.integers(1, 9), st.lists(st.integers(1, 9), max_size=4)))
def test_a_walk_ends_whatever_the_relation(relation: dict[int, list[int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "family", lambda: lambda pid: relation.get(pid, []))
        found = process.descendants(1)
    assert len(found) == len(set(found))
    assert 1 not in found


@pytest.mark.usefixtures("subreaper")
def test_an_orphan_becomes_the_subreapers_child(start: Start) -> None:
    child = start("setsid sleep 60 & echo $!")
    orphan = int(child.line())
    child.reap()
    assert orphan in process.children_of(os.getpid())


@pytest.mark.usefixtures("subreaper")
def test_strangers_are_reaped_and_ours_keep_their_status(start: Start) -> None:
    before = process.children_of(os.getpid())
    ours = start("exit 3")
    with Pidfd.open(ours.pid) or pytest.fail("no pidfd") as held:
        assert readable(held.fd)  # a zombie of ours comes first, and must not hide the others
        parent = start(
            "import subprocess, time\n"
            "never_reaped = [subprocess.Popen(['sh', '-c', end]) for end in ('exit 5', 'kill -9 $$')]\n"
            "print('started', flush=True)\n"
            "time.sleep(60)",
            python=True,
        )
        parent.line()
        eventually(lambda: all(not living(pid) for pid in process.children_of(parent.pid)))
        parent.reap()
        found = process.reap_strangers(lambda pid: pid in before or pid == ours.pid)
        assert {status for _, status in found} == {ExitStatus(5), ExitStatus(None, 9)}
        assert held.wait() == ExitStatus(3)


def test_with_no_children_to_reap_nothing_happens(start: Start) -> None:
    before = process.children_of(os.getpid())
    assert process.reap_strangers(before.__contains__) == []
    living = start("exec sleep 60")
    assert process.reap_strangers(before.__contains__) == []
    assert process.stat(living.pid) is not None
