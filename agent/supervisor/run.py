"""One run of a service: the process, its pipe, its containment, from spawn to the last of it gone."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Protocol

import msgspec

from agent.declaration.model import LogPolicy
from agent.errors import AgentError, SpawnFailed
from agent.linux.files import write_pid
from agent.linux.process import ExitStatus, Identity, Pidfd, Relation, catches
from agent.linux.spawn import Child, SpawnRequest, spawn
from agent.supervisor.containment import Containment, Held
from agent.supervisor.launch import Launch
from agent.telemetry.log_pump import PumpState
from agent.telemetry.logs import LogState

DRAIN_DEADLINE = 1.0
"""Seconds of reading at most for the last words of a run whose pipe is still held by somebody."""
ABANDON_DEADLINE, ABANDON_PAUSE = 0.5, 0.001
"""Seconds in which nothing of a start that failed half-way is left alive, and between two looks at it."""
RESERVED_DESCRIPTORS = 32
"""Descriptors that no service may take: the control socket, the history and the logs must go on working."""


def check_descriptors() -> None:
    """Raise ``SpawnFailed`` when so few descriptors are left that a service must not take any."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Descriptors are handed out lowest first: the next one tells how many are in use.
    try:
        following = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        os.close(following)
    except OSError:
        following = limit
    if following > limit - RESERVED_DESCRIPTORS:
        message = f"no descriptors left for it: the agent uses {following} of {limit}; raise LimitNOFILE="
        raise SpawnFailed(message, permanent=False)


class Pump(Protocol):
    """Empties one pipe, which it owns. ``agent.telemetry.log_pump.LogPump`` is one."""

    dropped_bytes: int

    @property
    def last_line(self) -> str: ...
    def freeze(self) -> PumpState: ...
    def thaw(self, state: PumpState) -> None: ...
    def read_ready(self) -> bool: ...
    def drain(self, deadline: float) -> bool: ...
    def close(self) -> None: ...


class Sink(Protocol):
    """Where a run's output goes. ``dropped_bytes`` is what of it is lost for good."""

    @property
    def dropped_bytes(self) -> int: ...
    def pump(self, fd: int) -> Pump: ...
    def adjust(self, policy: LogPolicy) -> None: ...
    def freeze(self) -> LogState: ...
    def thaw(self, state: LogState) -> None: ...
    def close(self) -> None: ...


class Orders(msgspec.Struct, frozen=True):
    """What a run needs to know of its service."""

    name: str
    launch: Launch
    user: str | None
    group: str | None
    working_directory: str | None
    mark: str
    pass_fds: tuple[int, ...] = ()


class RunState(msgspec.Struct, frozen=True):
    """A run between two programs. ``pidfd`` and ``output`` are descriptors that both hold.

    ``pidfd`` is ``None`` once the worker has ended and only what it left behind is waited for; ``reading`` is whether
    its pipe has not come to its end.
    """

    identity: Identity
    pidfd: int | None
    output: int
    reading: bool
    mark: str
    held: Held
    pump: PumpState
    log: LogState


