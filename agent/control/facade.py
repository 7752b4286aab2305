"""The agent as the control socket sees it: the supervisor, plus what only the daemon knows."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent import __version__
from agent.declaration.load import load
from agent.declaration.show import effective
from agent.errors import DeclarationError
from agent.linux.files import age
from agent.linux.notify import SystemdNotifier
from agent.supervisor.engine import Supervisor
from agent.supervisor.lifecycle import Phase
from agent.supervisor.report import Action, AgentReport, AgentState, Outcome, ReloadReport, Status, TimerReport
from agent.telemetry.events import EventStore


class RunningAgent:
    """What ``agent.control.api.Agent`` asks for."""

    def __init__(self, supervisor: Supervisor, events: EventStore, notifier: SystemdNotifier) -> None:
        self.events = events
        self.started = False
        self.stopping = False
        self._reloading = 0
        self._supervisor = supervisor
        self._notifier = notifier
        self._since = time.time()
        self._after_reload: Callable[[], None] = lambda: None

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
            declaration=str(paths.declaration),
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
        if self._reloading:
            return "reloading"
        if not self.started:
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

    async def reload(self) -> ReloadReport:
        """Read the declaration again and make it true. Raises ``DeclarationError``, and then nothing has changed."""
        try:
            declaration = load(self._supervisor.paths, self._supervisor.environ)
        except DeclarationError as error:
            first = error.problems[0]
            more = f" (and {len(error.problems) - 1} more)" if len(error.problems) > 1 else ""
            self.events.append("reload_refused", f"{first}{more}")
            raise
        self._reloading += 1
        self._notifier.reloading()
        try:
            # Shielded: a client that hangs up must not leave the host between two declarations.
            report = await asyncio.shield(asyncio.ensure_future(self._supervisor.reload(declaration)))
        finally:
            self._reloading -= 1
            self._notifier.ready()
        self.events.append("reloaded", _told(report))
        return report


def _told(report: ReloadReport) -> str:
    parts = []
    for verb in ("started", "stopped", "restarted", "updated"):
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
