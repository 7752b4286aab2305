"""An agent in memory behind a real control socket, for what agentctl makes of its answers."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.control.api import Timers
from agent.control.server import ControlServer
from agent.errors import AgentError, DeclarationError
from agent.supervisor.report import (
    Action,
    AgentReport,
    HandoverReport,
    NoSuchService,
    Outcome,
    ReloadReport,
    ServiceReport,
    State,
    Status,
    TimerReport,
)
from agent.telemetry.events import EventStore
from agent.telemetry.logs import LogFile

AFTER: dict[Action, State] = {
    "start": "running",
    "stop": "stopped",
    "restart": "running",
    "rotate": "running",
    "now": "starting",
    "pause": "running",
    "resume": "running",
    "end": "waiting",
}


class InMemoryAgent:
    """Keeps ``agent.control.api.Agent`` with services that are only reports."""

    def __init__(self, prefix: Path, events: EventStore) -> None:
        self.prefix = prefix
        self.events = events
        self.report = AgentReport(
            pid=4242,
            version="0.1.0",
            since=1_700_000_000.0,
            state="running",
            prefix=str(prefix),
            containment="cgroup",
            declaration=str(prefix / "key" / "env.toml"),
            server="hel1v5",
            rss_bytes=21 * 1024 * 1024,
        )
        self.services: dict[str, ServiceReport] = {}
        self.jobs: list[TimerReport] = []
        self.out_of_sync: list[str] = []
        self.refused: dict[str, str] = {}
        self.reloaded: ReloadReport | DeclarationError = ReloadReport()
        self.done: list[tuple[Action, str, bool]] = []
        self.upgraded: HandoverReport | AgentError = HandoverReport(id="1", state="begun", before="0.1.0", after="x")
        self.handovers = [HandoverReport(id="1", state="done", message="0.1.0 handed over", pause_ms=9.5)]
        """What is told of a hand-over, one report after the other; the last one stays."""

    def declare(self, name: str, **fields: Any) -> None:
        """Add a service; what is not given is that of one that runs."""
        running: dict[str, Any] = {
            "kind": "command",
            "state": "running",
            "ready": True,
            "health": "unknown",
            "pid": 100,
        }
        self.services[name] = ServiceReport(name=name, **(running | fields))

    def log(self, name: str, data: bytes) -> None:
        """Write to the log of a service, at a time that is always the same."""
        self.log_path(name).parent.mkdir(parents=True, exist_ok=True)
        file = LogFile(self.log_path(name), 1024 * 1024, 1, lambda: 1_700_000_000.0)
        file.write(data)
        file.close()

    def status(self, name: str | None = None) -> Status:
        """See ``agent.control.api.Agent``, as for the rest."""
        if name is not None and name not in self.services:
            raise NoSuchService(name)
        chosen = list(self.services.values()) if name is None else [self.services[name]]
        return Status(agent=self.report, services=chosen)

    async def act(self, action: Action, name: str, wait: bool) -> Outcome:
        self.done.append((action, name, wait))
        if name in self.refused:
            return Outcome(name=name, action=action, ok=False, state="failed", message=self.refused[name])
        return Outcome(name=name, action=action, ok=True, state=AFTER[action], message=AFTER[action], pid=100)

    async def reload(self) -> ReloadReport:
        if isinstance(self.reloaded, DeclarationError):
            raise self.reloaded
        return self.reloaded

    async def upgrade(self) -> HandoverReport:
        if isinstance(self.upgraded, AgentError):
            raise self.upgraded
        return self.upgraded

    def handover(self) -> HandoverReport:
        report = self.handovers[0]
        if len(self.handovers) > 1:
            del self.handovers[0]
        return report

    def timers(self) -> Timers:
        return Timers(timers=self.jobs, out_of_sync=self.out_of_sync)

    def config(self) -> dict[str, Any]:
        return {}

    def log_path(self, name: str) -> Path:
        self.status(name)
        return self.prefix / "log" / f"{name}.log"

    def reading_group(self) -> str | None:
        return None


class Served(InMemoryAgent):
    """The same, and a way for the test's thread to have something done in the thread that serves it."""

    loop: asyncio.AbstractEventLoop
    ended: asyncio.Event

    def happen(self, kind: str, message: str, service: str | None = None) -> None:
        """Record an event."""
        asyncio.run_coroutine_threadsafe(self._append(kind, message, service), self.loop).result(10)

    async def _append(self, kind: str, message: str, service: str | None) -> None:
        self.events.append(kind, message, service)


@contextmanager
def serving(prefix: Path) -> Iterator[Served]:
    """Serve an agent on ``prefix`` from a thread of its own."""
    for directory in (prefix, prefix / "run", prefix / "spool"):
        directory.mkdir(exist_ok=True)
    started: queue.SimpleQueue[Served | BaseException] = queue.SimpleQueue()
    bugs: list[BaseException] = []

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        agent = Served(prefix, EventStore(prefix / "spool" / "events.db", schedule=loop.call_later))
        agent.loop, agent.ended = loop, asyncio.Event()
        server = ControlServer(agent, prefix / "run" / "agent.sock", on_bug=bugs.append)
        await server.start()
        started.put(agent)
        await agent.ended.wait()
        await server.stop()
        agent.events.close()

    def work() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:  # the test waits for an answer, whatever it is
            started.put(error)

    thread = threading.Thread(target=work)
    thread.start()
    agent = started.get(timeout=20)
    if isinstance(agent, BaseException):
        raise agent
    try:
        yield agent
    finally:
        agent.loop.call_soon_threadsafe(agent.ended.set)
        thread.join(20)
    if bugs:
        raise bugs[0]
