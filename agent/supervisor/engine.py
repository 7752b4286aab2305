"""All services of one host, held at their declared state. The thin shell around the lifecycle and the plan."""

from __future__ import annotations

import asyncio
import difflib
import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal

import msgspec

from agent.declaration.model import AgentSettings, AnyService, Declaration, Limits
from agent.errors import RequestRefused, RuntimeFailure
from agent.linux import signals
from agent.linux.cgroup import CgroupTree
from agent.linux.process import Identity, family, reap_strangers
from agent.linux.sweep import everything, signal_all
from agent.paths import Paths
from agent.supervisor import lifecycle, scanning
from agent.supervisor.command import carry_out, turn
from agent.supervisor.containment import CgroupContainment, Containment, Held, SweepContainment
from agent.supervisor.generation import Generation
from agent.supervisor.lifecycle import Phase
from agent.supervisor.measure import Meter
from agent.supervisor.plan import plan
from agent.supervisor.reload import make_true
from agent.supervisor.report import Action, NoSuchService, Outcome, ReloadReport, ServiceReport, TimerReport
from agent.supervisor.run import Sink
from agent.supervisor.unit import Unit, UnitState
from agent.supervisor.view import describe, describe_timer, has_failed, message, why_at_rest
from agent.telemetry.events import EventStore

SETTLED = frozenset({Phase.RUNNING, Phase.WAITING, Phase.COMPLETED, Phase.FAILED, Phase.BACKOFF, Phase.STOPPED})
DOWN = frozenset({Phase.STOPPED})
UNKILLABLE_AFTER = 15.0
"""Seconds after a stop timeout for which somebody waits for processes that SIGKILL does not end."""
STRAYS_AFTER = 2.0
"""Seconds that processes which nobody can be blamed for any more are given to be gone after SIGKILL."""


