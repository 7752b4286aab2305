"""The agent's process: declaration, supervisor, control socket and service manager, put together."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import time
from contextlib import suppress
from typing import Any

from agent import __version__
from agent.control import lean  # noqa: F401  (before asyncio: see there)
from agent.control.console import Console, JsonConsole
from agent.control.facade import RunningAgent
from agent.control.server import ControlServer
from agent.control.watchdog import keep_watchdog
from agent.declaration.load import load
from agent.declaration.model import AnyService, Declaration, LogPolicy
from agent.errors import EXIT_OK, AgentError, DeclarationError, RuntimeFailure, StorageFailure
from agent.linux import cgroup
from agent.linux.clock import WallClockWatch
from agent.linux.files import PrefixLock, make_directory, touch, write_pid
from agent.linux.notify import SystemdNotifier
from agent.linux.process import become_subreaper
from agent.paths import Paths
from agent.supervisor.engine import Supervisor
from agent.supervisor.generation import end_predecessors
from agent.supervisor.unit import Unit
from agent.telemetry.bugs import BugLog
from agent.telemetry.events import EventStore, Schedule
from agent.telemetry.logs import LogFile, LogPump

STATUS_DELAY = 0.2
"""Seconds in which changes are gathered into one ``STATUS=`` line."""


def run(paths: Paths, *, json: bool = False, hint: str | None = None) -> int:
    """Run the agent in the foreground until SIGTERM or SIGINT. Returns the exit code.

    Tells what happens in plain lines on stderr, or with ``json`` event by event on stdout; ``hint`` is a last line for
    the person who started it.

    Raises ``DeclarationError`` before anything is touched, ``AlreadyRunning`` when another agent holds the prefix.
    """
    environ = dict(os.environ)
    notifier = SystemdNotifier(os.environ)
    declaration = load(paths, environ)
    lock = _take_prefix(paths)
    try:
        _raise_descriptor_limit()
        become_subreaper()
        tree = cgroup.discover(paths.prefix)
        ended = end_predecessors(paths, tree)
        agent = Daemon(paths, declaration, environ, notifier, tree, JsonConsole() if json else Console())
        return asyncio.run(agent.main(ended, hint))
    finally:
        paths.agent_pid.unlink(missing_ok=True)
        lock.release()


def _take_prefix(paths: Paths) -> PrefixLock:
    try:
        for directory, mode in (
            (paths.prefix, 0o755),
            (paths.run, 0o755),
            (paths.tmp, 0o755),
            (paths.logs, 0o750),
            (paths.spool, 0o751),
            (paths.agent_spool, 0o750),
        ):
            make_directory(directory, mode)
        lock = PrefixLock(paths.agent_lock)
        lock.acquire()
        write_pid(paths.agent_pid, os.getpid())
    except OSError as error:
        where = error.filename or paths.prefix
        raise StorageFailure(f"cannot set up {where}: {error.strerror}; the agent needs to write below it") from error
    return lock


def _raise_descriptor_limit() -> None:
    """Each service takes four descriptors: the soft limit of 1,024 that systemd sets for select(2) is not enough."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class _ServiceLog:
    """The log of one run of a service."""

    def __init__(self, paths: Paths, service: AnyService, schedule: Schedule) -> None:
        self._file = LogFile(paths.log(service.name), service.log.size, service.log.keep)
        self._schedule = schedule

    def pump(self, fd: int) -> LogPump:
        return LogPump(fd, self._file, schedule=self._schedule)

    def adjust(self, policy: LogPolicy) -> None:
        self._file.adjust(policy.size, policy.keep)

    def close(self) -> None:
        self._file.close()


