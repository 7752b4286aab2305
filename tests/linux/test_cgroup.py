from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from agent.errors import SpawnFailed
from agent.linux import clone, process, systemd
from agent.linux.cgroup import Cgroup, CgroupTree, discover, explain
from agent.linux.cgroup_place import Mount
from agent.linux.process import ExitStatus, Pidfd, command_line
from agent.linux.spawn import Child, SpawnRequest, spawn
from tests.linux.processes import (
    BECOME_NOBODY,
    ROOT,
    Started,
    eventually,
    open_fds,
    own_cgroup,
    own_directory,
    readable,
)

Start = Callable[..., Started]

# A way out of every process group, session and parent, with nothing left that tells where it came from.
ESCAPE = "(exec env -i setsid sleep 60 >/dev/null 2>&1 &) & wait"


@pytest.fixture
def run_in(service: Cgroup) -> Iterator[Callable[[str], Child]]:
    children: list[Child] = []

    def run_in(script: str) -> Child:
        argv = ["/bin/sh", "-c", script]
        environment = {"PATH": "/usr/bin:/bin"}
        children.append(spawn(SpawnRequest(argv=argv, environment=environment, cgroup=service.fd())))
        return children[-1]

    yield run_in
    for child in children:
        child.pidfd.signal(signal.SIGKILL)
        readable(child.pidfd.fd)
        child.pidfd.wait()
        child.pidfd.close()


RunIn = Callable[[str], Child]


def escaped(service: Cgroup) -> bool:
    """Whether the one that gets away has become what it will be: before that it is several programs, one by one."""
    pids = service.pids()
    return len(pids) == 2 and any(command_line(pid) == b"sleep\x0060\0" for pid in pids)


def test_explaining_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "RUNNING", Path("/nonexistent"))
    before = sorted(own_directory().iterdir())
    assert explain(tmp_path).startswith("cgroup v2 at ")
    assert sorted(own_directory().iterdir()) == before


def test_without_delegation_systemds_cgroups_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "RUNNING", Path("/"))
    assert discover(tmp_path) is None
    assert explain(tmp_path) == (
        f"systemd has not delegated {own_directory()} to us; a unit needs Delegate=cpu memory pids"
    )


def inside_helper(directory: Path, lines: str) -> str:
    """What Python code prints that runs in its own cgroup at ``directory``, seeing systemd if it sets ``systemd``."""
    directory.mkdir()
    script = f"""
import os, sys
sys.path.insert(0, {ROOT!r})
from pathlib import Path
from agent.linux import cgroup, clone
directory = Path({str(directory)!r})
(directory / "cgroup.procs").write_text("0")
{lines}
print(Path("/proc/self/cgroup").read_text().split("0::")[1].strip())
"""
    try:
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20)
        assert done.returncode == 0, done.stderr
        return done.stdout
    finally:
        for below, _, _ in os.walk(directory, topdown=False):
            with suppress(FileNotFoundError):
                Path(below).rmdir()


def test_a_delegated_unit_is_used_as_it_is_and_we_move_to_a_leaf(tree: CgroupTree) -> None:
    said = inside_helper(
        tree.directory / "agent.service",
        """
cgroup.systemd.RUNNING = Path("/")
os.setxattr(directory, "user.delegate", b"1")
tree = cgroup.discover(Path("/srv"))
assert tree.directory == directory, cgroup.explain(Path("/srv"))
again = cgroup.discover(Path("/srv"))
assert again.directory == directory
""",
    )
    assert said.strip().endswith("/agent.service/supervisor")


def test_without_systemd_each_prefix_has_a_tree_of_its_own(tree: CgroupTree) -> None:
    said = inside_helper(
        tree.directory / "container",
        """
cgroup.systemd.RUNNING = Path("/nonexistent")
one = cgroup.discover(Path("/srv"))
assert one.directory.parent == directory
assert cgroup.discover(Path("/srv")).directory == one.directory
assert one.directory.name.startswith("agent-")
""",
    )
    assert "/container/agent-" in said
    assert said.strip().endswith("/supervisor")


