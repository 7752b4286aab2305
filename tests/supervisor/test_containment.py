"""Whatever a run started is found, signalled and waited for, in a cgroup and without one."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from agent.linux.cgroup import CgroupTree
from agent.linux.process import reap_strangers
from agent.linux.spawn import Child, SpawnRequest, spawn
from agent.linux.sweep import MARK as MARK_VARIABLE
from agent.supervisor.containment import CgroupContainment, Containment, Held, SweepContainment
from tests.harness import commanded
from tests.supervisor.conftest import MARK, descriptors, until

FAMILY = "setsid sleep 86601 & setsid sleep 86601 & exec sleep 86601"


def begin(containment: Containment, script: str) -> Child:
    """A worker in there, as a run would start it."""
    environment = {"PATH": "/usr/bin:/bin", MARK_VARIABLE: MARK}
    child = spawn(SpawnRequest(argv=["/bin/sh", "-c", script], environment=environment, cgroup=containment.cgroup()))
    containment.adopt(child.identity, set())
    return child


def end(child: Child, loop: asyncio.AbstractEventLoop) -> None:
    child.pidfd.signal(signal.SIGKILL)
    until(loop, child.pidfd.wait)
    child.pidfd.close()


def reap(loop: asyncio.AbstractEventLoop) -> None:
    loop.add_signal_handler(signal.SIGCHLD, lambda: reap_strangers(lambda pid: False))


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_a_descriptor_nobody_is_said_to_be_in_it(
    containment: Containment, loop: asyncio.AbstractEventLoop
) -> None:
    child = begin(containment, "exec sleep 86601")
    assert containment.pids() == [child.pid]
    with no_descriptor_left(), pytest.raises(OSError, match="Too many open files"):
        containment.pids()
    end(child, loop)


def test_who_is_missed_in_a_look_that_others_share_is_not_forgotten(loop: asyncio.AbstractEventLoop) -> None:
    containment = SweepContainment(loop, MARK)
    child = begin(containment, "env -i setsid sleep 86601 >/dev/null & exec sleep 86601")
    until(loop, lambda: len(containment.pids()) == 2 and len(commanded("sleep 86601")) == 2)
    (hidden,) = {*containment.pids()} - {child.pid}
    end(child, loop)
    assert containment.pids(lambda pid: []) == []  # as it was listed before the worker ended
    assert containment.pids() == [hidden]
    containment.kill()
    until(loop, lambda: not containment.pids())
    containment.close()


def test_an_empty_one_is_gone_at_once(containment: Containment, loop: asyncio.AbstractEventLoop) -> None:
    child = begin(containment, "exit 0")
    until(loop, child.pidfd.wait)
    child.pidfd.close()
    told: list[bool] = []
    containment.when_gone(lambda: told.append(True))
    assert told == [True]


def test_it_is_gone_once_the_last_that_escaped_is_killed(
    containment: Containment, loop: asyncio.AbstractEventLoop
) -> None:
    before = descriptors()
    child = begin(containment, FAMILY)
    until(loop, lambda: len(containment.pids()) == 3)
    end(child, loop)
    reap(loop)
    told: list[bool] = []
    containment.when_gone(lambda: told.append(True))
    loop.run_until_complete(asyncio.sleep(0))
    assert (len(containment.pids()), told) == (2, [])
    containment.kill()
    until(loop, lambda: told)
    assert containment.pids() == []
    containment.close()
    assert descriptors() == before
    loop.run_until_complete(asyncio.sleep(0))
    assert told == [True]


def test_a_signal_reaches_everybody_and_wakes_the_stopped(
    containment: Containment, loop: asyncio.AbstractEventLoop
) -> None:
    child = begin(containment, FAMILY)
    until(loop, lambda: len(containment.pids()) == 3)
    child.pidfd.signal(signal.SIGSTOP)
    reap(loop)
    assert containment.signal(signal.SIGTERM) == 3
    until(loop, child.pidfd.wait)
    child.pidfd.close()
    told: list[bool] = []
    containment.when_gone(lambda: told.append(True))
    until(loop, lambda: told)
    assert containment.signal(signal.SIGTERM) == 0


def test_without_a_descriptor_to_look_with_nobody_is_taken_for_gone(
    containment: Containment, loop: asyncio.AbstractEventLoop
) -> None:
    child = begin(containment, FAMILY)
    until(loop, lambda: len(containment.pids()) == 3)
    end(child, loop)
    reap(loop)
    told: list[bool] = []
    with no_descriptor_left():
        containment.kill()
        containment.when_gone(lambda: told.append(True))
        loop.run_until_complete(asyncio.sleep(0.15))
        assert not told
    containment.kill()
    until(loop, lambda: told)


def test_a_hundred_orphans_are_waited_for_with_a_handful_of_descriptors(loop: asyncio.AbstractEventLoop) -> None:
    swept = SweepContainment(loop, MARK)
    child = begin(swept, "for i in $(seq 100); do setsid sleep 86601 & done; exec sleep 86601")
    until(loop, lambda: len(swept.pids()) == 101)
    end(child, loop)
    reap(loop)
    before = descriptors()
    told: list[bool] = []
    swept.when_gone(lambda: told.append(True))
    assert descriptors() - before < 20
    swept.kill()
    until(loop, lambda: told)


def test_a_cgroup_is_watched_also_when_the_user_has_no_inotify_instance_left(
    tree: CgroupTree, loop: asyncio.AbstractEventLoop
) -> None:
    contained = CgroupContainment(loop, tree.service("api"))
    child = begin(contained, FAMILY)
    until(loop, lambda: len(contained.pids()) == 3)
    end(child, loop)
    reap(loop)
    told: list[bool] = []
    with Path("/proc/sys/fs/inotify/max_user_instances").open("r+") as limit:
        allowed = limit.read()
        limit.write("0")
        limit.flush()
        try:
            contained.when_gone(lambda: told.append(True))
            loop.run_until_complete(asyncio.sleep(0))
            assert not told
        finally:
            limit.write(allowed)
            limit.flush()
    contained.kill()
    until(loop, lambda: told)
    contained.close()


@pytest.mark.parametrize("number", [signal.SIGCONT, signal.SIGKILL])
def test_what_needs_no_waking_is_sent_alone(
    containment: Containment, loop: asyncio.AbstractEventLoop, number: int
) -> None:
    child = begin(containment, "exec sleep 86601")
    assert containment.signal(number) == 1
    end(child, loop)


# -- another program in this process ----------------------------------------------------------------------------------


def another_program(
    containment: Containment, loop: asyncio.AbstractEventLoop, child: Child, tree: CgroupTree | None
) -> Containment:
    """The same processes as the program that follows holds them."""
    held = msgspec.json.decode(msgspec.json.encode(containment.freeze()), type=Held)
    containment.close()
    follows: Containment = SweepContainment(loop, MARK, held=held)
    if isinstance(containment, CgroupContainment):
        assert tree is not None
        follows = CgroupContainment(loop, tree.held("api"), held)
    follows.adopt(child.identity, set())
    return follows


@pytest.fixture
def maybe_tree(request: pytest.FixtureRequest, containment: Containment) -> CgroupTree | None:
    """The tree of a cgroup containment."""
    if not isinstance(containment, CgroupContainment):
        return None
    found: CgroupTree = request.getfixturevalue("tree")
    return found


def test_another_program_holds_everybody_also_those_who_have_shed_every_sign(
    containment: Containment, maybe_tree: CgroupTree | None, loop: asyncio.AbstractEventLoop
) -> None:
    child = begin(containment, "setsid env -i /bin/sleep 86602 & exec sleep 86601")
    until(loop, lambda: len(containment.pids()) == 2)
    before = containment.pids()
    follows = another_program(containment, loop, child, maybe_tree)
    assert sorted(follows.pids()) == sorted(before)
    end(child, loop)  # and who is left is nobody's child any more
    reap(loop)
    follows = another_program(follows, loop, child, maybe_tree)
    assert len(follows.pids()) == 1
    told: list[bool] = []
    follows.when_gone(lambda: told.append(True))
    loop.run_until_complete(asyncio.sleep(0))
    assert not told
    follows.kill()
    until(loop, lambda: told)
    follows.close()


def test_another_program_goes_on_killing(
    containment: Containment, maybe_tree: CgroupTree | None, loop: asyncio.AbstractEventLoop
) -> None:
    child = begin(containment, "exec sleep 86601")
    reap(loop)
    containment.kill()
    follows = another_program(containment, loop, child, maybe_tree)
    until(loop, child.pidfd.wait)
    child.pidfd.close()
    told: list[bool] = []
    follows.when_gone(lambda: told.append(True))
    until(loop, lambda: told)
    assert isinstance(follows, CgroupContainment) or follows.freeze().killing
    follows.close()


def test_what_the_kernel_killed_before_is_not_put_down_to_memory_by_another_program(
    tree: CgroupTree, loop: asyncio.AbstractEventLoop
) -> None:
    contained = CgroupContainment(loop, tree.service("api"), Held(oom_kills=-1))
    assert contained.out_of_memory(), "one kill since"
    frozen = contained.freeze()
    assert frozen == Held(oom_kills=-1)
    assert CgroupContainment(loop, tree.held("api"), frozen).out_of_memory()
    assert not CgroupContainment(loop, tree.held("api"), Held(oom_kills=0)).out_of_memory()
    contained.close()
