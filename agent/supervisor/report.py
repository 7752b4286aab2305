"""What the supervisor tells about itself: the shapes of ``agentctl status --json`` and its siblings.

These are the wire types of the control socket too. Keys are only ever added. Times are unix seconds, durations and ages
seconds, memory bytes; ``None`` means "does not apply" or "not known".
"""

from __future__ import annotations

from typing import Literal

import msgspec

from agent.declaration.model import Scheduler
from agent.errors import RequestRefused

State = Literal["stopped", "waiting", "starting", "running", "backoff", "stopping", "completed", "failed"]
AgentState = Literal["starting", "running", "degraded", "reloading", "stopping"]
Health = Literal["healthy", "unhealthy", "unknown"]
Action = Literal["start", "stop", "restart", "rotate", "now", "pause", "resume", "end"]
"""The last four are for scans: start a run that is not due, hold and go on, and end the run that is under way."""


class AgentReport(msgspec.Struct, kw_only=True):
    """The agent itself. ``containment`` is ``cgroup`` or ``sweep``: how a service's processes are found and ended."""

    pid: int
    version: str
    since: float
    state: AgentState
    prefix: str
    containment: Literal["cgroup", "sweep"]
    declaration: str
    server: str
    message: str = ""
    rss_bytes: int | None = None
    heartbeat_age: float | None = None
    storage: str = "ok"


class ServiceReport(msgspec.Struct, kw_only=True):
    """One service. ``figures`` are the worker's own numbers (packets, hosts done, …), by name.

    ``interfaces`` are those of each interface of a capture, by its name; 64 at most.
    """

    name: str
    kind: Literal["capture", "scan", "command", "watch"]
    state: State
    ready: bool
    health: Health
    pid: int | None = None
    since: float | None = None
    restarts: int = 0
    last_exit: str | None = None
    heartbeat_age: float | None = None
    next_run: float | None = None
    cpu_percent: float | None = None
    rss_bytes: int | None = None
    threads: int | None = None
    open_files: int | None = None
    processes: int | None = None
    message: str = ""
    enabled: bool = True
    project: str | None = None
    log_dropped_bytes: int = 0
    figures: dict[str, bool | int | float | str | None] = {}
    interfaces: dict[str, dict[str, bool | int | float | None]] = {}


class Status(msgspec.Struct, kw_only=True):
    """``GET /v1/status``."""

    agent: AgentReport
    services: list[ServiceReport]


class TimerReport(msgspec.Struct, kw_only=True):
    """One job: when it runs next, when it ran last and how that ended.

    Of one that systemd starts this is only what the agent knows: about runs that somebody asked it for. One that is not
    ``enabled`` nobody starts.
    """

    name: str
    schedule: str
    next_run: float | None
    last_run: float | None = None
    last_exit: str | None = None
    state: State = "waiting"
    scheduler: Scheduler = "agent"
    enabled: bool = True


class Outcome(msgspec.Struct, kw_only=True):
    """What became of an action. ``ok`` is whether the service is where it was asked to be, or was told what to do."""

    name: str
    action: Action
    ok: bool
    state: State
    message: str
    pid: int | None = None


class ReloadReport(msgspec.Struct, kw_only=True):
    """What a reload changed: service names by what was done to them, and why (the fields that differ).

    ``added`` and ``removed`` are those of which there was nothing to start or to stop. ``notes`` say why those of all
    these do not run that do not: they are disabled, wait for their time, or have ended. ``failed`` are those that were
    started and did not come up, with the reason, ``stuck`` those with processes that not even SIGKILL ends: they are as
    they were. With ``handover``, the id of one, nothing has been done yet: another version is installed, and the agent
    becomes it first.
    ``timers_out_of_sync`` are jobs whose timer units are not as declared: ``agentctl timers sync`` is root's to do.
    """

    started: list[str] = []
    stopped: list[str] = []
    restarted: list[str] = []
    updated: list[str] = []
    added: list[str] = []
    removed: list[str] = []
    notes: dict[str, str] = {}
    failed: dict[str, str] = {}
    stuck: list[str] = []
    unchanged: int = 0
    reasons: dict[str, list[str]] = {}
    handover: str | None = None
    timers_out_of_sync: list[str] = []


class HandoverReport(msgspec.Struct, kw_only=True):
    """``POST /v1/upgrade`` and ``GET /v1/handover``: one program in the agent's process following another.

    ``begun`` says that it is under way: ask again until it is ``done`` or ``failed``; ``none``: there has not been one
    in this agent's life. ``pause_ms`` is how long nobody supervised, ``reload`` what reading the declaration anew
    changed afterwards, or ``refused`` why that was refused.
    """

    id: str = ""
    state: Literal["none", "begun", "done", "failed"] = "none"
    before: str = ""
    after: str = ""
    message: str = ""
    pause_ms: float | None = None
    reload: ReloadReport | None = None
    refused: str | None = None


class NoSuchService(RequestRefused):
    """The named service is not declared. Exit code 1: the command line is wrong."""

    def __init__(self, name: str, nearest: str | None = None) -> None:
        hint = f"; did you mean {nearest}?" if nearest else "; `agentctl status` lists them"
        super().__init__(404, f"no service is named {name}{hint}")
