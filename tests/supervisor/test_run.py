"""One run, from spawn to the last of it gone; and what is left when it fails half-way."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import pytest

from agent.errors import SpawnFailed
from agent.linux import process, signals
from agent.linux.process import ExitStatus, reap_strangers
from agent.linux.sweep import MARK as MARK_VARIABLE
from agent.supervisor.containment import Containment, SweepContainment
from agent.supervisor.launch import Launch
from agent.supervisor.run import RESERVED_DESCRIPTORS, Orders, Run, RunState, check_descriptors
from tests.linux.processes import readable
from tests.supervisor.conftest import MARK, FileSink, descriptors, until


class Started:
    """A run and what it told."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        containment: Containment,
        directory: Path,
        script: str,
        on_exit: Callable[[ExitStatus], None] | None = None,
        **orders: object,
    ) -> None:
        self.log = FileSink(directory / "x.log")
        self.pid_file = directory / "x.pid"
        self.told: list[ExitStatus | str] = []
        environment = {"PATH": "/usr/bin:/bin", MARK_VARIABLE: MARK}
        given = {"user": None, "group": None, "working_directory": None, **orders}
        self.run = Run(
            loop,
            Orders("x", Launch(("/bin/sh", "-c", script), environment, False, None), mark=MARK, **given),  # type: ignore[arg-type]  # of the fields' own types
            self.pid_file,
            containment,
            self.log,
            on_exit=on_exit or self.told.append,
            on_gone=lambda: self.told.append("gone"),
        )
        signals.watch(loop, signal.SIGCHLD, self._reap)

    def _reap(self) -> None:
        with suppress(OSError):
            reap_strangers({self.run.pid}.__contains__)

    def output(self) -> list[str]:
        return [line.split(" ", 1)[1] for line in self.log.file.path.read_text().splitlines()]


Start = Callable[..., Started]


@pytest.fixture
def start(loop: asyncio.AbstractEventLoop, containment: Containment, tmp_path: Path) -> Start:
    return lambda script, **orders: Started(loop, containment, tmp_path, script, **orders)


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


def test_it_tells_its_exit_then_that_it_is_gone_and_leaves_nothing_open(
    start: Start, loop: asyncio.AbstractEventLoop
) -> None:
    before = descriptors()
    started = start("echo first; echo last >&2; exit 3")
    assert started.pid_file.read_text() == f"{started.run.pid}\n"
    until(loop, lambda: "gone" in started.told)
    assert started.told == [ExitStatus(3), "gone"]
    assert started.output() == ["first", "last"]
    assert started.run.last_line == "last"
    assert started.run.exited
    assert not started.pid_file.exists()
    assert started.log.closed
    assert descriptors() - before <= 4  # the loop's own for signals


def test_what_it_leaves_behind_is_killed_before_it_is_gone(start: Start, loop: asyncio.AbstractEventLoop) -> None:
    started = start("setsid sleep 86741 & echo up; exec sleep 86741")
    until(loop, lambda: len(started.run.pids()) == 2 and started.run.last_line == "up")
    assert started.run.pids()[0] == started.run.pid
    os.kill(started.run.pid, signal.SIGKILL)
    until(loop, lambda: started.told)
    assert started.told == [ExitStatus(None, signal.SIGKILL)]
    started.run.kill()
    until(loop, lambda: "gone" in started.told)
    assert started.run.pids() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_worker_is_reached_also_when_descriptors_have_run_out(
    start: Start, loop: asyncio.AbstractEventLoop, number: int
) -> None:
    started = start("exec sleep 86742")
    started.run.signal(signal.SIGSTOP)
    with no_descriptor_left():
        if number == signal.SIGKILL:
            started.run.kill()
        else:
            started.run.signal(number)
        until(loop, lambda: started.told)
    assert started.told[0] == ExitStatus(None, number)
    until(loop, lambda: "gone" in started.told)


def test_a_program_that_does_not_exist_costs_no_descriptor(start: Start, containment: Containment) -> None:
    before = descriptors()
    with pytest.raises(SpawnFailed, match="working directory"):
        start("exit 0", working_directory="/nowhere/at/all")
    containment.close()
    assert descriptors() == before


def test_without_a_descriptor_for_its_pipe_it_fails_and_may_be_tried_again(
    start: Start, containment: Containment
) -> None:
    before = descriptors()
    with no_descriptor_left(), pytest.raises(SpawnFailed) as failure:
        start("exit 0")
    assert not failure.value.permanent
    containment.close()
    assert descriptors() == before


def test_a_process_that_cannot_be_looked_after_does_not_live(loop: asyncio.AbstractEventLoop, tmp_path: Path) -> None:
    before = descriptors()
    closed = asyncio.new_event_loop()
    closed.close()
    with pytest.raises(RuntimeError, match="closed"):
        Started(closed, SweepContainment(loop, MARK), tmp_path, "setsid sleep 86743 & exec sleep 86743")

    def reaped() -> bool:
        reap_strangers(lambda pid: False)
        return not process.descendants(os.getpid())

    until(loop, reaped)
    assert descriptors() == before


def test_a_callback_that_fails_does_not_keep_a_run_from_being_gone(
    loop: asyncio.AbstractEventLoop, containment: Containment, tmp_path: Path
) -> None:
    failed: list[str] = []
    loop.set_exception_handler(lambda loop, context: failed.append(str(context["exception"])))

    def fail(status: ExitStatus) -> None:
        raise ValueError("a bug")

    started = Started(loop, containment, tmp_path, "exit 0", fail)
    until(loop, lambda: started.told)
    assert started.told == ["gone"]
    assert failed == ["a bug"]


