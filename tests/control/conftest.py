"""A control socket served for real, in a thread of its own, by a small agent that keeps everything in memory."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest

from agent.control.admission import Admission
from agent.control.api import Timers
from agent.control.connection import Limits
from agent.control.server import ControlServer
from agent.errors import DeclarationError, Problem
from agent.linux.sockets import connect_unix
from agent.supervisor.report import (
    Action,
    AgentReport,
    HandoverReport,
    NoSuchService,
    Outcome,
    ReloadReport,
    ServiceReport,
    Status,
    TimerReport,
)
from agent.telemetry.events import EventStore
from agent.telemetry.logs import LogFile

T = TypeVar("T")


class SmallAgent:
    """Honours ``agent.control.api.Agent``. Made in the server's loop."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.events = EventStore(directory / "events.db", schedule=asyncio.get_running_loop().call_later)
        self.group: str | None = None
        self.running = {"api": True, "web": False}
        self.acted: list[tuple[str, str, bool]] = []
        self.gate = asyncio.Event()
        self.mistakes: list[Problem] = []
        self.bug: Exception | None = None
        self.padding = ""

    def status(self, name: str | None = None) -> Status:
        if self.bug:
            raise self.bug
        names = [self._known(name)] if name else sorted(self.running)
        services = [
            ServiceReport(
                name=name,
                kind="command",
                state="running" if self.running[name] else "stopped",
                ready=self.running[name],
                health="unknown",
                message=self.padding,
            )
            for name in names
        ]
        agent = AgentReport(
            pid=1,
            version="0",
            since=0.0,
            state="running",
            prefix="/srv",
            containment="sweep",
            declaration="",
            server="h",
        )
        return Status(agent=agent, services=services)

    async def act(self, action: Action, name: str, wait: bool) -> Outcome:
        self._known(name)
        self.acted.append((action, name, wait))
        if wait and name == "web":
            await self.gate.wait()
        self.running[name] = action != "stop"
        state = "running" if self.running[name] else "stopped"
        return Outcome(name=name, action=action, ok=True, state=state, message=f"{name} is {state}")  # type: ignore[arg-type]  # a str

    async def reload(self) -> ReloadReport:
        if self.mistakes:
            raise DeclarationError(self.mistakes)
        return ReloadReport(restarted=["api"], unchanged=1, reasons={"api": ["command"]})

    async def upgrade(self) -> HandoverReport:
        return HandoverReport(id="1", state="begun", before="0", after="0")

    def handover(self) -> HandoverReport:
        return HandoverReport(id="1", state="done", before="0", after="0", message="0 handed over to 0")

    def timers(self) -> Timers:
        return Timers(timers=[TimerReport(name="backup", schedule="daily", next_run=1.0)])

    def config(self) -> dict[str, Any]:
        return {"agent": {"server": "h"}}

    def log_path(self, name: str) -> Path:
        return self.directory / f"{self._known(name)}.log"

    def reading_group(self) -> str | None:
        return self.group

    def log(self, name: str = "api") -> LogFile:
        return LogFile(self.log_path(name), 1 << 20, 2)

    def _known(self, name: str) -> str:
        if name not in self.running:
            raise NoSuchService(name)
        return name


class Control:
    """The server, seen from the test's thread."""

    def __init__(self, directory: Path, limits: Limits, admission: Admission | None) -> None:
        self.path = directory / "agent.sock"
        self.bugs: list[BaseException] = []
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        self.agent = self.do(lambda: SmallAgent(directory))
        self.server = ControlServer(self.agent, self.path, on_bug=self.bugs.append, limits=limits, admission=admission)
        self.wait_for(self.server.start())

    def do(self, function: Callable[[], T]) -> T:
        """Call in the server's thread."""

        async def call() -> T:
            return function()

        return self.wait_for(call())

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def wait_for(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.submit(coroutine).result(20)

    def connect(self, timeout: float = 10.0) -> socket.socket:
        return connect_unix(self.path, timeout)

    def ask(self, data: bytes) -> bytes:
        """Send, and read to the end of the connection."""
        with self.connect() as connection:
            with suppress(BrokenPipeError):  # it may be refused before it is all sent
                connection.sendall(data)
            return read_all(connection)

    def close(self) -> None:
        async def end() -> None:
            await self.server.stop(grace=1.0)
            self.agent.events.close()

        self.wait_for(end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


def read_all(connection: socket.socket) -> bytes:
    found = b""
    with suppress(ConnectionResetError):
        while data := connection.recv(65536):
            found += data
    return found


@pytest.fixture
def make_control(open_directory: Path) -> Iterator[Callable[..., Control]]:
    made: list[Control] = []

    def make(admission: Admission | None = None, **limits: Any) -> Control:
        made.append(Control(open_directory, Limits(**limits), admission))
        return made[-1]

    yield make
    for control in made:
        control.close()


@pytest.fixture
def control(make_control: Callable[..., Control]) -> Control:
    return make_control()
