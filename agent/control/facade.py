"""The agent as the control socket sees it: the supervisor, plus what only the daemon knows."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from agent import __version__
from agent.declaration.load import load
from agent.declaration.model import Declaration
from agent.declaration.show import effective
from agent.errors import DeclarationError, RequestRefused
from agent.linux.files import age, edition
from agent.linux.notify import SystemdNotifier
from agent.supervisor.engine import Supervisor
from agent.supervisor.lifecycle import Phase
from agent.supervisor.report import Action, AgentReport, AgentState, Outcome, ReloadReport, Status, TimerReport
from agent.telemetry.events import EventStore


class RunningAgent:
    """What ``agent.control.api.Agent`` asks for."""

    def __init__(self, supervisor: Supervisor, events: EventStore, notifier: SystemdNotifier) -> None:
        self.events = events
        self.stopping = False
        self._up = False
        self._reloads: set[asyncio.Task[ReloadReport]] = set()
        self._supervisor = supervisor
        self._notifier = notifier
        self._since = time.time()
        self._credential = self._newest_credential()

    def status(self, name: str | None = None) -> Status:
        services = self._supervisor.reports(name)
        return Status(agent=self._report(), services=services)

    def _report(self) -> AgentReport:
        paths = self._supervisor.paths
        return AgentReport(
            pid=os.getpid(),
            version=__version__,
            since=self._since,
            state=self.state(),
            prefix=str(paths.prefix),
            containment=self._supervisor.contained_by,
            declaration=self._supervisor.declaration.file,
            server=self._supervisor.settings.server,
            message=self.summary(),
            rss_bytes=_own_memory(),
            heartbeat_age=age(paths.tmp / "agent.heartbeat", time.time()),
            storage=self.events.storage,
        )

    def state(self) -> AgentState:
        """``degraded`` says that something that should run does not."""
        if self.stopping:
            return "stopping"
        if self._reloads:
            return "reloading"
        if not self._up:
            return "starting"
        bad = any(unit.phase in (Phase.FAILED, Phase.BACKOFF) for unit in self._supervisor.units.values())
        return "degraded" if bad or self.events.storage != "ok" else "running"

    def summary(self) -> str:
        """One human line: what systemd shows as the status of the unit."""
        counts: dict[Phase, int] = {}
        for unit in self._supervisor.units.values():
            counts[unit.phase] = counts.get(unit.phase, 0) + 1
        parts = [f"{count} {phase.value}" for phase, count in counts.items()]
        failed = sorted(unit.name for unit in self._supervisor.units.values() if unit.phase is Phase.FAILED)
        told = ", ".join(parts) or "no services declared"
        return f"{told}; failed: {', '.join(failed[:5])}" if failed else told

    def timers(self) -> list[TimerReport]:
        return self._supervisor.timers()

    def config(self) -> dict[str, Any]:
        return effective(self._supervisor.declaration)

    def log_path(self, name: str) -> Path:
        return self._supervisor.log_path(name)

    def reading_group(self) -> str | None:
        return self._supervisor.settings.group

    async def act(self, action: Action, name: str, wait: bool) -> Outcome:
        return await self._supervisor.act(action, name, wait)

    def is_up(self) -> None:
        """Everything that is enabled has started, waits for its time, or has failed to start."""
        self._up = True
        self._tell_ready()

    async def reload(self) -> ReloadReport:
        """Read the declaration again and make it true.

        Raises ``DeclarationError``, and ``RequestRefused`` when there is nothing new to read; nothing has changed then.
        """
        if self._up:
            # Also when it is refused: systemd waits for this and for the READY=1 that follows.
            self._notifier.reloading()
        try:
            declaration = self._read()
        except (DeclarationError, RequestRefused) as error:
            self.events.append("reload_refused", _refusal(error))
            self._tell_ready()
            raise
        task = asyncio.ensure_future(self._supervisor.reload(declaration))
        self._reloads.add(task)
        task.add_done_callback(self._reloaded)
        # Shielded: a client that hangs up must not leave the host between two declarations.
        return await asyncio.shield(task)

    def _read(self) -> Declaration:
        """The declaration as it is now.

        A credential as old as the agent is refused: whoever asks for a reload has changed what it was made from.
        systemd renews credentials when it starts a unit; a newer one with RefreshOnReload= may do so before a reload.
        """
        paths = self._supervisor.paths
        newest = self._newest_credential()
        declaration = load(paths, self._supervisor.environ)
        if declaration.file != str(paths.declaration) and newest == self._credential:
            raise RequestRefused(
                409,
                f"the declaration is a credential ({declaration.file}), which systemd renews at a restart only: "
                "systemctl restart agent",
            )
        self._credential = newest
        return declaration

    def _newest_credential(self) -> tuple[int, int, int] | None:
        paths = self._supervisor.paths
        credential = paths.credential(paths.declaration.name)
        return edition(credential) if credential else None

    def _reloaded(self, task: asyncio.Task[ReloadReport]) -> None:
        self._reloads.discard(task)
        if not task.cancelled() and task.exception() is None:
            self.events.append("reloaded", _told(task.result()))
        self._tell_ready()

    def _tell_ready(self) -> None:
        """What systemd is told at the end of the start and of a reload: not while another of them goes on."""
        if self._up and not self._reloads and not self.stopping:
            self._notifier.ready()


def _refusal(error: DeclarationError | RequestRefused) -> str:
    if isinstance(error, RequestRefused):
        return str(error)
    more = f" (and {len(error.problems) - 1} more)" if len(error.problems) > 1 else ""
    return f"{error.problems[0]}{more}"


def _told(report: ReloadReport) -> str:
    parts = []
    for verb in ("started", "stopped", "restarted", "updated", "stuck"):
        names = getattr(report, verb)
        if names:
            parts.append(f"{verb} {', '.join(names[:10])}{' …' if len(names) > 10 else ''}")
    return "; ".join([*parts, f"{report.unchanged} unchanged"])


def _own_memory() -> int | None:
    """Resident bytes, from statm (proc(5)): second field, in pages."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    except (OSError, ValueError, IndexError):
        return None
