"""All services of one host, held at their declared state. The thin shell around the lifecycle and the plan."""

from __future__ import annotations

import asyncio
import difflib
import secrets
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from agent.declaration.model import AgentSettings, AnyService, Declaration
from agent.linux.cgroup import CgroupTree
from agent.linux.process import Identity, reap_strangers
from agent.linux.sweep import everything, signal_all
from agent.paths import Paths
from agent.supervisor import lifecycle
from agent.supervisor.command import carry_out
from agent.supervisor.containment import CgroupContainment, Containment, SweepContainment
from agent.supervisor.generation import Generation
from agent.supervisor.lifecycle import Phase
from agent.supervisor.measure import Meter
from agent.supervisor.plan import Action as Planned
from agent.supervisor.plan import plan
from agent.supervisor.report import (
    Action,
    NoSuchService,
    Outcome,
    ReloadReport,
    ServiceReport,
    TimerReport,
)
from agent.supervisor.run import Sink
from agent.supervisor.unit import Unit
from agent.supervisor.view import describe, describe_timer
from agent.telemetry.events import EventStore

SETTLED = frozenset({Phase.RUNNING, Phase.WAITING, Phase.COMPLETED, Phase.FAILED, Phase.BACKOFF, Phase.STOPPED})
STOPPED_BEFORE = "stopped by hand before; `agentctl start` brings it back"
SETTLE_PATIENCE = 3600.0
UNKILLABLE_AFTER = 15.0
"""Seconds after the longest stop timeout for which the agent waits for processes that SIGKILL does not end."""


