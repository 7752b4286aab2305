"""The agent's process: declaration, supervisor, control socket and service manager, put together."""

from __future__ import annotations

import asyncio
import errno
import faulthandler
import os
import resource
import signal
import socket
import time
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from agent import __version__
from agent.control import baton
from agent.control.baton import Received
from agent.control.console import AnyConsole, Console, JournalConsole, JsonConsole
from agent.control.excuse import excused
from agent.control.facade import NothingNew, RunningAgent
from agent.control.layout import lay_out
from agent.control.patience import patiently
from agent.control.server import ControlServer
from agent.control.succession import OUTPUT, STATE, Succession
from agent.control.triggers import Triggers
from agent.control.watchdog import keep_watchdog
from agent.declaration.model import Declaration
from agent.errors import EXIT_OK, AgentError, DeclarationError, RuntimeFailure
from agent.linux import cgroup, listen, signals
from agent.linux.capabilities import withhold
from agent.linux.clock import WallClockWatch
from agent.linux.environment import Program
from agent.linux.files import PrefixLock, touch, write_pid
from agent.linux.journal import Journal, is_ours
from agent.linux.notify import SystemdNotifier
from agent.linux.process import become_subreaper
from agent.paths import Paths
from agent.supervisor.engine import Supervisor, SupervisorState
from agent.supervisor.predecessors import end_predecessors
from agent.supervisor.unit import Unit
from agent.telemetry.bugs import BugLog
from agent.telemetry.events import EventStore, History
from agent.telemetry.journal import Logbook
from agent.telemetry.service_log import ServiceLog

STATUS_DELAY = 0.2
"""Seconds in which changes are gathered into one ``STATUS=`` line."""

ORDERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""What somebody who sends it wants done by the loop: to stop, to stop, to reload."""

CONTROL = "control"
"""FileDescriptorName= of the socket in agent.socket."""

SHORTAGE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ENOSPC})


def run(paths: Paths, *, json: bool = False, hint: str | None = None) -> int:
    """Run the agent in the foreground until SIGTERM or SIGINT. Returns the exit code.

    Tells what happens in plain lines on stderr, in the journal if that is where stderr leads, or with ``json`` event by
    event on stdout; ``hint`` is a last line for the person who started it. When it returns, or raises, those signals
    are blocked: the process is to end.

    Raises ``DeclarationError`` before anything is touched, ``AlreadyRunning`` when another agent holds the prefix.
    """
    withhold()
    # Where it was is told when the watchdog aborts it, or it crashes: on stderr, which systemd reads into the journal.
    faulthandler.enable()
    # Until there is a loop to act on them they wait: a reload is not a reason to die, and a stop finds all in order.
    signal.pthread_sigmask(signal.SIG_BLOCK, ORDERS)
    notifier = SystemdNotifier(os.environ)
    inherited = listen.inherited(os.environ)
    received = baton.received(os.environ)
    environ = dict(os.environ)
    words = ["daemon", "json" if json else "plain", str(paths.prefix), str(paths.declaration)]
    succession = Succession(words, environ, notifier)
    logbook = Logbook(Journal()) if is_ours(environ) else None
    console = JsonConsole() if json else JournalConsole(logbook) if logbook else Console()
    lock = PrefixLock(paths.agent_lock)
    if received is not None:
        agent = Daemon(paths, environ, notifier, console, logbook, succession, lock)
        work = agent.take_over(received)
    else:
        from agent.declaration.load import load  # a successor can wait for it until it has taken over

        control = listen.listening_socket(inherited.pop(CONTROL, []))
        with excused(control):
            declaration = load(paths, environ)
            lay_out(paths)
            lock.acquire()
        agent = Daemon(paths, environ, notifier, console, logbook, succession, lock)
        work = agent.begin(declaration, control, inherited, hint)
    del received
    try:
        with suppress(AgentError):
            # A full disk keeps no agent down: the lock's file has the PID too.
            write_pid(paths.agent_pid, os.getpid())
        return asyncio.run(work)
    finally:
        with suppress(OSError):
            paths.agent_pid.unlink()
        lock.release()


def _judged(left: list[str]) -> int:
    """The exit code after a stop that left processes of these services."""
    if left:
        raise RuntimeFailure(f"processes of {', '.join(left)} do not end, not even by SIGKILL; they are left behind")
    return EXIT_OK


def _raise_descriptor_limit() -> None:
    """Each service takes four descriptors: the soft limit of 1,024 that systemd sets for select(2) is not enough."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Daemon:
    """One life of the agent, from its start or from where an earlier program in this process was frozen."""

    def __init__(
        self,
        paths: Paths,
        environ: dict[str, str],
        notifier: SystemdNotifier,
        console: AnyConsole,
        logbook: Logbook | None,
        succession: Succession,
        lock: PrefixLock,
    ) -> None:
        self._paths = paths
        self._environ = environ
        self._notifier = notifier
        self._console = console
        self._logbook = logbook
        self._succession = succession
        self._lock = lock
        self._since = time.time()
        self._tree: cgroup.CgroupTree | None = None
        self._bugs = BugLog(paths.logs / "agent.log")
        self._status_due: asyncio.TimerHandle | None = None
        self._heartbeat: asyncio.TimerHandle | None = None
        self._clock: WallClockWatch | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._announcing: asyncio.Task[None] | None = None
        self._stop_asked = asyncio.Event()

    async def begin(
        self,
        declaration: Declaration,
        control: socket.socket | None,
        inherited: Mapping[str, list[int]],
        hint: str | None,
    ) -> int:
        """From nothing to nothing: start it all, and stop it all when asked to.

        ``control`` is the control socket when systemd holds it, ``inherited`` what else it has kept for us.
        """
        _raise_descriptor_limit()
        become_subreaper()
        self._tree = cgroup.discover(self._paths.prefix)
        ended = end_predecessors(self._paths, self._tree)
        self._prepare(History())
        self._supervise(declaration, None)
        self._serve(control or self._paths.socket, None)
        await self._server.start()
        recovered = self._recover(inherited)
        try:
            self._watch()
            self._events.append(
                "agent_started", f"version {__version__}, pid {os.getpid()}, prefix {self._paths.prefix}"
            )
            if recovered:
                self._events.append("handover_failed", recovered)
            for name in ended.services:
                self._events.append("predecessor_ended", f"ended what an earlier agent had left running of {name}")
            for name in ended.surviving:
                self._events.append("unkillable", f"what an earlier agent had left of {name} runs on after SIGKILL")
            self._announcing = self._in_background(self._announce(hint))
            await self._stop_asked.wait()
        finally:
            left = await self._end()
        return _judged(left)

    async def take_over(self, received: Received) -> int:
        """From where an earlier program in this process was frozen; whatever fails gives the process back to it."""
        try:
            inner = received.inner()
            self._since = inner.since
            self._console.thaw(inner.console)
            self._lock.adopt(inner.lock)
            if inner.supervisor.contained_by == "cgroup":
                self._tree = cgroup.discover(self._paths.prefix)
            self._prepare(inner.history)
            self._supervise(inner.supervisor.declaration, inner.supervisor)
            self._serve(socket.socket(fileno=inner.control), Path(inner.remove) if inner.remove else None)
            self._agent.credential, self._agent.reloading = inner.credential, inner.reloading
            await self._server.start()
            self._watch()
        except Exception as error:
            if not isinstance(error, AgentError | OSError):
                self._bugs.record(error)
            self._succession.give_back(received, f"version {__version__} cannot take over: {error}")
        try:
            self._succession.taken_over(received)
            kind = "handed_over" if received.refused is None else "handover_failed"
            self._events.append(kind, self._succession.report.message)
            del inner, received  # they may be large, and this may last for months
            self._announcing = self._in_background(self._announce_succession())
            await self._stop_asked.wait()
        finally:
            left = await self._end()
        return _judged(left)

    # -- what an agent consists of --------------------------------------------------------------------------------

    def _prepare(self, history: History) -> None:
        """The loop, the clock and the history."""
        loop = self._loop = asyncio.get_running_loop()
        self._clock = WallClockWatch()
        loop.add_reader(self._clock.fd, self._clock_moved)
        begun = time.time()
        self._events = EventStore(self._paths.agent_spool / "events.db", schedule=loop.call_later)
        self._events.thaw(history)
        # What the history had to say of itself while it was opened.
        for event in self._events.last(5):
            if event.time >= begun:
                self._console.event(event)
        self._events.subscribe(self._console.event)
        loop.set_exception_handler(self._unexpected)

    def _supervise(self, declaration: Declaration, frozen: SupervisorState | None) -> None:
        self._supervisor = Supervisor(
            loop=self._loop,
            paths=self._paths,
            declaration=declaration,
            environ=self._environ,
            events=self._events,
            tree=self._tree,
            sink=lambda service: ServiceLog(self._paths, service, self._loop.call_later, self._logbook),
            on_change=self._changed,
            frozen=frozen,
        )
        triggers = Triggers(
            self._paths,
            lambda: self._supervisor.declaration.services,
            lambda name, kind, message: self._events.append(kind, message, name),
        )
        self._events.subscribe(triggers.event)

    def _serve(self, where: Path | socket.socket, ours: Path | None) -> None:
        self._agent = RunningAgent(
            self._supervisor, self._events, self._notifier, self._succession, self._hand_over, since=self._since
        )
        self._server = ControlServer(self._agent, where, ours=ours, on_bug=self._bug)

    def _watch(self) -> None:
        """From here on clock, watchdog and signals have somebody to turn to; signals last, when nothing can fail."""
        self._beat()
        if self._notifier.watchdog_interval:
            self._in_background(keep_watchdog(self._notifier, self._paths.socket, self._server.room, self._listen_anew))
        for number in (signal.SIGTERM, signal.SIGINT):
            signals.watch(self._loop, number, self._stop_asked.set)
        signals.watch(self._loop, signal.SIGHUP, self._reload)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ORDERS)

    async def _announce(self, hint: str | None) -> None:
        """Start it all; tell systemd, and the person in front of it, once that has settled."""
        await self._supervisor.start()
        await patiently(self._notifier, self._supervisor.settled())
        self._agent.is_up()
        self._tell_status()
        self._events.append("agent_ready", self._agent.summary())
        if hint:
            self._console.line(hint)

    async def _announce_succession(self) -> None:
        """Go on as another version, which makes true what is declared on disk; or as the one before, as it was."""
        followed = self._succession.report.state == "begun"
        await self._supervisor.start()
        self._agent.is_up(quietly=followed)
        self._tell_status()
        if followed:
            await self._agent.reload_after_handover()

    # -- another program in this process ----------------------------------------------------------------------------

    async def _hand_over(self, program: Program) -> None:
        """Become that program. When it cannot be executed, all goes on."""
        control: socket.socket | None = None
        try:
            control = await self._server.suspend()
            signal.pthread_sigmask(signal.SIG_BLOCK, ORDERS)
            await asyncio.sleep(0)  # an order that came before waits in the loop, and would be lost with it
            if not self._stop_asked.is_set():
                self._succession.pass_on(
                    program,
                    since=self._since,
                    lock=self._lock.fd,
                    control=control.fileno(),
                    remove=str(self._server.ours) if self._server.ours else None,
                    supervisor=self._supervisor.freeze(),
                    history=self._events.freeze(),
                    console=self._console.freeze(),
                    credential=self._agent.credential,
                    reloading=self._agent.reloading,
                )
        except Exception as error:
            if not isinstance(error, OSError | AgentError):
                self._bugs.record(error)
            self._succession.fail(f"nobody could take over: {error}")
            self._events.append("handover_failed", self._succession.report.message)
        if self._stop_asked.is_set():  # the orders stay blocked, as the end has them
            if control is not None:
                control.close()
            return
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ORDERS)
        try:
            if control is not None:
                await self._server.resume(control)
        except Exception as error:  # nobody listens: the watchdog will notice
            self._unexpected(self._loop, {"message": "the control socket cannot be served again", "exception": error})
        finally:
            self._agent.handover_ended()

    def _recover(self, inherited: Mapping[str, list[int]]) -> str:
        """Take in what systemd kept for us over a hand-over that nobody survived; tells what there was."""
        found = inherited.get(STATE, [])
        told = ""
        with suppress(RuntimeFailure, OSError):
            for fd in found:
                outer = baton.opened(fd)
                self._succession.crashed(outer)
                told = self._succession.report.message
                inner = Received(fd, outer, None).inner()
                for output in inherited.get(OUTPUT, []):
                    if name := inner.pipes.get(os.fstat(output).st_ino):
                        self._last_words(name, output)
        for fd in {fd for fds in inherited.values() for fd in fds}:
            with suppress(OSError):
                os.close(fd)
        if found:
            self._succession.forget()
        return told

    def _last_words(self, name: str, output: int) -> None:
        """What a worker that died with the agent before us had still said."""
        if (unit := self._supervisor.units.get(name)) is not None:
            log = ServiceLog(self._paths, unit.service, self._loop.call_later, self._logbook)
            pump = log.pump(os.dup(output))
            pump.drain(time.monotonic() + 1.0)
            pump.close()
            log.close()

    async def _end(self) -> list[str]:
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
        await self._server.stop()
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

    async def _listen_anew(self) -> None:
        """Where the socket was, whose file somebody has removed. What prevents that keeps the watchdog unfed."""
        with suppress(AgentError):
            if await self._server.renew(self._paths.socket):
                self._events.append("error", f"{self._paths.socket} was removed, and is made anew")

    def _reload(self) -> None:
        self._in_background(self._reload_quietly())

    async def _reload_quietly(self) -> None:
        # A SIGHUP has nobody to answer to: a refusal is in the events already.
        with suppress(DeclarationError, NothingNew):
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
