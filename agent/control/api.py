"""What the control socket needs from the engine, and the shapes that only travel over the socket.

The engine's own shapes are in ``agent.supervisor.report``. Keys are only ever added.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec

from agent.supervisor.report import Action, HandoverReport, Outcome, ReloadReport, Status, TimerReport
from agent.telemetry.events import EventStore


class Agent(Protocol):
    """The engine, as the control socket sees it.

    ``act`` and ``reload`` take as long as what is asked for, ``upgrade`` as long as the self-test of the other program.
    Everything else answers at once.
    """

    events: EventStore

    def status(self, name: str | None = None) -> Status:
        """The agent and all services, or only the one named. Raises ``NoSuchService``."""

    async def act(self, action: Action, name: str, wait: bool) -> Outcome:
        """Do it; with ``wait``, return when the service is where it was asked to be. Raises ``NoSuchService``."""

    async def reload(self) -> ReloadReport:
        """Read the declaration again and apply it.

        Raises ``DeclarationError`` or ``RequestRefused``, with nothing changed.
        """

    async def upgrade(self) -> HandoverReport:
        """Become the program that is installed now. Raises ``RuntimeFailure``, with nothing changed."""

    def handover(self) -> HandoverReport:
        """What became of the last upgrade."""

    def timers(self) -> Timers:
        """All jobs."""

    def config(self) -> dict[str, Any]:
        """The effective declaration, its secrets masked."""

    def log_path(self, name: str) -> Path:
        """Where the log of a service is. Raises ``NoSuchService``."""

    def reading_group(self) -> str | None:
        """The group whose members may read."""


class Pong(msgspec.Struct, kw_only=True):
    """``GET /v1/ping``: somebody is at home."""

    pid: int
    ok: bool = True


class Timers(msgspec.Struct, kw_only=True):
    """``GET /v1/timers``. ``out_of_sync``: jobs whose timer units are not as declared."""

    timers: list[TimerReport]
    out_of_sync: list[str] = []


class Gap(msgspec.Struct, kw_only=True):
    """A line of a stream that stands for lines which are gone. ``cursor`` is where reading goes on."""

    gap: Literal[True] = True
    cursor: int | str
    message: str


class Again(msgspec.Struct, kw_only=True):
    """The last line of a stream that another version of the agent will go on with: ask again ``after`` this cursor."""

    again: Literal[True] = True
    cursor: int | str
    message: str = "the agent becomes another version of itself: ask again"


class Mistake(msgspec.Struct, kw_only=True):
    """One problem of a declaration: see ``agent.errors.Problem``."""

    file: str
    line: int
    where: str
    text: str


class ErrorBody(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What went wrong: the HTTP status again, a line for a person, and every mistake when a declaration has some."""

    status: int
    message: str
    problems: list[Mistake] = []


class ErrorReply(msgspec.Struct, kw_only=True):
    """The body of every answer with a status of 400 or more."""

    error: ErrorBody