class SupervisorState(msgspec.Struct, frozen=True, kw_only=True):
    """Everything between two programs in one process. ``instance`` is in the mark of each worker."""

    declaration: Declaration
    contained_by: Literal["cgroup", "sweep"]
    instance: str
    units: list[UnitState]


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
        frozen: SupervisorState | None = None,
    ) -> None:
        """With ``frozen``, go on with what an earlier program in this process has left: see ``thaw``."""
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
        self._instance = frozen.instance if frozen else os.urandom(16).hex()
        self._generation = Generation(paths.generation, resume=frozen is not None)
        self._workers: dict[str, int] = {}
        """The PIDs of those workers that live."""
        self._spared: set[int] = set()
        """Children that are no workers, and that somebody waits for all the same."""
        self._unlimited: dict[str, Limits] = {}
        self._reloading = asyncio.Lock()
        self._closing = False
        if frozen is None:
            for service in declaration.services.values():
                self.units[service.name] = Unit(self, service)
        else:
            self._thaw(frozen)

    @property
    def declaration(self) -> Declaration:
        return self._declaration

    @property
    def contained_by(self) -> Literal["cgroup", "sweep"]:
        return "cgroup" if self._tree is not None else "sweep"

    # -- what a unit needs (its Host) ---------------------------------------------------------------------------

    def contain(self, service: AnyService, mark: str, held: Held | None = None) -> Containment:
        if held is not None:
            if self._tree is None:
                return SweepContainment(self.loop, mark, self._workers.values, held)
            return CgroupContainment(self.loop, self._tree.held(service.name), held)
        limits = service.limits
        if self._tree is None:
            if limits.declared:
                self._not_limited(service, "limits need a delegated cgroup, and there is none")
            return SweepContainment(self.loop, mark, self._workers.values)
        cgroup = self._tree.service(service.name)
        if limits.declared and (missing := cgroup.set_limits(limits.memory, limits.cpus, limits.pids)):
            self._not_limited(service, f"the cgroup has no controller for: {', '.join(missing)}")
        return CgroupContainment(self.loop, cgroup)

    def _not_limited(self, service: AnyService, why: str) -> None:
        """Said once, not at each restart."""
        if self._unlimited.get(service.name) != service.limits:
            self._unlimited[service.name] = service.limits
            self.record(service.name, "limits_not_in_force", why, {})

    def mark(self, name: str) -> str:
        mark = f"{self._instance}:{name}"
        self._generation.expect(name, mark)
        return mark

    def sink(self, service: AnyService) -> Sink:
        return self._sink(service)

    def record(self, name: str, kind: str, message: str, data: dict[str, Any]) -> None:
        self._events.append(kind, message, name, **data)

    def spawned(self, name: str, identity: Identity, mark: str) -> None:
        self._workers[name] = identity.pid
        self._meter.forget(name)
        self._generation.record(name, identity, mark)

    def exited(self, name: str) -> None:
        self._workers.pop(name, None)

    def changed(self, unit: Unit) -> None:
        self._on_change(unit)

    def last_run(self, name: str) -> float | None:
        found = self._events.recall(f"last_run:{name}")
        return float(found) if found else None

    def ran(self, name: str, at: float) -> None:
        self._events.remember(f"last_run:{name}", repr(at))

    def served(self, name: str) -> float | None:
        found = self._events.recall(f"served:{name}")
        return float(found) if found else None

    def serve(self, name: str, at: float) -> None:
        self._events.remember(f"served:{name}", repr(at))

    # -- another program in this process --------------------------------------------------------------------------

    def freeze(self) -> SupervisorState:
        """Everything, for the program that this process is to become. Nothing is closed, and all of it goes on."""
        return SupervisorState(
            declaration=self._declaration,
            contained_by=self.contained_by,
            instance=self._instance,
            units=[unit.freeze() for unit in self.units.values()],
        )

    def _thaw(self, frozen: SupervisorState) -> None:
        if frozen.contained_by != self.contained_by:
            raise RuntimeFailure(
                f"services are held by {frozen.contained_by}, and now only a {self.contained_by} is to be had"
            )
        for state in frozen.units:
            unit = self.units[state.service.name] = Unit(self, state.service)
            unit.thaw(state)

    # -- life ---------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start everything that is enabled, one after the other; in between others have their turn."""
        signals.watch(self.loop, signal.SIGCHLD, self.reap)
        self.reap()  # who ended while nobody watched
        if not self._generation.complete:
            why = "cannot be written: until it can, the next agent may not recognise what this one leaves when killed"
            self._events.append("error", f"{self.paths.generation}: {why}")
        for unit in list(self.units.values()):
            if unit.untouched and self.units.get(unit.name) is unit:
                self.bring_up(unit)
            await asyncio.sleep(0)

    def add(self, service: AnyService) -> Unit:
        """A service that was not declared before. It is not started yet."""
        unit = self.units[service.name] = Unit(self, service)
        return unit

    def bring_up(self, unit: Unit) -> None:
        """Start what is enabled, unless somebody stopped it by hand and its policy respects that."""
        if self._closing:
            return
        if not unit.service.enabled:
            unit.post(lifecycle.Stop("disabled in the declaration"))
        elif unit.service.restart == "unless-stopped" and self._events.recall(f"stopped:{unit.name}"):
            unit.post(lifecycle.Stop("stopped by hand before; `agentctl start` brings it back"))
        else:
            unit.post(lifecycle.Boot())

    async def bring_down(self, unit: Unit, why: str) -> bool:
        """Stop it, and wait until no process of it is left; ``False`` when there is one that does not end."""
        if unit.phase is Phase.STOPPED:
            return True
        unit.post(lifecycle.Stop(why))
        return await self._until(unit, DOWN, unit.service.stop_timeout + UNKILLABLE_AFTER)

    def forget(self, unit: Unit) -> None:
        """Take back all that was laid for a service that is down."""
        unit.close()
        self._meter.forget(unit.name)
        self._unlimited.pop(unit.name, None)
        if self._tree is not None:
            with suppress(OSError):
                self._tree.service(unit.name).remove()

    def remove(self, unit: Unit) -> None:
        """A service that is down and no longer declared; what was remembered of it is of no use to another."""
        self.forget(unit)
        scanning.forget(unit.name, self.paths)
        del self.units[unit.name]
        for key in ("stopped", "last_run", "served"):
            self._events.forget(f"{key}:{unit.name}")

    async def settled(self) -> None:
        """Wait until every service has started, waits on its calendar, or has failed to start."""
        await asyncio.gather(*(self.settle(unit) for unit in list(self.units.values())))

    async def settle(self, unit: Unit) -> None:
        """The same for one service."""
        await self._until(unit, SETTLED, float("inf"))

    async def _until(self, unit: Unit, phases: frozenset[Phase], patience: float) -> bool:
        deadline = unit.now() + patience
        while unit.phase not in phases:
            if not await unit.change(deadline - unit.now()):
                return unit.phase in phases
        return True

    @property
    def stop_patience(self) -> float:
        """Seconds that ``stop`` may take at most."""
        return max((unit.service.stop_timeout for unit in self.units.values()), default=0.0) + UNKILLABLE_AFTER

    async def stop(self) -> list[str]:
        """Stop everything at the same time, and wait until no process is left.

        Returns the names of services with a process that even SIGKILL does not end (uninterruptible sleep).
        """
        self._closing = True
        units = list(self.units.values())
        patience = self.stop_patience
        for unit in units:
            unit.post(lifecycle.Stop("the agent stops"))
        await asyncio.gather(*(self._until(unit, DOWN, patience) for unit in units))
        with suppress(OSError):
            await self._end_strays()
        signals.ignore(self.loop, signal.SIGCHLD)
        left = sorted(unit.name for unit in units if unit.state.has_process)
        for unit in units:
            if not unit.state.has_process:
                self.forget(unit)
        if not left:
            self._generation.close()
        return left

    async def _end_strays(self) -> None:
        """Whatever lost every sign of its service is still a descendant of ours, and does not outlive us."""
        deadline = self.loop.time() + STRAYS_AFTER
        while (strays := everything()) and self.loop.time() < deadline:
            signal_all(strays, signal.SIGKILL)
            await asyncio.sleep(0.01)
            self.reap()

    def reap(self) -> None:
        """Collect strangers: orphans that became ours because the agent is a subreaper."""
        with suppress(OSError):  # no descriptor to look with: the next one that ends is reason enough to look again
            reap_strangers({*self._workers.values(), *self._spared}.__contains__)

    def spare(self, pid: int, living: bool) -> None:
        """Leave the exit status of a child to whoever waits for it, as long as it is ``living``."""
        if living:
            self._spared.add(pid)
        else:
            self._spared.discard(pid)

    def clock_was_set(self) -> None:
        """Everything computed from the wall clock is computed again."""
        self._events.append("clock_set", "the wall clock was set: calendars are computed again")
        for unit in self.units.values():
            unit.clock_was_set()

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
        relatives = cache(family())  # each of them is asked about once, however many services there are
        return [describe(unit, self._meter, relatives) for unit in chosen]

    def timers(self) -> list[TimerReport]:
        units = (self.units[key] for key in sorted(self.units))
        return [describe_timer(unit, self.last_run(unit.name)) for unit in units if unit.service.timer is not None]

    def log_path(self, name: str) -> Path:
        return self.paths.log(self.unit(name).name)

    # -- changes ------------------------------------------------------------------------------------------------

    async def act(self, action: Action, name: str, wait: bool) -> Outcome:
        """Do something with one service, such as to start it, and answer with what became of it.

        Commands on one service queue; services never wait for each other. Raises ``NoSuchService``, also when the
        service went while the command waited for its turn.
        """
        if action in scanning.AT_ONCE:
            return await scanning.carry_out(self.unit(name), self.paths, self.record, action, wait)
        while True:
            unit = self.unit(name)
            async with turn(unit, impatient=action in ("stop", "end")):
                if self.units.get(name) is not unit:
                    continue  # a reload took it away meanwhile
                if self._closing:
                    why = "the agent is stopping"
                    return Outcome(name=name, action=action, ok=False, state=unit.phase.value, message=why)
                if action in scanning.ACTIONS:
                    return await scanning.carry_out(unit, self.paths, self.record, action, wait)
                if action != "rotate":
                    self._remember(unit, action)
                return await carry_out(unit, action, wait)

    def _remember(self, unit: Unit, action: Action) -> None:
        """What was stopped by hand stays stopped over a restart of the agent, if its policy says so."""
        if action != "stop":
            self._events.forget(f"stopped:{unit.name}")
        elif unit.service.restart == "unless-stopped":
            self._events.remember(f"stopped:{unit.name}", repr(time.time()))

    async def reload(self, declaration: Declaration) -> ReloadReport:
        """Make a new declaration true: restart only what has to, and wait until that has settled.

        Another reload may begin while this one waits. Raises ``RequestRefused`` when the agent is stopping.
        """
        async with self._reloading:
            if self._closing:
                raise RequestRefused(503, "the agent is stopping")
            actions = plan(declaration.services, {name: unit.service for name, unit in self.units.items()})
            before = self.settings
            self._declaration, self.settings = declaration, declaration.agent
            if before.scheduler != self.settings.scheduler:
                for unit in self.units.values():
                    unit.plan_next()
            all_anew = before.server != self.settings.server
            report, begun = await make_true(self, declaration, actions, all_anew=all_anew)
        await asyncio.gather(*(self.settle(unit) for unit in begun))
        report.failed = {unit.name: message(unit) for unit in begun if has_failed(unit)}
        changed = (report.started, report.stopped, report.restarted, report.updated, report.added)
        for name in sorted(name for names in changed for name in names):
            if name in self.units and name not in report.failed and (why := why_at_rest(self.units[name])):
                report.notes[name] = why
        return report
