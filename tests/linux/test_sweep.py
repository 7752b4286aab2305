from __future__ import annotations

import os
import signal
import subprocess
import sys
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


def end_all(find: Callable[[set[Identity]], list[Identity]]) -> None:
    """As a supervisor ends a service: kill and look again, until nobody is found, remembering who was."""
    seen: set[Identity] = set()

    def nobody_left() -> bool:
        found = find(seen)
        seen.update(found)
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
    end_all(lambda seen: sweep.members(main_of(child), child.pid, "", seen=seen))
    assert not any(alive(pid) for pid in below)


def test_whoever_was_once_seen_below_the_main_process_is_not_forgotten_with_it(start: Start) -> None:
    child = start("env -i setsid sh -c 'trap : TERM; echo $$; while :; do sleep 1; done >/dev/null' & wait")
    hidden = int(child.line())
    main = main_of(child)
    seen = sweep.members(main, child.pid, "")
    assert hidden in pids(seen)
    child.reap()
    assert hidden not in pids(sweep.members(main, child.pid, ""))
    assert hidden in pids(sweep.members(main, child.pid, "", seen=seen))
    assert hidden not in pids(sweep.members(main, child.pid, "", seen={each._replace(start_time=1) for each in seen}))
    end_all(lambda more: sweep.members(None, child.pid, "", seen={*seen, *more}))
    assert not alive(hidden)


def test_a_double_fork_into_another_session_is_found_by_its_mark(start: Start) -> None:
    mark = sweep.new_mark()
    child = start("setsid sh -c 'echo $$; exec sleep 60 >/dev/null' &", environment={**PATH, MARK: mark})
    escaped = int(child.line())
    main = main_of(child)
    child.reap()
    assert pids(sweep.members(main, child.pid, mark)) == {escaped}
    assert pids(sweep.members(None, child.pid, mark)) == {escaped}
    assert sweep.members(None, child.pid, sweep.new_mark()) == []
    end_all(lambda _: sweep.members(None, child.pid, mark))
    assert not alive(escaped)


class Ending:
    """A process that forks another and ends while somebody looks: after we were asked for our children, before it."""

    def __init__(self, child: Started, monkeypatch: pytest.MonkeyPatch) -> None:
        self._child = child
        self._forked: int | None = None
        self._family = process.family
        monkeypatch.setattr(process, "family", self.family)
        monkeypatch.setattr(sweep, "family", self.family)

    def family(self) -> process.Relation:
        known = self._family()

        def relation(pid: int) -> list[int]:
            children = known(pid)
            if pid == os.getpid() and self._forked is None:
                self._child.end()
                self._forked = int(self._child.line())
                os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOWAIT)
            return children

        return relation

    @property
    def forked(self) -> int:
        return self._forked or pytest.fail("nobody asked for our children")


def test_who_is_forked_and_left_by_its_parent_while_we_look_is_found(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = sweep.new_mark()
    child = start("read -r _; sleep 60 >/dev/null & echo $!", environment={**PATH, MARK: mark})
    ending = Ending(child, monkeypatch)
    found = sweep.members(main_of(child), child.pid, mark)
    assert pids(found) == {ending.forked}
    end_all(lambda _: sweep.members(None, child.pid, mark))


def test_who_is_forked_and_left_while_everything_is_looked_for_is_found(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = start("read -r _; sleep 60 >/dev/null & echo $!")
    ending = Ending(child, monkeypatch)
    found = process.descendants(os.getpid())
    assert ending.forked in found
    end_all(lambda _: sweep.members(None, child.pid, ""))


def test_an_orphan_in_the_session_is_found_without_a_mark(start: Start) -> None:
    child = start("env -i sleep 60 >/dev/null & echo $!")
    orphan = int(child.line())
    child.reap()
    assert pids(sweep.members(None, child.pid, sweep.new_mark())) == {orphan}
    assert sweep.members(None, 0, sweep.new_mark()) == []


def test_a_process_that_keeps_executing_programs_is_found_each_time(start: Start) -> None:
    """In the middle of execve a process shows no environment: a look at that instant must not miss it."""
    mark = sweep.new_mark()
    script = 'exec sh -c "$0" "$0"'
    child = start(f"setsid sh -c '{script}' '{script}' >/dev/null & echo $!", environment={**PATH, MARK: mark})
    restless = int(child.line())
    child.reap()
    eventually(lambda: process.stat(restless) and process.environ(restless))
    for _ in range(200):
        assert pids(sweep.members(None, 0, mark)) == {restless}


def test_a_session_whose_number_was_given_to_another_service_is_not_ours(start: Start) -> None:
    """As if our session had ended and its number were now the PID of another service's main process."""
    ours, theirs = sweep.new_mark(), sweep.new_mark()
    other = start("exec sleep 60", environment={**PATH, MARK: theirs})
    assert sweep.members(None, other.pid, ours) == []
    assert pids(sweep.members(None, other.pid, theirs)) == {other.pid}


def test_who_clears_its_environment_is_betrayed_by_the_pipe_it_holds(start: Start) -> None:
    child = start("env -i setsid sh -c 'echo $$; exec sleep 60' &", environment={**PATH, MARK: "forgotten"})
    escaped = int(child.line())
    inodes = {child.output_inode}
    child.reap()
    assert sweep.members(None, child.pid, "forgotten") == []
    assert pids(sweep.members(None, child.pid, "forgotten", inodes)) == {escaped}
    end_all(lambda _: sweep.members(None, child.pid, "forgotten", inodes))
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
    end_all(lambda _: [found for found in sweep.everything() if found.pid == escaped])
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
    end_all(lambda _: sweep.survivors(marks))
    assert alive(bystander.pid)


def test_we_are_no_survivor_of_ourselves() -> None:
    mark = sweep.new_mark()
    script = (
        f"import sys; sys.path.insert(0, {ROOT!r})\nfrom agent.linux import sweep\nprint(sweep.survivors([{mark!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", script], env={MARK: mark}, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_only_verified_processes_are_signalled(start: Start) -> None:
    child = start("exec sleep 60")
    true = main_of(child)
    forged = [true._replace(start_time=true.start_time - 1), true._replace(boot_id="another"), Identity(2**22, 1, "")]
    assert sweep.signal_all(forged, signal.SIGKILL) == 0
    assert alive(child.pid)
    assert sweep.signal_all([*forged, true], signal.SIGKILL) == 1
    eventually(lambda: not alive(child.pid))


def test_looking_reads_nothing_of_services_that_are_known(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(20):
        start("exec sleep 60")
    children = set(process.children_of(os.getpid()))
    looked_at: list[int] = []
    monkeypatch.setattr(sweep, "stat", looked_at.append)
    assert sweep.members(None, 0, "absent", {1}, others=children) == []
    assert looked_at == []
