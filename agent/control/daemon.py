"""The agent's process: declaration, supervisor, control socket and service manager, put together."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import signal
import time
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from agent import __version__
from agent.control.console import AnyConsole, Console, JournalConsole, JsonConsole
from agent.control.facade import RunningAgent
from agent.control.layout import lay_out
from agent.control.server import ControlServer
from agent.control.watchdog import keep_watchdog
from agent.declaration.load import load
from agent.declaration.model import AnyService, Declaration, LogPolicy
from agent.errors import EXIT_OK, AgentError, DeclarationError, RequestRefused, RuntimeFailure
from agent.linux import cgroup, signals
from agent.linux.clock import WallClockWatch
from agent.linux.files import PrefixLock, touch, write_pid
from agent.linux.journal import Journal, is_ours
from agent.linux.notify import SystemdNotifier
from agent.linux.process import become_subreaper
from agent.paths import Paths
from agent.supervisor.engine import Supervisor
from agent.supervisor.predecessors import Ended, end_predecessors
from agent.supervisor.unit import Unit
from agent.telemetry.bugs import BugLog
from agent.telemetry.events import EventStore, Schedule
from agent.telemetry.journal import JournalledLog, Logbook
from agent.telemetry.logs import Log, LogFile, LogPump

STATUS_DELAY = 0.2
"""Seconds in which changes are gathered into one ``STATUS=`` line."""

ORDERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""What somebody who sends it wants done by the loop: to stop, to stop, to reload."""

SHORTAGE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ENOSPC})


def run(paths: Paths, *, json: bool = False, hint: str | None = None) -> int:
    """Run the agent in the foreground until SIGTERM or SIGINT. Returns the exit code.

    Tells what happens in plain lines on stderr, in the journal if that is where stderr leads, or with ``json`` event by
    event on stdout; ``hint`` is a last line for the person who started it. When it returns, or raises, those signals
    are blocked: the process is to end.

    Raises ``DeclarationError`` before anything is touched, ``AlreadyRunning`` when another agent holds the prefix.
    """
    # Until there is a loop to act on them they wait: a reload is not a reason to die, and a stop finds all in order.
    signal.pthread_sigmask(signal.SIG_BLOCK, ORDERS)
    notifier = SystemdNotifier(os.environ)
    environ = dict(os.environ)
    declaration = load(paths, environ)
    lay_out(paths)
    lock = PrefixLock(paths.agent_lock)
    lock.acquire()
    try:
        with suppress(AgentError):
            # A full disk keeps no agent down: the lock's file has the PID too.
            write_pid(paths.agent_pid, os.getpid())
        _raise_descriptor_limit()
        become_subreaper()
        tree = cgroup.discover(paths.prefix)
        ended = end_predecessors(paths, tree)
        logbook = Logbook(Journal()) if is_ours(environ) else None
        console = JsonConsole() if json else JournalConsole(logbook) if logbook else Console()
        agent = Daemon(paths, declaration, environ, notifier, tree, console, logbook)
        return asyncio.run(agent.main(ended, hint))
    finally:
        with suppress(OSError):
            paths.agent_pid.unlink()
        lock.release()


