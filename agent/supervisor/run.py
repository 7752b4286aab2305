"""One run of a service: the process, its pipe, its containment, from spawn to the last of it gone."""

from __future__ import annotations

import asyncio
import os
import resource
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import msgspec

from agent.declaration.model import LogPolicy
from agent.errors import AgentError, SpawnFailed
from agent.linux.files import write_pid
from agent.linux.process import ExitStatus, Identity
from agent.linux.spawn import SpawnRequest, spawn
from agent.supervisor.containment import Containment
from agent.supervisor.launch import Launch

DRAIN_DEADLINE = 1.0
"""Seconds of reading at most for the last words of a run whose pipe is still held by somebody."""
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
    """Empties one pipe, which it owns. ``agent.telemetry.logs.LogPump`` is one."""

    dropped_bytes: int

    @property
    def last_line(self) -> str: ...
    def read_ready(self) -> bool: ...
    def drain(self, deadline: float) -> bool: ...
    def close(self) -> None: ...


class Sink(Protocol):
    """Where a run's output goes."""

    def pump(self, fd: int) -> Pump: ...
    def adjust(self, policy: LogPolicy) -> None: ...
    def close(self) -> None: ...


class Orders(msgspec.Struct, frozen=True):
    """What a run needs to know of its service."""

    name: str
    launch: Launch
    user: str | None
    group: str | None
    working_directory: str | None
    pid_file: Path
    pass_fds: tuple[int, ...] = ()


class Run:
    """A spawned worker. ``on_exit`` comes once with its status, ``on_gone`` once after no process of it is left."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        orders: Orders,
        containment: Containment,
        sink: Sink,
        on_exit: Callable[[ExitStatus], None],
        on_gone: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._orders = orders
        self._containment = containment
        self._on_exit = on_exit
        self._on_gone = on_gone
        self._sink = sink
        read_end, write_end = self._pipe()
        try:
            child = spawn(
                SpawnRequest(
                    argv=orders.launch.argv,
                    environment=orders.launch.environment,
                    working_directory=orders.working_directory,
                    user=orders.user,
                    group=orders.group,
                    stdout=write_end,
                    stderr=write_end,
                    pass_fds=orders.pass_fds,
                    cgroup=containment.cgroup(),
                    own_program=orders.launch.own_program,
                )
            )
        except (AgentError, OSError):
            os.close(read_end)
            containment.close()
            sink.close()
            raise
        finally:
            os.close(write_end)
        self.identity: Identity = child.identity
        self._pidfd = child.pidfd
        self._read_end = read_end
        self._pump = sink.pump(read_end)
        self._reading = True
        containment.adopt(child.identity, {os.fstat(read_end).st_ino})
        loop.add_reader(read_end, self._readable)
        loop.add_reader(self._pidfd.fd, self._exited)
        self._write_pid()

    def _pipe(self) -> tuple[int, int]:
        try:
            read_end, write_end = os.pipe2(os.O_CLOEXEC)
        except OSError as error:
            self._containment.close()
            self._sink.close()
            message = f"{self._orders.name}: cannot make a pipe for its output: {error.strerror}"
            raise SpawnFailed(message, permanent=False) from error
        os.set_blocking(read_end, False)
        return read_end, write_end

    @property
    def pid(self) -> int:
        return self.identity.pid

    @property
    def dropped_bytes(self) -> int:
        return self._pump.dropped_bytes

    def pids(self) -> list[int]:
        """Every process of the run, the worker first when it lives."""
        found = self._containment.pids()
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
        self._containment.signal(number)

    def kill(self) -> None:
        self._containment.kill()

    def _write_pid(self) -> None:
        # A full disk must not cost a service; `status` still knows the PID.
        with suppress(OSError, AgentError):
            write_pid(self._orders.pid_file, self.pid)

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
        if self._reading:
            # Its last words are in the pipe already, and worth knowing when its exit is told.
            self._readable()
        self._on_exit(status)
        self._containment.when_gone(self._gone)

    def _gone(self) -> None:
        self._stop_reading()
        self._pump.drain(time.monotonic() + DRAIN_DEADLINE)
        self._pump.close()
        self._sink.close()
        self._containment.close()
        with suppress(OSError):
            self._orders.pid_file.unlink()
        self._on_gone()
