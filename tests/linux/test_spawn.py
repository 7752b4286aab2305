from __future__ import annotations

import errno
import gc
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import agent.linux.spawn as spawning
from agent.errors import SpawnFailed
from agent.linux import process
from agent.linux.cgroup import CgroupTree
from agent.linux.clone import Unavailable
from agent.linux.process import ExitStatus
from agent.linux.spawn import Child, Completed, SpawnRequest, base_environment, own_program, run, spawn
from tests.linux.processes import BECOME_NOBODY, ROOT, eventually, open_fds, readable

ENVIRONMENT = {"PATH": "/usr/bin:/bin"}


BORN_IN: list[int] = []
"""The cgroup in which the children of the test at hand are born, if any."""


@pytest.fixture(params=["as we are", "in a cgroup", "in a cgroup, one of many"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Every way to start a process keeps every promise."""
    if request.param == "as we are":
        yield request.param
        return
    if request.param.endswith("many"):
        monkeypatch.setattr(spawning, "_MANY", 0)
    tree: CgroupTree = request.getfixturevalue("tree")
    cgroup = tree.service("spawned")
    BORN_IN.append(cgroup.fd())
    yield request.param
    BORN_IN.clear()
    cgroup.kill()
    eventually(lambda: not cgroup.populated())
    assert cgroup.remove()


def request(*argv: str, environment: Mapping[str, str] = ENVIRONMENT, **fields: Any) -> SpawnRequest:
    return SpawnRequest(argv=argv, environment=environment, cgroup=BORN_IN[0] if BORN_IN else None, **fields)


@contextmanager
def spawned(*argv: str, **fields: Any) -> Iterator[Child]:
    child = spawn(request(*argv, **fields))
    try:
        yield child
    finally:
        child.pidfd.signal(signal.SIGKILL)
        assert readable(child.pidfd.fd)
        child.pidfd.wait()
        child.pidfd.close()


def shell(script: str, **fields: Any) -> Completed:
    return run(request("/bin/sh", "-c", script, **fields), timeout=10)


def links(directory: Path) -> dict[int, str]:
    found = {}
    for entry in directory.iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            found[int(entry.name)] = str(entry.readlink())
    return found


def signals(mask: str) -> set[int]:
    """The signals in a mask of /proc/PID/status, but for the two that the C library keeps to itself (nptl(7))."""
    return {number for number in signal.valid_signals() if int(mask, 16) >> (number - 1) & 1}


def status_of(pid: int | str, field: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split(":")[1].strip() for line in lines if line.startswith(f"{field}:"))


def test_a_child_leads_its_own_session_and_is_known() -> None:
    with spawned("sleep", "60") as child:
        found = process.stat(child.pid)
        assert found is not None
        assert found.comm == "sleep"
        assert (found.sid, found.pgid, found.ppid) == (child.pid, child.pid, os.getpid())
        assert child.identity == process.identify(child.pid)
        assert child.pidfd.pid == child.pid


def test_a_child_of_a_foreground_command_stays_in_its_session() -> None:
    with spawned("sleep", "60", process_group_only=True) as child:
        found = process.stat(child.pid)
        assert found is not None
        assert (found.sid, found.pgid) == (os.getsid(0), child.pid)


def test_a_child_gets_the_environment_of_the_request_and_nothing_else() -> None:
    with spawned("sleep", "60", environment={"PATH": "/bin", "ONE": "ä b"}) as child:
        expected = "PATH=/bin\0ONE=ä b\0".encode()
        eventually(lambda: process.environ(child.pid) == expected)  # empty until execve is quite done


def test_a_child_reads_nothing_and_inherits_only_what_is_passed(tmp_path: Path) -> None:
    kept = os.open(tmp_path, os.O_RDONLY)
    spare = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(spare, True)
    expected = {0: "/dev/null", 1: "/dev/null", 2: "/dev/null", kept: str(tmp_path)}
    try:
        with spawned("sleep", "60", pass_fds=(kept,)) as child:
            directory = Path(f"/proc/{child.pid}/fd")
            eventually(lambda: links(directory) == expected)  # once it is fully loaded
    finally:
        os.close(kept)
        os.close(spare)


def test_working_directory_and_umask_are_set(tmp_path: Path) -> None:
    done = shell("pwd; umask", working_directory=str(tmp_path), umask=0o077)
    assert done.stdout.decode().split() == [str(tmp_path), "0077"]


def test_ignored_and_blocked_signals_of_ours_are_not_the_childs() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        with spawned("sleep", "60") as child:
            assert signals(status_of(child.pid, "SigIgn")) == set()
            assert int(status_of(child.pid, "SigBlk"), 16) == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == {signal.SIGUSR1}
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
        signal.signal(signal.SIGHUP, before)


def test_handlers_of_ours_are_not_the_childs() -> None:
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        with spawned("sleep", "60") as child:
            assert signals(status_of(child.pid, "SigCgt")) == set()
            assert signals(status_of(child.pid, "SigIgn")) == set()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_child_becomes_the_user_with_its_groups_and_variables() -> None:
    done = shell(
        "id -u; id -g; id -G; echo $HOME $USER $LOGNAME",
        user="nobody",
        environment={**ENVIRONMENT, "HOME": os.environ.get("HOME", "/root")},
    )
    assert done.stdout.decode().splitlines() == ["65534", "65534", "65534", "/nonexistent nobody nobody"]


def test_a_declared_home_is_left_alone() -> None:
    done = shell("echo $HOME $USER", user="nobody", environment={**ENVIRONMENT, "HOME": "/declared"})
    assert done.stdout == b"/declared nobody\n"


def test_a_group_alone_changes_the_group_alone() -> None:
    done = shell("id -u; id -gn; echo $HOME", group="nogroup", environment={**ENVIRONMENT, "HOME": "/mine"})
    assert done.stdout.decode().split() == [str(os.geteuid()), "nogroup", "/mine"]


def test_the_pidfd_alone_reaps_and_popen_stays_silent() -> None:
    with spawned("sh", "-c", "exit 4") as child:
        gc.collect()
        assert readable(child.pidfd.fd)
        with spawned("true"):  # a new Popen polls the ones that were dropped
            pass
        assert subprocess._active == []  # type: ignore[attr-defined]  # where dropped Popen objects would wait
        assert child.pidfd.wait() == ExitStatus(4)


def make_script(path: Path, text: str, mode: int = 0o755) -> str:
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_what_our_unit_hides_from_us_is_told_from_what_its_owner_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spawning, "_HOMES", (tmp_path,))
    script = make_script(tmp_path / "script", "#!/bin/sh\n", 0o644)
    try:
        for mode, told in (
            (0o700, "may not be entered"),
            (0o000, "by ProtectHome= of its unit; a drop-in may say otherwise"),
        ):
            tmp_path.chmod(mode)
            with pytest.raises(SpawnFailed) as failure:
                spawn(request(script))
            assert str(failure.value).endswith(told)
    finally:
        tmp_path.chmod(0o700)


def failures(tmp_path: Path) -> dict[str, tuple[SpawnRequest, str]]:
    plain = make_script(tmp_path / "plain", "#!/bin/sh\n", 0o644)
    orphaned = make_script(tmp_path / "orphaned", "#!/no/such/interpreter\n")
    garbage = make_script(tmp_path / "garbage", "\0\1\2")
    return {
        "missing": (request("no_such_program"), "cannot start no_such_program: no such program"),
        "missing path": (request("/no/such/program"), "cannot start /no/such/program: no such program"),
        "mode": (
            request(plain),
            f"cannot start {plain}: not executable, or a directory on the way may not be entered",
        ),
        "interpreter": (
            request(orphaned),
            f"cannot start {orphaned}: the interpreter that its first line or ELF header names does not exist",
        ),
        "relative interpreter": (
            request("./orphaned", working_directory=str(tmp_path)),
            "cannot start ./orphaned: the interpreter that its first line or ELF header names does not exist",
        ),
        "format": (
            request(garbage),
            f"cannot start {garbage}: not a program: neither a binary of this machine nor a script with a #! line",
        ),
        "directory": (
            request("true", working_directory="/no/such"),
            "cannot start true: working directory /no/such: No such file or directory",
        ),
        "length": (
            request("true", "x" * 200_000),
            "cannot start true: its arguments and environment are too long",
        ),
        "user": (request("true", user="no_such_user"), "no such user: no_such_user; create it or change `user`"),
        "group": (request("true", group="no_such_group"), "no such group: no_such_group; create it or change `group`"),
        "nul": (request("true", "a\0b"), "cannot start true: embedded null byte"),
        "variable": (
            request("true", environment={"A=B": "c"}),
            "cannot start true: illegal environment variable name",
        ),
        "empty": (request(), "cannot start an empty command: it names no program"),
    }


@pytest.mark.parametrize("case", failures(Path("/tmp")).keys())
def test_what_cannot_be_started_is_told_in_one_line_and_leaves_nothing(case: str, tmp_path: Path) -> None:
    wrong, message = failures(tmp_path)[case]
    before = open_fds()
    children = process.children_of(os.getpid())
    with pytest.raises(SpawnFailed) as failure:
        spawn(wrong)
    assert str(failure.value) == message
    assert failure.value.permanent
    assert open_fds() == before
    assert process.children_of(os.getpid()) == children


def test_a_child_that_cannot_be_held_is_not_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    def unavailable(*_: object) -> None:
        raise Unavailable

    before = process.children_of(os.getpid())
    monkeypatch.setattr(spawning, "bear", unavailable)
    monkeypatch.setattr(process.Pidfd, "open", refused)
    with pytest.raises(SpawnFailed, match="no file descriptor is left") as failure:
        spawn(request("sleep", "86401"))
    assert not failure.value.permanent
    assert process.children_of(os.getpid()) == before


def test_running_out_of_descriptors_passes_and_leaves_nothing() -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    children: list[Child] = []
    before = set(process.children_of(os.getpid()))
    fillers = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                fillers.append(os.dup(0))
        for _ in range(8):
            os.close(fillers.pop())
        with pytest.raises(SpawnFailed, match="cannot start sleep: no file descriptor is left") as failure:
            while len(children) < 16:
                children.append(spawn(request("sleep", "60")))
        assert not failure.value.permanent
        assert set(process.children_of(os.getpid())) - before == {child.pid for child in children}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for fd in fillers:
            os.close(fd)
        for child in children:
            child.pidfd.signal(signal.SIGKILL)
            readable(child.pidfd.fd)
            child.pidfd.wait()
            child.pidfd.close()


def as_nobody(script: str) -> str:
    """What is printed by code that imports what it needs from here, and then is an unprivileged user."""
    preamble = f"""
import resource, sys
sys.path.insert(0, {ROOT!r})
from agent.errors import SpawnFailed
from agent.linux.spawn import SpawnRequest, spawn
{BECOME_NOBODY}
"""
    done = subprocess.run([sys.executable, "-c", preamble + script], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_running_out_of_processes_passes() -> None:
    said = as_nobody(
        """
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
try:
    spawn(SpawnRequest(argv=["true"], environment={"PATH": "/bin"}))
except SpawnFailed as failure:
    print(failure, failure.permanent)
"""
    )
    assert said == (
        "cannot start true: no more processes are allowed (a limit on processes or tasks is reached) False\n"
    )


@pytest.mark.parametrize("directory", [None, "/"])
def test_a_user_whom_we_may_not_become_is_refused(directory: str | None) -> None:
    said = as_nobody(
        f"""
try:
    spawn(SpawnRequest(argv=["true"], environment={{"PATH": "/bin"}}, user="root", working_directory={directory!r}))
except SpawnFailed as failure:
    print(failure, failure.permanent)
"""
    )
    assert said == "cannot start true: not permitted to run as root True\n"


def test_spawning_is_quick() -> None:
    durations = []
    for _ in range(20):
        before = time.perf_counter()
        with spawned("true"):
            durations.append(time.perf_counter() - before)
    assert min(durations) < 0.02  # about 1.4 ms on an idle machine; a fork of a large process shows here


def test_a_command_is_run_to_its_end_and_its_output_kept() -> None:
    done = shell("echo out; echo err >&2; exit 3")
    assert done == Completed(ExitStatus(3), b"out\n", b"err\n", truncated=False, timed_out=False)


def test_a_flood_of_output_is_bounded_and_does_not_block_its_writer() -> None:
    done = run(request("head", "-c", "3000000", "/dev/zero"), timeout=10, max_output=1000)
    assert done.status.success
    assert len(done.stdout) == 1000
    assert done.truncated


def test_a_command_that_closes_its_output_is_still_waited_for() -> None:
    assert shell("exec >&- 2>&-; exec sleep 0.05").status == ExitStatus(0)


def test_a_command_out_of_time_is_killed_with_its_whole_group() -> None:
    done = run(request("/bin/sh", "-c", "sleep 60 & echo $!; wait"), timeout=0.2)
    assert done.timed_out
    assert done.status == ExitStatus(None, signal.SIGKILL)
    left = int(done.stdout)
    eventually(lambda: not ((found := process.stat(left)) and found.alive))


def test_a_command_that_leaves_a_child_behind_is_cleaned_up_and_keeps_nobody_waiting() -> None:
    before = time.monotonic()
    done = shell("sleep 60 & echo $!")
    assert time.monotonic() - before < 5
    assert done.status == ExitStatus(0)
    left = int(done.stdout)
    eventually(lambda: not ((found := process.stat(left)) and found.alive))


def test_a_child_that_escapes_with_the_output_keeps_nobody_waiting(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = shell(
        f"setsid sh -c 'echo $$; touch {out}; while sleep 0.01; do echo more; done' & until [ -e {out} ]; do :; done"
    )
    escaped = int(done.stdout.split()[0])
    os.kill(escaped, signal.SIGKILL)
    assert done.status == ExitStatus(0)


def test_running_leaves_no_descriptor_behind() -> None:
    before = open_fds()
    shell("true")
    with pytest.raises(SpawnFailed):
        run(request("no_such_program"), timeout=1)
    assert open_fds() == before


def test_a_bundle_is_handed_on_to_its_own_program_and_to_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = {"LD_LIBRARY_PATH": "/bundle/lib", "_PYI_ARCHIVE_FILE": "/bundle/agentctl"}
    for name, value in bundle.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    found = {}
    for own in (True, False):
        done = run(request("env", environment=base_environment(os.environ), own_program=own), timeout=10)
        found[own] = dict(line.split("=", 1) for line in done.stdout.decode().splitlines())
    assert bundle.items() <= found[True].items()
    assert not bundle.keys() & found[False].keys()
    declared = {"PATH": "/usr/bin:/bin", "LD_LIBRARY_PATH": "/declared"}
    assert b"LD_LIBRARY_PATH=/declared\n" in run(request("env", environment=declared), timeout=10).stdout
    assert b"LD_LIBRARY_PATH=/bundle/lib\n" in run(request("env", environment=declared, own_program=True), 10).stdout


def test_this_program_can_start_itself_from_anywhere(tmp_path: Path) -> None:
    (tmp_path / "agent.py").write_text("raise SystemExit('the wrong agent')")
    command = [*own_program()[:-2], "-c", "import agent; print(agent.__file__)"]
    child_environment = base_environment(os.environ)
    done = run(
        SpawnRequest(argv=command, environment=child_environment, working_directory=str(tmp_path), own_program=True),
        timeout=10,
    )
    assert done.stdout.decode().strip() == f"{ROOT}/agent/__init__.py"
    assert command[0] == sys.executable


@pytest.mark.parametrize("capabilities", [None, ("CAP_NET_RAW",)], ids=["as it is", "with fewer rights"])
def test_what_is_bound_is_killed_with_who_has_started_it(capabilities: tuple[str, ...] | None) -> None:
    bound = request("sleep", "1000", bound=True, capabilities=capabilities)
    report, told = os.pipe()
    starter = os.fork()
    if starter == 0:
        with suppress(BaseException):
            os.write(told, str(spawn(bound).pid).encode())
            signal.pause()
        os._exit(1)
    os.close(told)
    pid = int(os.read(report, 20))
    pidfd = os.pidfd_open(pid)
    os.close(report)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    assert not poll.poll(0), "it lives as long as who has started it"
    os.kill(starter, signal.SIGKILL)
    os.waitpid(starter, 0)
    assert poll.poll(10_000)
    os.close(pidfd)