def _raise_descriptor_limit() -> None:
    """Each service takes four descriptors: the soft limit of 1,024 that systemd sets for select(2) is not enough."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class _ServiceLog:
    """The log of one run of a service, of which the journal gets a copy."""

    def __init__(self, paths: Paths, service: AnyService, schedule: Schedule, logbook: Logbook | None) -> None:
        self._file = LogFile(paths.log(service.name), service.log.size, service.log.keep)
        self._log: Log = self._file
        if logbook is not None:
            self._log = JournalledLog(self._file, service.name, logbook.write, schedule=schedule)
        self._schedule = schedule

    @property
    def dropped_bytes(self) -> int:
        return self._file.dropped_bytes

    def pump(self, fd: int) -> LogPump:
        return LogPump(fd, self._log, schedule=self._schedule)

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
        console: AnyConsole,
        logbook: Logbook | None,
    ) -> None:
        self._paths = paths
        self._declaration = declaration
        self._environ = environ
        self._notifier = notifier
        self._tree = tree
        self._console = console
        self._logbook = logbook
        self._bugs = BugLog(paths.logs / "agent.log")
        self._status_due: asyncio.TimerHandle | None = None
        self._heartbeat: asyncio.TimerHandle | None = None
        self._clock: WallClockWatch | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._announcing: asyncio.Task[None] | None = None
        self._stop_asked = asyncio.Event()

    async def main(self, ended: Ended, hint: str | None) -> int:
        """From an empty loop to an empty loop."""
        loop = self._loop = asyncio.get_running_loop()
        begun = time.time()
        self._events = EventStore(self._paths.agent_spool / "events.db", schedule=loop.call_later)
        # What the history had to say of itself while it was opened.
        for event in self._events.last(5):
            if event.time >= begun:
                self._console.event(event)
        self._events.subscribe(self._console.event)
        loop.set_exception_handler(self._unexpected)
        self._supervisor = Supervisor(
            loop=loop,
            paths=self._paths,
            declaration=self._declaration,
            environ=self._environ,
            events=self._events,
            tree=self._tree,
            sink=lambda service: _ServiceLog(self._paths, service, loop.call_later, self._logbook),
            on_change=self._changed,
        )
        self._agent = RunningAgent(self._supervisor, self._events, self._notifier)
        server = ControlServer(self._agent, self._paths.socket, on_bug=self._bug)
        await server.start()
        left: list[str] = []
        try:
            self._begin(server, ended, hint)
            await self._stop_asked.wait()
        finally:
            left = await self._end(server)
        if left:
            raise RuntimeFailure(
                f"processes of {', '.join(left)} do not end, not even by SIGKILL; they are left behind"
            )
        return EXIT_OK

    def _begin(self, server: ControlServer, ended: Ended, hint: str | None) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signals.watch(self._loop, number, self._stop_asked.set)
        signals.watch(self._loop, signal.SIGHUP, self._reload)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ORDERS)
        self._events.append("agent_started", f"version {__version__}, pid {os.getpid()}, prefix {self._paths.prefix}")
        for name in ended.services:
            self._events.append("predecessor_ended", f"ended what an earlier agent had left running of {name}")
        for name in ended.surviving:
            self._events.append("unkillable", f"what an earlier agent had left of {name} runs on after SIGKILL")
        self._clock = WallClockWatch()
        self._loop.add_reader(self._clock.fd, self._clock_moved)
        self._beat()
        self._announcing = self._in_background(self._announce(hint))
        if self._notifier.watchdog_interval:
            self._in_background(keep_watchdog(self._notifier, self._paths.socket, server.room))

    async def _announce(self, hint: str | None) -> None:
        """Start it all; tell systemd, and the person in front of it, once that has settled."""
        await self._supervisor.start()
        await self._supervisor.settled()
        self._agent.is_up()
        self._tell_status()
        self._events.append("agent_ready", self._agent.summary())
        if hint:
            self._console.line(hint)

    async def _end(self, server: ControlServer) -> list[str]:
        # There is nothing more to ask for; and when the loop has gone, another Ctrl-C must not look like a crash.
        signal.pthread_sigmask(signal.SIG_BLOCK, ORDERS)
        self._agent.stopping = True
        if self._announcing is not None:
            self._announcing.cancel()
        self._notifier.stopping()
        # However long that may be: the manager that would lose patience is told.
        self._notifier.extend_timeout(int(self._supervisor.stop_patience * 1_000_000))
        self._events.append("agent_stopping", "stopping every service")
        left = await self._supervisor.stop()
        self._events.append(
            "agent_stopped", f"still running: {', '.join(left)}" if left else "every service is stopped"
        )
        await server.stop()
        # Only now: up to here somebody may still ask, and the watchdog does.
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._clock is not None:
            self._loop.remove_reader(self._clock.fd)
            self._clock.close()
        if self._heartbeat is not None:
            self._heartbeat.cancel()
        with suppress(OSError):
            (self._paths.tmp / "agent.heartbeat").unlink()
        self._events.close()
        if self._tree is not None:
            self._tree.remove()
        return left

    # -- small duties -------------------------------------------------------------------------------------------

    def _in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._background_ended)
        return task

    def _background_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._unexpected(self._loop, {"message": f"{task.get_name()} failed", "exception": error})

    def _beat(self) -> None:
        """The agent's own heartbeat comes from the loop itself: a loop that hangs goes stale."""
        with suppress(AgentError):
            touch(self._paths.tmp / "agent.heartbeat")
        self._heartbeat = self._loop.call_later(self._supervisor.settings.heartbeat_interval, self._beat)

    def _clock_moved(self) -> None:
        if self._clock is not None and self._clock.acknowledge():
            self._supervisor.clock_was_set()

    def _changed(self, unit: Unit) -> None:
        self._console.changed(unit)
        if self._status_due is None:
            self._status_due = self._loop.call_later(STATUS_DELAY, self._tell_status)

    def _tell_status(self) -> None:
        self._status_due = None
        self._notifier.status(self._agent.summary())

    def _reload(self) -> None:
        self._in_background(self._reload_quietly())

    async def _reload_quietly(self) -> None:
        # A SIGHUP has nobody to answer to: a refusal is in the events already.
        with suppress(DeclarationError, RequestRefused):
            await self._agent.reload()

    def _unexpected(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A bug in one callback must not end the supervision of everything else; it is written down."""
        error, message = context.get("exception"), context.get("message")
        if isinstance(error, AgentError):
            self._events.append("error", str(error))
        elif isinstance(error, OSError) and error.errno in SHORTAGE:
            self._events.append("error", f"{message}: {error.strerror}")
        else:
            self._bug(error if isinstance(error, Exception) else RuntimeError(str(message)), f"{message}: ")

    def _bug(self, error: BaseException, where: str = "") -> None:
        self._bugs.record(error)
        self._events.append("bug", f"{where}{error!r}; the traceback is in log/agent.log")