def test_an_unprivileged_user_is_told_why_there_is_none() -> None:
    script = f"""
import sys
sys.path.insert(0, {ROOT!r})
from pathlib import Path
from agent.linux import cgroup, clone
{BECOME_NOBODY}
print(cgroup.discover(Path("/srv")), cgroup.explain(Path("/srv")))
"""
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20)
    assert said.stdout.startswith(("None no cgroup can be created: ", "None systemd has not delegated ")), said.stderr
    assert said.stdout.count("\n") == 1


def test_a_removed_cgroup_is_not_entered(service: Cgroup) -> None:
    before = own_cgroup()
    fd = os.dup(service.fd())
    assert service.remove()
    with pytest.raises(SpawnFailed, match="its cgroup is frozen, was removed") as failure:
        spawn(SpawnRequest(argv=["/bin/true"], environment={}, cgroup=fd))
    os.close(fd)
    assert not failure.value.permanent
    assert own_cgroup() == before


def test_at_our_end_what_is_empty_goes_and_what_is_not_stays(tree: CgroupTree, run_in: RunIn) -> None:
    tree.service("idle")
    child = run_in("exec sleep 60")
    tree.remove()
    assert tree.leftovers() == ["api"]
    child.pidfd.signal(signal.SIGKILL)
    eventually(lambda: not tree.service("api").populated())
    tree.remove()
    assert tree.leftovers() == []
    tree.directory.mkdir(exist_ok=True)  # for the fixture


def test_what_an_agent_before_us_left_is_known_by_name(tree: CgroupTree, tmp_path: Path) -> None:
    tree.service("one")
    tree.service("two_b")
    successor = discover(tmp_path)
    assert successor is not None
    assert successor.leftovers() == ["one", "two_b"]


def test_a_child_is_born_in_its_cgroup_and_we_stay_where_we_are(service: Cgroup, run_in: RunIn) -> None:
    before = own_cgroup()
    child = run_in("exec sleep 60")
    assert own_cgroup() == before
    assert service.pids() == [child.pid]
    assert service.populated()


def test_a_child_that_needs_a_user_is_born_there_too(service: Cgroup) -> None:
    request = SpawnRequest(argv=["sleep", "60"], environment={}, user="nobody", cgroup=service.fd())
    child = spawn(request)
    assert service.pids() == [child.pid]
    service.kill()
    assert readable(child.pidfd.fd)
    child.pidfd.wait()
    child.pidfd.close()


@pytest.mark.parametrize("user", [None, "nobody"])
def test_where_clone3_is_not_to_be_had_the_child_still_gets_there(
    service: Cgroup, user: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clone, "_CLONE3", 100_000)  # the kernel answers ENOSYS, as filters of system calls do
    child = spawn(SpawnRequest(argv=["/bin/sleep", "60"], environment={}, user=user, cgroup=service.fd()))
    assert service.pids() == [child.pid]
    service.kill()
    assert readable(child.pidfd.fd)
    child.pidfd.wait()
    child.pidfd.close()


def test_a_start_that_fails_leaves_the_cgroup_empty_and_us_outside(service: Cgroup) -> None:
    before = own_cgroup()
    with pytest.raises(SpawnFailed, match="no such program"):
        spawn(SpawnRequest(argv=["/no/such"], environment={}, cgroup=service.fd()))
    assert own_cgroup() == before
    assert not service.populated()


@pytest.mark.usefixtures("subreaper")
def test_no_escape_from_being_killed(service: Cgroup, run_in: RunIn) -> None:
    child = run_in(ESCAPE + "; exec sleep 60")
    eventually(lambda: escaped(service))
    assert service.kill()
    assert readable(child.pidfd.fd)
    assert child.pidfd.wait() == ExitStatus(None, signal.SIGKILL)
    eventually(lambda: not service.populated())
    assert service.pids() == []


@pytest.mark.usefixtures("subreaper")
@pytest.mark.parametrize("name", [b"below", b"x\xff\x1b"])
def test_a_signal_reaches_every_process_also_below(service: Cgroup, run_in: RunIn, name: bytes) -> None:
    run_in(ESCAPE + "; exec sleep 60")
    eventually(lambda: escaped(service))
    below = service.directory / os.fsdecode(name)
    below.mkdir()
    (below / "cgroup.procs").write_text(str(service.pids()[0]))
    assert sorted(service.pids()) != []
    assert service.signal(signal.SIGTERM) == 2
    eventually(lambda: not service.populated())