class Supervisor:
    """The services of one declaration. Everything runs in one loop on one thread."""

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        paths: Paths,
        declaration: Declaration,
        environ: Mapping[str, str],
        events: EventStore,
        tree: CgroupTree | None,
        sink: Callable[[AnyService], Sink],
        on_change: Callable[[Unit], None] = lambda unit: None,
    ) -> None:
        self.loop = loop
        self.paths = paths
        self.settings: AgentSettings = declaration.agent
        self.environ = dict(environ)
        self.lock_follows_child = False
        self.units: dict[str, Unit] = {}
        self._declaration = declaration
        self._events = events
        self._tree = tree
        self._sink = sink
        self._on_change = on_change
        self._meter = Meter()
        self._instance = secrets.token_hex(16)
        self._generation: Generation | None = None
        self._reloading = asyncio.Lock()
        self._closing = False

    @property
    def declaration(self) -> Declaration:
        return self._declaration

    @property
    def contained_by(self) -> Literal["cgroup", "sweep"]:
        return "cgroup" if self._tree is not None else "sweep"

    # -- what a unit needs (its Host) ---------------------------------------------------------------------------

    def contain(self, service: AnyService, mark: str) -> Containment:
        if self._tree is None:
            if service.limits.declared:
                self.record(
                    service.name, "limits_not_in_force", "limits need a delegated cgroup, and there is none", {}
                )
            return SweepContainment(self.loop, mark, lambda: self._workers(but=service.name))
        cgroup = self._tree.service(service.name)
        limits = service.limits
        missing = cgroup.set_limits(limits.memory, limits.cpus, limits.pids) if limits.declared else []
        if missing:
            what = ", ".join(missing)
            self.record(service.name, "limits_not_in_force", f"the cgroup has no controller for: {what}", {})
        return CgroupContainment(self.loop, cgroup)

    def mark(self, name: str) -> str:
        return f"{self._instance}:{name}"

    def sink(self, service: AnyService) -> Sink:
        return self._sink(service)

    def record(self, name: str, kind: str, message: str, data: dict[str, Any]) -> None:
        self._events.append(kind, message, service=name, **data)

    def spawned(self, name: str, identity: Identity, mark: str) -> None:
        self._meter.forget(name)
        if self._generation is not None:
            self._generation.record(name, identity, mark)

    def changed(self, unit: Unit) -> None:
        self._on_change(unit)

    def last_run(self, name: str) -> float | None:
        found = self._events.recall(f"last_run:{name}")
        return float(found) if found else None

    def ran(self, name: str, at: float) -> None:
        self._events.remember(f"last_run:{name}", repr(at))

    # -- life ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start everything that is enabled; returns at once, ``settled`` waits."""
        self._generation = Generation(self.paths.generation)
        self.loop.add_signal_handler(signal.SIGCHLD, self.reap)
        for service in self._declaration.services.values():
            self._add(service)

    def _add(self, service: AnyService) -> None:
        unit = self.units[service.name] = Unit(self, service)
        self._bring_up(unit)

    def _bring_up(self, unit: Unit) -> None:
        """Start what is enabled, unless somebody stopped it by hand and its policy respects that."""
        if not unit.service.enabled:
            unit.post(lifecycle.Stop("disabled in the declaration"))
        elif unit.service.restart == "unless-stopped" and self._events.recall(f"stopped:{unit.name}"):
            unit.post(lifecycle.Stop(STOPPED_BEFORE))
        else:
            unit.post(lifecycle.Boot())

    async def settled(self) -> None:
        """Wait until every service has started, waits on its calendar, or has failed to start."""
        await asyncio.gather(*(self._until(unit, SETTLED) for unit in list(self.units.values())))

    async def _until(self, unit: Unit, phases: frozenset[Phase]) -> None:
        while unit.phase not in phases:
            await unit.change(SETTLE_PATIENCE)

    async def stop(self) -> list[str]:
        """Stop everything at the same time, and wait until no process is left.

        Returns the names of services with a process that even SIGKILL does not end (uninterruptible sleep).
        """
        self._closing = True
        patience = max((unit.service.stop_timeout for unit in self.units.values()), default=0.0) + UNKILLABLE_AFTER
        for unit in self.units.values():
            unit.post(lifecycle.Stop("the agent stops"))
        stopping = [
            asyncio.ensure_future(self._until(unit, frozenset({Phase.STOPPED}))) for unit in self.units.values()
        ]
        if stopping:
            _, late = await asyncio.wait(stopping, timeout=patience)
            for task in late:
                task.cancel()
        # Whatever lost every sign of its service is still a descendant of ours, and does not outlive us.
        signal_all(everything(), signal.SIGKILL)
        self.reap()
        for unit in self.units.values():
            self._forget(unit)
        self.loop.remove_signal_handler(signal.SIGCHLD)
        left = sorted(unit.name for unit in self.units.values() if unit.state.has_process)
        if self._generation is not None and not left:
            self._generation.close()
        return left

    def _forget(self, unit: Unit) -> None:
        unit.close()
        if self._tree is not None:
            self._tree.service(unit.name).remove()

    def reap(self) -> None:
        """Collect strangers: orphans that became ours because the agent is a subreaper."""
        reap_strangers(self._workers().__contains__)

    def _workers(self, but: str = "") -> set[int]:
        """The PIDs of all workers, but for one service."""
        return {unit.run.pid for unit in self.units.values() if unit.run is not None and unit.name != but}

    def clock_was_set(self) -> None:
        """Everything computed from the wall clock is computed again."""
        self._events.append("clock_set", "the wall clock was set: calendars are computed again")
        for unit in self.units.values():
            unit.reschedule()

    # -- questions ----------------------------------------------------------------------------------------------

    def unit(self, name: str) -> Unit:
        """Raises ``NoSuchService`` with the nearest name."""
        found = self.units.get(name)
        if found is None:
            nearest = difflib.get_close_matches(name[:64], self.units, n=1)
            raise NoSuchService(name[:64], nearest[0] if nearest else None)
        return found

    def reports(self, name: str | None = None) -> list[ServiceReport]:
        chosen = [self.unit(name)] if name is not None else [self.units[key] for key in sorted(self.units)]
        now = self.loop.time()
        return [describe(unit, self._meter, now) for unit in chosen]

    def timers(self) -> list[TimerReport]:
        units = (self.units[key] for key in sorted(self.units))
        return [describe_timer(unit, self.last_run(unit.name)) for unit in units if unit.service.timer is not None]

    def log_path(self, name: str) -> Path:
        return self.paths.log(self.unit(name).name)

    # -- changes ------------------------------------------------------------------------------------------------

    async def act(self, action: Action, name: str, wait: bool) -> Outcome:
        """Start, stop or restart one service, and answer with what became of it.

        Commands on one service queue; services never wait for each other.
        """
        unit = self.unit(name)
        if self._closing:
            return Outcome(name=name, action=action, ok=False, state=unit.phase.value, message="the agent is stopping")
        if unit.service.restart == "unless-stopped":
            if action == "stop":
                self._events.remember(f"stopped:{name}", repr(time.time()))
            else:
                self._events.forget(f"stopped:{name}")
        return await carry_out(unit, action, wait)

    async def reload(self, declaration: Declaration) -> ReloadReport:
        """Make a new declaration true: restart only what has to, and wait until that has settled."""
        async with self._reloading:
            running = {name: unit.service for name, unit in self.units.items()}
            actions = plan(declaration.services, running)
            self._declaration = declaration
            restart_all = declaration.agent != self.settings and declaration.agent.server != self.settings.server
            self.settings = declaration.agent
            report = ReloadReport()
            await asyncio.gather(*(self._apply(action, declaration, report, restart_all) for action in actions))
            for names in (report.started, report.stopped, report.restarted, report.updated):
                names.sort()
            return report

    async def _apply(self, action: Planned, declaration: Declaration, report: ReloadReport, restart_all: bool) -> None:
        name, verb, because = action.name, action.verb, list(action.because)
        if restart_all and verb in ("keep", "update"):
            # SERVICE_SERVER is in every child's environment.
            verb, because = "restart", [*because, "agent.server"]
        if because:
            report.reasons[name] = because
        if verb == "keep":
            report.unchanged += 1
        elif verb == "stop":
            await self._remove(self.units[name])
            report.stopped.append(name)
        elif verb == "start":
            self._add(declaration.services[name])
            await self._until(self.units[name], SETTLED)
            report.started.append(name)
        elif verb == "update":
            await self._update(self.units[name], declaration.services[name])
            report.updated.append(name)
        else:
            await self._replace(self.units[name], declaration.services[name])
            report.restarted.append(name)

    async def _remove(self, unit: Unit) -> None:
        async with unit.queue:
            unit.post(lifecycle.Stop("no longer declared"))
            await self._until(unit, frozenset({Phase.STOPPED}))
            self._forget(unit)
            del self.units[unit.name]

    async def _replace(self, unit: Unit, service: AnyService) -> None:
        """A new worker under a new declaration, unless somebody had stopped the old one."""
        was_down = unit.phase is Phase.STOPPED and unit.service.enabled
        async with unit.queue:
            unit.post(lifecycle.Stop("declared anew"))
            await self._until(unit, frozenset({Phase.STOPPED}))
            self._forget(unit)
            if was_down and service.enabled:
                replacement = self.units[service.name] = Unit(self, service)
                replacement.post(lifecycle.Stop(STOPPED_BEFORE))
            else:
                self._add(service)
        await self._until(self.units[service.name], SETTLED)

    async def _update(self, unit: Unit, service: AnyService) -> None:
        was_enabled = unit.service.enabled
        unit.update(service)
        if was_enabled and not service.enabled:
            unit.post(lifecycle.Stop("disabled in the declaration"))
            await self._until(unit, frozenset({Phase.STOPPED}))
        elif service.enabled and not was_enabled:
            self._bring_up(unit)
            await self._until(unit, SETTLED)