class Run:
    """A spawned worker. ``on_exit`` comes once with its status, ``on_gone`` once after no process of it is left."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        orders: Orders | RunState,
        pid_file: Path,
        containment: Containment,
        sink: Sink,
        on_exit: Callable[[ExitStatus], None],
        on_gone: Callable[[], None],
    ) -> None:
        """Spawn what is ordered, or go on with a run of an earlier program in this process."""
        self._loop = loop
        self._pid_file = pid_file
        self._containment = containment
        self._on_exit = on_exit
        self._on_gone = on_gone
        self._sink = sink
        if isinstance(orders, RunState):
            self._resume(orders)
        else:
            self._begin(orders)

    def _begin(self, orders: Orders) -> None:
        loop, containment, sink = self._loop, self._containment, self._sink
        with ExitStack() as undo:  # whatever fails half-way leaves no descriptor and no process behind
            undo.callback(sink.close)
            undo.callback(containment.close)
            self._read_end, write_end = self._pipe()
            undo.callback(os.close, self._read_end)
            try:
                child = self._spawn(orders, write_end)
            finally:
                os.close(write_end)
            self.identity: Identity = child.identity
            self._pidfd = child.pidfd
            undo.callback(self._abandon, child)
            containment.adopt(child.identity, {os.fstat(self._read_end).st_ino})
            self._pump = sink.pump(self._read_end)
            self._reading = True
            loop.add_reader(self._read_end, self._readable)
            undo.callback(loop.remove_reader, self._read_end)
            loop.add_reader(self._pidfd.fd, self._exited)
            undo.pop_all()
        self._mark = orders.mark
        self._write_pid()

    def _resume(self, state: RunState) -> None:
        """Nothing is closed when this fails: the descriptors belong to the program that could be asked back, too."""
        self.identity, self._mark = state.identity, state.mark
        self._pidfd = Pidfd(-1 if state.pidfd is None else state.pidfd, state.identity.pid)
        self._read_end, self._reading = state.output, state.reading
        self._containment.adopt(state.identity, {os.fstat(state.output).st_ino})
        self._sink.thaw(state.log)
        self._pump = self._sink.pump(self._read_end)
        self._pump.thaw(state.pump)
        if self._reading:
            self._loop.add_reader(self._read_end, self._readable)
        if state.pidfd is not None:
            self._loop.add_reader(self._pidfd.fd, self._exited)
        else:
            self._loop.call_soon(self._containment.when_gone, self._gone)

    def freeze(self) -> RunState:
        """What another program in this process needs to go on with the run; the descriptors stay open."""
        return RunState(
            self.identity,
            None if self.exited else self._pidfd.fd,
            self._read_end,
            self._reading,
            self._mark,
            self._containment.freeze(),
            self._pump.freeze(),
            self._sink.freeze(),
        )

    def _pipe(self) -> tuple[int, int]:
        try:
            read_end, write_end = os.pipe2(os.O_CLOEXEC)
        except OSError as error:
            message = f"cannot make a pipe for its output: {error.strerror}"
            raise SpawnFailed(message, permanent=False) from error
        os.set_blocking(read_end, False)
        return read_end, write_end

    def _spawn(self, orders: Orders, output: int) -> Child:
        return spawn(
            SpawnRequest(
                argv=orders.launch.argv,
                environment=orders.launch.environment,
                working_directory=orders.working_directory,
                user=orders.user,
                group=orders.group,
                stdout=output,
                stderr=output,
                pass_fds=orders.pass_fds,
                cgroup=self._containment.cgroup(),
                capabilities=orders.launch.capabilities,
                own_program=orders.launch.own_program,
            )
        )

    def _abandon(self, child: Child) -> None:
        """A process that cannot be looked after must not live, nor what it forks yet. Who reaps strangers reaps it."""
        deadline = time.monotonic() + ABANDON_DEADLINE
        child.pidfd.signal(signal.SIGKILL)
        child.pidfd.close()
        self._containment.kill()
        while self._may_live() and time.monotonic() < deadline:
            time.sleep(ABANDON_PAUSE)
            self._containment.kill()

    def _may_live(self) -> bool:
        try:
            return bool(self._containment.pids())
        except OSError:  # no descriptor is left to look with
            return True

    @property
    def pid(self) -> int:
        return self.identity.pid

    @property
    def exited(self) -> bool:
        """Whether the worker has ended; its PID may be anybody's then."""
        return self._pidfd.fd < 0

    @property
    def dropped_bytes(self) -> int:
        # A flood is counted by the pump at once, and by the log with what a disk refused once the flood is over.
        return max(self._pump.dropped_bytes, self._sink.dropped_bytes)

    def pids(self, relatives: Relation | None = None) -> list[int]:
        """Every process of the run, the worker first when it lives; see ``Containment.pids``."""
        found = self._containment.pids(relatives)
        return sorted(found, key=lambda pid: pid != self.pid)

    @property
    def last_line(self) -> str:
        """The last line of its output so far."""
        return self._pump.last_line

    def adjust_log(self, policy: LogPolicy) -> None:
        """Another size or number of log files from now on."""
        self._sink.adjust(policy)

    def out_of_memory(self) -> bool:
        return self._containment.out_of_memory()

    def signal(self, number: int) -> None:
        """Signal every process of the run. The worker itself is reached also when descriptors have run out."""
        try:
            reached = self._containment.signal(number)
        except OSError:
            reached = 0
        if not reached:
            self._signal_worker(number)
            self._signal_worker(signal.SIGCONT)

    def tell(self, number: int) -> bool:
        """Signal the worker alone, if it heeds this signal and would not end by it; whether it was signalled."""
        if self.exited or not catches(self.pid, number):
            return False
        self._signal_worker(number)
        return True

    def kill(self) -> None:
        """SIGKILL for every process of the run, and for those that turn up."""
        self._signal_worker(signal.SIGKILL)
        self._containment.kill()

    def _signal_worker(self, number: int) -> None:
        if not self.exited:
            self._pidfd.signal(number)

    def _write_pid(self) -> None:
        # A full disk must not cost a service; `status` still knows the PID.
        with suppress(OSError, AgentError):
            write_pid(self._pid_file, self.pid)

    def _readable(self) -> None:
        if not self._pump.read_ready():
            self._stop_reading()

    def _stop_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._read_end)

    def _exited(self) -> None:
        status = self._pidfd.wait()
        if status is None:
            return
        self._loop.remove_reader(self._pidfd.fd)
        self._pidfd.close()
        try:
            if self._reading:
                # Its last words are in the pipe already, and worth knowing when its exit is told.
                self._readable()
            self._on_exit(status)
        finally:
            self._containment.when_gone(self._gone)

    def _gone(self) -> None:
        with ExitStack() as steps:  # each of them, last one first, whatever becomes of the others
            steps.callback(self._on_gone)
            steps.callback(self._remove_pid)
            steps.callback(self._containment.close)
            steps.callback(self._sink.close)
            steps.callback(self._pump.close)
            steps.callback(self._pump.drain, time.monotonic() + DRAIN_DEADLINE)
            self._stop_reading()

    def _remove_pid(self) -> None:
        with suppress(OSError):
            self._pid_file.unlink()
