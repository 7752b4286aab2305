"""The agent as the control socket sees it: the supervisor, plus what only the daemon knows."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from agent import __version__
from agent.control.api import Timers
from agent.control.patience import patiently
from agent.control.succession import Succession, successor
from agent.control.trial import try_out
from agent.declaration.model import Declaration
from agent.errors import AgentError, DeclarationError, RequestRefused
from agent.installation.timer_files import out_of_sync
from agent.linux.environment import Program, installed_program
from agent.linux.files import age, edition
from agent.linux.notify import SystemdNotifier
from agent.supervisor.engine import Supervisor
from agent.supervisor.lifecycle import Phase
from agent.supervisor.report import (
    Action,
    AgentReport,
    AgentState,
    HandoverReport,
    Outcome,
    ReloadReport,
    Status,
)
from agent.telemetry.events import EventStore

BUSY = "the agent is stopping, reloading or being upgraded: ask again afterwards"


class NothingNew(RequestRefused):
    """A reload would read the very declaration that is in effect, and not the one that somebody has just changed."""

    def __init__(self, credential: str) -> None:
        renewal = "which systemd renews at a restart only: systemctl restart agent"
        super().__init__(409, f"the declaration is a credential ({credential}), {renewal}")


class RunningAgent:
    """What ``agent.control.api.Agent`` asks for."""

    def __init__(
        self,
        supervisor: Supervisor,
        events: EventStore,
        notifier: SystemdNotifier,
        succession: Succession,
        hand_over: Callable[[Program], Coroutine[Any, Any, None]],
        *,
        since: float,
    ) -> None:
        """``hand_over`` makes this process become another program; ``since`` is when the agent began, unix seconds."""
        self.events = events
        self.stopping = False
        self._up = False
        self._reloads: set[asyncio.Task[ReloadReport]] = set()
        self._supervisor = supervisor
        self._notifier = notifier
        self._succession = succession
        self._hand_over = hand_over
        self._handing_over: asyncio.Task[None] | None = None
        self._since = since
        self.credential = self._newest_credential()
        """The edition of the declaration that is in effect, if it is a credential."""
        self.reloading = False
        """Whether it was a reload that led to the hand-over."""

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
        if self._reloads or self._handing_over is not None:
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
        more = ", …" if len(failed) > 5 else ""
        return f"{told}; failed: {', '.join(failed[:5])}{more}" if failed else told

    def timers(self) -> Timers:
        return Timers(timers=self._supervisor.timers(), out_of_sync=self._out_of_sync())

    def _out_of_sync(self) -> list[str]:
        return out_of_sync(self._supervisor.declaration, self._supervisor.paths)

    def config(self) -> dict[str, Any]:
        from agent.declaration.show import effective  # as _read

        return effective(self._supervisor.declaration)

    def log_path(self, name: str) -> Path:
        return self._supervisor.log_path(name)

    def reading_group(self) -> str | None:
        return self._supervisor.settings.group

    async def act(self, action: Action, name: str, wait: bool) -> Outcome:
        return await self._supervisor.act(action, name, wait)

    def is_up(self, *, quietly: bool = False) -> None:
        """Everything that is enabled has started, waits for its time, or has failed to start."""
        self._up = True
        if not quietly:
            self._tell_ready()

    async def reload(self) -> ReloadReport:
        """Read the declaration again and make it true.

        When another version of this program has been installed, it is to do so: the report then only names the
        hand-over. Raises ``DeclarationError``, ``RuntimeFailure`` when that version fails its self-test,
        ``NothingNew``, and ``RequestRefused`` during a hand-over, which would come between two declarations; nothing
        has changed then.
        """
        if self._handing_over is not None:
            raise RequestRefused(409, BUSY)
        if self._up:
            # Also when it is refused: systemd waits for this and for the READY=1 that follows.
            self._notifier.reloading()
        declaration = self._read()
        if (program := successor()) is not None:
            self._insist_on_being_up()
            return ReloadReport(handover=(await self._follow(program, reloading=True)).id)
        self._insist_on_news(declaration)
        return await self._make_true(declaration)

    async def upgrade(self) -> HandoverReport:
        """Become the program that is installed now, be it the same. Raises as ``reload`` does."""
        self._insist_on_being_up()
        self._notifier.reloading()
        self._read()
        return await self._follow(installed_program(), reloading=False)

    def handover(self) -> HandoverReport:
        """What became of the last one."""
        return self._succession.report

    async def _follow(self, program: Program, *, reloading: bool) -> HandoverReport:
        """Try a program out, and let it follow once this has been answered."""
        if self.stopping or self._handing_over is not None or self._reloads:
            self._tell_ready()
            raise RequestRefused(409, BUSY)
        paths, environ, spare = self._supervisor.paths, self._supervisor.environ, self._supervisor.spare
        trial = asyncio.ensure_future(patiently(self._notifier, try_out(program, str(paths.tmp), environ, spare)))
        self._handing_over = trial
        try:
            await asyncio.shield(trial)
        except BaseException as error:  # whatever it is, the next who asks must find the way free
            self._handing_over = None
            self.events.append("upgrade_refused", str(error) or "whoever asked for it is gone")
            self._tell_ready()
            raise
        if self.state() == "stopping":  # by now
            self._handing_over = None
            raise RequestRefused(503, "the agent is stopping")
        self.reloading = reloading
        report = self._succession.begin(program)
        self.events.append("handover", f"version {report.before} hands over to {report.after}")
        self._handing_over = asyncio.ensure_future(self._hand_over(program))
        return report

    def handover_ended(self) -> None:
        """There was none in the end: this program goes on."""
        self._handing_over = None
        self._tell_ready()

    async def reload_after_handover(self) -> None:
        """Make true what is declared, as this version understands it; the report of the hand-over tells how."""
        try:
            declaration = self._read()
            # Whoever only upgrades has promised no news; but what is in effect may be newer than the credential.
            if self.reloading or declaration.file != self._supervisor.declaration.file:
                self._insist_on_news(declaration)
            self._succession.complete(await self._make_true(declaration), None)
        except AgentError as error:
            self._succession.complete(None, str(error))
        except Exception as error:  # for others to write down, but whoever waits for the report must not wait for ever
            self._succession.complete(None, repr(error))
            self._tell_ready()
            raise

    def _read(self) -> Declaration:
        # A tenth of a hand-over's pause, in which nobody needs it; this is what comes right after that.
        from agent.declaration.load import load

        try:
            return load(self._supervisor.paths, self._supervisor.environ)
        except DeclarationError as error:
            first = error.problems[0]
            more = f" (and {len(error.problems) - 1} more)" if len(error.problems) > 1 else ""
            self._refuse(f"{first}{more}")
            raise

    def _insist_on_being_up(self) -> None:
        """Raise ``RequestRefused`` during a start, which has to be over before another version follows."""
        if not self._up:
            raise RequestRefused(409, "the agent is starting: ask again when it is up")

    def _insist_on_news(self, declaration: Declaration) -> None:
        """Raise ``NothingNew`` for a credential as old as the agent: whoever asks has changed what it was made from.

        systemd renews credentials when it starts a unit; a newer one with RefreshOnReload= may do so before a reload.
        """
        newest = self._newest_credential()
        if declaration.file != str(self._supervisor.paths.declaration) and newest == self.credential:
            refusal = NothingNew(declaration.file)
            self._refuse(str(refusal))
            raise refusal
        self.credential = newest

    def _refuse(self, why: str) -> None:
        self.events.append("reload_refused", why)
        self._tell_ready()

    async def _make_true(self, declaration: Declaration) -> ReloadReport:
        task = asyncio.ensure_future(patiently(self._notifier, self._apply(declaration)))
        self._reloads.add(task)
        task.add_done_callback(self._reloaded)
        # Shielded: a client that hangs up must not leave the host between two declarations.
        return await asyncio.shield(task)

    async def _apply(self, declaration: Declaration) -> ReloadReport:
        report = await self._supervisor.reload(declaration)
        report.timers_out_of_sync = self._out_of_sync()
        return report

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
        if self._up and not self._reloads and self._handing_over is None and not self.stopping:
            self._notifier.ready()


def _told(report: ReloadReport) -> str:
    parts = []
    for verb in ("started", "stopped", "restarted", "updated", "added", "removed", "stuck"):
        names = getattr(report, verb)
        if names:
            told = [f"{name} ({report.notes[name]})" if name in report.notes else name for name in names[:10]]
            parts.append(f"{verb} {', '.join(told)}{' …' if len(names) > 10 else ''}")
    if report.failed:
        parts.append(f"failed {', '.join(sorted(report.failed)[:10])}{' …' if len(report.failed) > 10 else ''}")
    parts.append(f"{report.unchanged} unchanged")
    if report.timers_out_of_sync:
        parts.append("timers are not as declared: agentctl timers sync")
    return "; ".join(parts)


def _own_memory() -> int | None:
    """Resident bytes, from statm (proc(5)): second field, in pages."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    except (OSError, ValueError, IndexError):
        return None