class Daemon:
    """One life of the agent."""

    def __init__(
        self,
        paths: Paths,
        declaration: Declaration,
        environ: dict[str, str],
        notifier: SystemdNotifier,
        tree: cgroup.CgroupTree | None,
        console: Console | JsonConsole,
    ) -> None:
        self._paths = paths
        self._declaration = declaration
        self._environ = environ
        self._notifier = notifier
        self._tree = tree
        self._console = console
        self._bugs = BugLog(paths.logs / "agent.log")
        self._status_due: asyncio.TimerHandle | None = None
        self._stop_asked = asyncio.Event()

    async def main(self, ended: list[str], hint: str | None) -> int:
        """From an empty loop to an empty loop."""
        loop = self._loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._unexpected)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop_asked.set)
        begun = time.time()
        self._events = EventStore(self._paths.agent_spool / "events.db", schedule=loop.call_later)
        # What the history had to say of itself while it was opened.
        for event in self._events.last(5):
            if event.time >= begun:
                self._console.event(event)
        self._events.subscribe(self._console.event)
        self._supervisor = Supervisor(
            loop=loop,
            paths=self._paths,
            declaration=self._declaration,
            environ=self._environ,
            events=self._events,
            tree=self._tree,
            sink=lambda service: _ServiceLog(self._paths, service, loop.call_later),
            on_change=self._changed,
        )
        self._agent = RunningAgent(self._supervisor, self._events, self._notifier)
        server = ControlServer(self._agent, self._paths.socket, on_bug=self._bugs.record)
        await server.start()
        self._events.append("agent_started", f"version {__version__}, pid {os.getpid()}, prefix {self._paths.prefix}")
        for name in ended:
            self._events.append("predecessor_ended", f"ended what an earlier agent had left running of {name}")
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        clock = WallClockWatch()
        loop.add_reader(clock.fd, lambda: self._clock_moved(clock))
        self._beat()
        tasks = [asyncio.create_task(self._announce(hint))]
        if self._notifier.watchdog_interval:
            tasks.append(asyncio.create_task(keep_watchdog(self._notifier, self._paths.socket)))
        self._supervisor.start()
        left: list[str] = []
        try:
            await self._stop_asked.wait()
        finally:
            left = await self._end(server, clock, tasks)
        if left:
            raise RuntimeFailure(
                f"processes of {', '.join(left)} do not end, not even by SIGKILL; they are left behind"
            )
        return EXIT_OK

    async def _announce(self, hint: str | None) -> None:
        """Tell systemd, and the person in front of it, once everything enabled has started or waits for its time."""
        await self._supervisor.settled()
        self._agent.started = True
        self._notifier.ready()
        self._tell_status()
        self._events.append("agent_ready", self._agent.summary())
        if hint:
            self._console.line(hint)

    async def _end(self, server: ControlServer, clock: WallClockWatch, tasks: list[asyncio.Task[None]]) -> list[str]:
        self._agent.stopping = True
        self._notifier.stopping()
        self._events.append("agent_stopping", "stopping every service")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        left = await self._supervisor.stop()
        self._events.append(
            "agent_stopped", f"still running: {', '.join(left)}" if left else "every service is stopped"
        )
        await server.stop()
        self._loop.remove_reader(clock.fd)
        clock.close()
        self._heartbeat.cancel()
        (self._paths.tmp / "agent.heartbeat").unlink(missing_ok=True)
        self._events.close()
        if self._tree is not None:
            self._tree.remove()
        return left

    # -- small duties -------------------------------------------------------------------------------------------

    def _beat(self) -> None:
        """The agent's own heartbeat comes from the loop itself: a loop that hangs goes stale."""
        with suppress(OSError):
            touch(self._paths.tmp / "agent.heartbeat")
        self._heartbeat = self._loop.call_later(self._supervisor.settings.heartbeat_interval, self._beat)

    def _clock_moved(self, clock: WallClockWatch) -> None:
        if clock.acknowledge():
            self._supervisor.clock_was_set()

    def _changed(self, unit: Unit) -> None:
        self._console.changed(unit)
        if self._status_due is None:
            self._status_due = self._loop.call_later(STATUS_DELAY, self._tell_status)

    def _tell_status(self) -> None:
        self._status_due = None
        self._notifier.status(self._agent.summary())

    def _reload(self) -> None:
        self._reloading = asyncio.ensure_future(self._reload_quietly())

    async def _reload_quietly(self) -> None:
        # A SIGHUP has nobody to answer to: the refusal is in the events already.
        with suppress(DeclarationError):
            await self._agent.reload()

    def _unexpected(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A bug in one callback must not end the supervision of everything else; it is written down."""
        error = context.get("exception")
        if isinstance(error, AgentError):
            self._events.append("error", str(error))
        else:
            self._bugs.record(error if isinstance(error, Exception) else RuntimeError(str(context.get("message"))))
            self._events.append("bug", f"{context.get('message')}: {error!r}; the traceback is in log/agent.log")
