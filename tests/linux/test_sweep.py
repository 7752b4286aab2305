from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from agent.linux import process, sweep
from agent.linux.process import Identity
from agent.linux.sweep import MARK
from tests.linux.processes import ROOT, Started, eventually

Start = Callable[..., Started]
PATH = {"PATH": "/usr/bin:/bin"}

pytestmark = pytest.mark.usefixtures("subreaper", "children_source")


@pytest.fixture(params=["asked for by parent", "read from every process"])
def children_source(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to find children; the first falls back to the second where the kernel lacks it."""
    if request.param == "read from every process":
        monkeypatch.setattr(process, "has_children_files", lambda: False)


def main_of(child: Started) -> Identity:
    return process.identify(child.pid) or pytest.fail("it is gone")


def pids(identities: list[Identity]) -> set[int]:
    return {identity.pid for identity in identities}


def alive(pid: int) -> bool:
    found = process.stat(pid)
    return found is not None and found.alive


def end_all(find: Callable[[], list[Identity]]) -> None:
    """As a supervisor ends a service: kill and look again, until nobody is found."""

    def nobody_left() -> bool:
        found = find()
        sweep.signal_all(found, signal.SIGKILL)
        return not found

    eventually(nobody_left)


def test_marks_are_never_the_same() -> None:
    assert len({sweep.new_mark() for _ in range(100)}) == 100


def test_a_service_is_its_main_process_and_all_below_it(start: Start) -> None:
    child = start("sleep 60 & echo $!; (setsid sh -c 'echo $$; exec sleep 60') & wait")
    below = {int(child.line()), int(child.line())}
    found = sweep.members(main_of(child), child.pid, "")
    assert pids(found) >= {child.pid, *below}
    end_all(lambda: sweep.members(main_of(child), child.pid, ""))
    assert not any(alive(pid) for pid in below)


def test_a_double_fork_into_another_session_is_found_by_its_mark(start: Start) -> None:
    mark = sweep.new_mark()
    child = start("setsid sh -c 'echo $$; exec sleep 60 >/dev/null' &", environment={**PATH, MARK: mark})
    escaped = int(child.line())
    main = main_of(child)
    child.reap()
    assert pids(sweep.members(main, child.pid, mark)) == {escaped}
    assert pids(sweep.members(None, child.pid, mark)) == {escaped}
    assert sweep.members(None, child.pid, sweep.new_mark()) == []
    end_all(lambda: sweep.members(None, child.pid, mark))
    assert not alive(escaped)


def test_an_orphan_in_the_session_is_found_without_a_mark(start: Start) -> None:
    child = start("env -i sleep 60 >/dev/null & echo $!")
    orphan = int(child.line())
    child.reap()
    assert pids(sweep.members(None, child.pid, sweep.new_mark())) == {orphan}
    assert sweep.members(None, 0, sweep.new_mark()) == []


def test_who_clears_its_environment_is_betrayed_by_the_pipe_it_holds(start: Start) -> None:
    child = start("env -i setsid sh -c 'echo $$; exec sleep 60' &", environment={**PATH, MARK: "forgotten"})
    escaped = int(child.line())
    inodes = {child.output_inode}
    child.reap()
    assert sweep.members(None, child.pid, "forgotten") == []
    assert pids(sweep.members(None, child.pid, "forgotten", inodes)) == {escaped}
    end_all(lambda: sweep.members(None, child.pid, "forgotten", inodes))
    assert not alive(escaped)


def test_below_an_orphan_of_the_service_everything_is_the_services(start: Start) -> None:
    mark = sweep.new_mark()
    child = start(
        "setsid sh -c 'env -i setsid sh -c \"echo \\$\\$; exec sleep 60 >/dev/null\" & wait' &",
        environment={**PATH, MARK: mark},
    )
    hidden = int(child.line())
    child.reap()
    found = pids(sweep.members(None, child.pid, mark))
    assert hidden in found
    assert len(found) == 2


def test_who_shed_every_sign_is_nobodys_until_everything_ends(start: Start) -> None:
    mark = sweep.new_mark()
    child = start("env -i setsid sh -c 'echo $$; exec sleep 60 >/dev/null' &", environment={**PATH, MARK: mark})
    escaped = int(child.line())
    inodes = {child.output_inode}
    child.reap()
    eventually(lambda: (found := process.stat(escaped)) and found.comm == "sleep")
    assert sweep.members(None, child.pid, mark, inodes) == []
    assert escaped in pids(sweep.everything())
    end_all(lambda: [found for found in sweep.everything() if found.pid == escaped])
    assert not alive(escaped)


def test_two_services_are_told_apart(start: Start) -> None:
    marks = [sweep.new_mark(), sweep.new_mark()]
    children = [start("setsid sleep 60 & echo $!; wait", environment={**PATH, MARK: mark}) for mark in marks]
    escaped = [int(child.line()) for child in children]
    for child, mark, pid in zip(children, marks, escaped, strict=True):
        assert pids(sweep.members(main_of(child), child.pid, mark)) == {child.pid, pid}
    one, two = children
    assert pids(sweep.members(main_of(one), one.pid, marks[0], others={two.pid})) == {one.pid, escaped[0]}


def test_others_are_not_even_looked_at(start: Start) -> None:
    mark = sweep.new_mark()
    child = start("sleep 60 & echo $!; wait", environment={**PATH, MARK: mark})
    child.line()
    assert sweep.members(main_of(child), child.pid, mark, others={child.pid}) == []


def test_a_recycled_main_is_not_the_main(start: Start) -> None:
    child = start("exec sleep 60")
    other = main_of(child)._replace(start_time=1)
    assert sweep.members(other, 0, sweep.new_mark()) == []


def test_the_dead_are_no_members(start: Start) -> None:
    child = start("exec sleep 60")
    main = main_of(child)
    child.become_zombie()
    assert sweep.members(main, child.pid, "") == []


def test_a_process_in_our_own_session_is_found_below_us() -> None:
    child = subprocess.Popen(["sh", "-c", "sleep 60 & echo $!; wait"], stdout=subprocess.PIPE, process_group=0)
    try:
        assert child.stdout is not None
        below = int(child.stdout.readline())
        assert {child.pid, below} <= pids(sweep.everything())
        assert pids(sweep.members(process.identify(child.pid), 0, "")) == {child.pid, below}
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()


def test_processes_beside_us_are_never_members(start: Start) -> None:
    """A sibling with our very mark: it is no descendant of ours, so only ``survivors`` may find it."""
    mark = sweep.new_mark()
    outer = start(
        "import os, subprocess\n"
        "from agent.linux import process, sweep\n"
        f"sibling = subprocess.Popen(['sleep', '60'], env={{'PATH': '/bin', {MARK!r}: {mark!r}}})\n"
        "inner = subprocess.run(['python3', '-c', '''\n"
        f"import sys; sys.path.insert(0, {ROOT!r})\n"
        "from agent.linux import process, sweep\n"
        "process.become_subreaper()\n"
        f"print(sweep.members(None, 0, {mark!r}), sweep.everything(), len(sweep.survivors([{mark!r}])), flush=True)\n"
        "'''])",
        python=True,
    )
    assert outer.line() == "[] [] 1"


def test_survivors_of_a_killed_agent_are_known_by_their_marks(start: Start) -> None:
    marks = [sweep.new_mark(), sweep.new_mark()]
    agent = start(
        "import subprocess, sys, time\n"
        f"for mark in {marks!r}:\n"
        f"    environment = {{'PATH': '/usr/bin:/bin', {MARK!r}: mark}}\n"
        "    subprocess.Popen(['sh', '-c', 'setsid sleep 60 & exec sleep 60'], env=environment)\n"
        "print('on', flush=True)\n"
        "time.sleep(60)",
        python=True,
    )
    bystander = start("exec sleep 60", environment={**PATH, MARK: sweep.new_mark()})
    agent.line()
    eventually(lambda: len(sweep.survivors(marks)) == 4)
    agent.reap()
    assert len(sweep.survivors(marks)) == 4
    assert len(sweep.survivors(marks[:1])) == 2
    assert sweep.survivors([]) == []
    end_all(lambda: sweep.survivors(marks))
    assert alive(bystander.pid)


def test_we_are_no_survivor_of_ourselves() -> None:
    script = (
        f"import sys; sys.path.insert(0, {ROOT!r})\nfrom agent.linux import sweep\nprint(sweep.survivors(['mine']))"
    )
    done = subprocess.run([sys.executable, "-c", script], env={MARK: "mine"}, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_only_verified_processes_are_signalled(start: Start) -> None:
    child = start("exec sleep 60")
    true = main_of(child)
    forged = [true._replace(start_time=true.start_time - 1), true._replace(boot_id="another"), Identity(2**22, 1, "")]
    assert sweep.signal_all(forged, signal.SIGKILL) == 0
    assert alive(child.pid)
    assert sweep.signal_all([*forged, true], signal.SIGKILL) == 1
    eventually(lambda: not alive(child.pid))


def test_looking_is_cheap_when_there_is_nothing_to_find(start: Start) -> None:
    for _ in range(60):
        start("exec sleep 60")
    children = set(process.children_of(os.getpid()))
    durations = []
    for _ in range(20):
        before = time.perf_counter()
        assert sweep.members(None, 0, "absent", {1}, others=children) == []
        durations.append(time.perf_counter() - before)
    assert sorted(durations)[5] < 0.01