def test_processes_elsewhere_are_not_signalled(service: Cgroup, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    outsider = start("exec sleep 60")
    monkeypatch.setattr(service, "pids", lambda: [outsider.pid, os.getpid()])  # as if the PIDs had been recycled
    assert service.signal(signal.SIGKILL) == 0
    found = process.stat(outsider.pid)
    assert found is not None
    assert found.alive


def test_nobody_kills_the_cgroup_we_are_in_ourselves(service: Cgroup) -> None:
    home = own_directory()
    (service.directory / "cgroup.procs").write_text("0")
    try:
        assert not service.kill()
        assert service.signal(signal.SIGKILL) == 0
    finally:
        (home / "cgroup.procs").write_text("0")


def test_the_watch_is_readable_when_the_last_process_is_gone(service: Cgroup, run_in: RunIn) -> None:
    child = run_in("exec sleep 60")
    watch = service.watch_fd()
    service.drain_watch()
    assert not readable(watch, 0)
    child.pidfd.signal(signal.SIGKILL)
    assert readable(watch)
    service.drain_watch()
    assert not service.populated()
    assert not readable(watch, 0)


def test_only_an_empty_cgroup_is_removed(service: Cgroup, run_in: RunIn) -> None:
    (service.directory / "below").mkdir()
    child = run_in("exec sleep 60")
    assert not service.remove()
    child.pidfd.signal(signal.SIGKILL)
    eventually(lambda: not service.populated())
    assert service.remove()
    assert service.remove()
    assert not service.populated()
    assert service.pids() == []
    assert not service.kill()


def test_removing_closes_every_descriptor(tree: CgroupTree) -> None:
    before = open_fds()
    service = tree.service("brief")
    assert service.fd() == service.fd()
    assert service.watch_fd() == service.watch_fd()
    assert service.remove()
    assert open_fds() == before


def test_limits_are_in_force_or_named(tree: CgroupTree, service: Cgroup) -> None:
    controller_of = {"memory": "memory", "cpus": "cpu", "pids": "pids"}
    missing = service.set_limits(memory=64 * 1024 * 1024, cpus=0.5, pids=20)
    assert missing == [name for name, controller in controller_of.items() if controller not in tree.controllers]
    expected = {"memory.max": "67108864", "memory.oom.group": "1", "cpu.max": "50000 100000", "pids.max": "20"}
    present = {name: text for name, text in expected.items() if (service.directory / name).exists()}
    assert {name: (service.directory / name).read_text().strip() for name in present} == present
    assert service.set_limits() == []
    assert service.events() == {"oom_kill": 0, "pids_max": 0}


def test_a_fork_bomb_is_bounded_where_processes_can_be_counted(
    tree: CgroupTree, service: Cgroup, run_in: RunIn
) -> None:
    limits = service.set_limits(pids=10)
    child = run_in("for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 60 & done; wait")
    if limits == []:
        eventually(lambda: service.events()["pids_max"] > 0)
        assert len(service.pids()) <= 10
    else:
        assert limits == ["pids"]
        eventually(lambda: len(service.pids()) == 13)
    assert service.kill()
    eventually(lambda: not service.populated())
    with Pidfd.open(child.pid) or pytest.fail("reaped by somebody else") as held:
        assert held.exited()


def test_counters_are_read_from_the_kernels_format(tmp_path: Path) -> None:
    service = Cgroup(Mount("/", tmp_path), tmp_path)
    (tmp_path / "memory.events").write_text("low 0\nhigh 0\nmax 7\noom 2\noom_kill 3\noom_group_kill 1\n")
    (tmp_path / "pids.events").write_text("max 5\n")
    (tmp_path / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    assert service.events() == {"oom_kill": 3, "pids_max": 5}
    assert service.populated()
    (tmp_path / "pids.events").write_text("garbage\n")
    assert service.events()["pids_max"] == 0