def test_a_service_is_refused_when_the_reserve_would_be_touched() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + RESERVED_DESCRIPTORS + 8, hard))
        check_descriptors()
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + RESERVED_DESCRIPTORS - 8, hard))
        with pytest.raises(SpawnFailed, match="no descriptors left for it"):
            check_descriptors()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# -- another program in this process ----------------------------------------------------------------------------------


class Resumed:
    """A run as the program that follows has it: what the first knew went with execve(2), but for what it froze."""

    def __init__(self, first: Run, loop: asyncio.AbstractEventLoop, directory: Path) -> None:
        self.state = msgspec.json.decode(msgspec.json.encode(first.freeze()), type=RunState)
        for fd in (self.state.output, self.state.pidfd):
            if fd is not None:
                loop.remove_reader(fd)
        first._containment.close()
        self.log = FileSink(directory / "x.log")
        self.told: list[ExitStatus | str] = []
        self._loop = loop
        self._pid_file = directory / "x.pid"

    def go_on(self) -> Run:
        self.run = Run(
            self._loop,
            self.state,
            self._pid_file,
            SweepContainment(self._loop, MARK, held=self.state.held),
            self.log,
            on_exit=self.told.append,
            on_gone=lambda: self.told.append("gone"),
        )
        return self.run

    def output(self) -> list[str]:
        return [line.split(" ", 1)[1] for line in self.log.file.path.read_text().splitlines()]


@pytest.fixture
def swept(loop: asyncio.AbstractEventLoop, tmp_path: Path) -> Start:
    return lambda script: Started(loop, SweepContainment(loop, MARK), tmp_path, script)


def test_another_program_reads_on_and_is_told_of_the_end(
    swept: Start, loop: asyncio.AbstractEventLoop, tmp_path: Path
) -> None:
    before = descriptors()
    started = swept("trap 'printf words; exit 7' USR1; printf 'first\\nlast '; while :; do sleep 0.01; done")
    until(loop, lambda: started.run.last_line == "last")
    resumed = Resumed(started.run, loop, tmp_path)
    os.kill(started.run.pid, signal.SIGUSR1)
    assert readable(resumed.state.pidfd or -1), "it ends while nobody supervises"
    run = resumed.go_on()
    assert (run.pid, run.exited, run.last_line) == (started.run.pid, False, "last")
    until(loop, lambda: "gone" in resumed.told)
    assert resumed.told == [ExitStatus(7), "gone"]
    assert (run.last_line, started.told) == ("last words", [])
    assert resumed.output() == ["first", "last words"]
    assert not started.pid_file.exists()
    started.log.file._shut()
    assert descriptors() - before <= 4  # the loop's own for signals


def test_another_program_ends_what_a_worker_that_is_gone_has_left(
    swept: Start, loop: asyncio.AbstractEventLoop, tmp_path: Path
) -> None:
    started = swept("setsid sh -c 'echo left; exec sleep 86744' & echo up; exec sleep 86744")
    until(loop, lambda: started.run.last_line == "left" and len(started.run.pids()) == 2)
    os.kill(started.run.pid, signal.SIGKILL)
    until(loop, lambda: started.told)
    resumed = Resumed(started.run, loop, tmp_path)
    assert (resumed.state.pidfd, resumed.state.reading) == (None, True)
    run = resumed.go_on()
    assert run.exited
    loop.run_until_complete(asyncio.sleep(0.02))
    assert (resumed.told, len(run.pids())) == ([], 1)
    run.signal(signal.SIGTERM)
    until(loop, lambda: resumed.told)
    assert resumed.told == ["gone"], "its exit was told before"
    started.log.file._shut()


def test_a_worker_that_has_closed_its_output_is_not_read_by_another_program_either(
    swept: Start, loop: asyncio.AbstractEventLoop, tmp_path: Path
) -> None:
    started = swept("echo bye; exec >&- 2>&-; exec sleep 86745")
    until(loop, lambda: not started.run.freeze().reading)
    resumed = Resumed(started.run, loop, tmp_path)
    run = resumed.go_on()
    begun = time.process_time()
    loop.run_until_complete(asyncio.sleep(0.1))
    assert time.process_time() - begun < 0.05, "a pipe at its end polls readable for ever"
    run.kill()
    until(loop, lambda: "gone" in resumed.told)
    assert resumed.output() == ["bye"]
    started.log.file._shut()


def test_descriptors_that_are_not_there_are_a_failure_that_closes_none(
    swept: Start, loop: asyncio.AbstractEventLoop, tmp_path: Path
) -> None:
    started = swept("exec sleep 86746")
    resumed = Resumed(started.run, loop, tmp_path)
    state, before = resumed.state, descriptors()
    resumed.state = msgspec.structs.replace(state, output=9999)
    with pytest.raises(OSError, match="Bad file descriptor"):
        resumed.go_on()
    assert descriptors() == before
    resumed.state = state
    resumed.go_on().kill()
    until(loop, lambda: "gone" in resumed.told)


def test_freezing_changes_nothing(start: Start, loop: asyncio.AbstractEventLoop) -> None:
    started = start("trap 'echo b; exit 0' USR1; printf 'a '; while :; do sleep 0.01; done")
    until(loop, lambda: started.run.last_line == "a")
    before = descriptors()
    assert started.run.freeze() == started.run.freeze()
    assert descriptors() == before
    os.kill(started.run.pid, signal.SIGUSR1)
    until(loop, lambda: "gone" in started.told)
    assert (started.told, started.output()) == ([ExitStatus(0), "gone"], ["a b"])
