"""Performing a plan: services come, go, and change, all of them at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from agent.declaration.model import AnyService, Declaration
from agent.supervisor.command import turn
from agent.supervisor.lifecycle import Phase
from agent.supervisor.plan import Action
from agent.supervisor.report import ReloadReport
from agent.supervisor.unit import Unit


class Services(Protocol):
    """What a reload does it with; the engine."""

    units: dict[str, Unit]

    def add(self, service: AnyService) -> Unit: ...
    def bring_up(self, unit: Unit) -> None: ...
    async def bring_down(self, unit: Unit, why: str) -> bool: ...
    def forget(self, unit: Unit) -> None: ...
    def remove(self, unit: Unit) -> None: ...


async def make_true(
    services: Services, declaration: Declaration, actions: Sequence[Action], *, all_anew: bool
) -> tuple[ReloadReport, list[Unit]]:
    """Perform the actions; returns what was done, and the units that have been started but may not have settled.

    With ``all_anew`` every worker is replaced, because what all of them were told has changed.
    """
    reload = _Reload(services, declaration)
    await asyncio.gather(*(reload.perform(action, all_anew) for action in actions))
    for names in (*reload.done.values(), reload.stuck):
        names.sort()
    report = ReloadReport(
        started=reload.done["started"],
        stopped=reload.done["stopped"],
        restarted=reload.done["restarted"],
        updated=reload.done["updated"],
        stuck=reload.stuck,
        unchanged=reload.unchanged,
        reasons=reload.reasons,
    )
    return report, reload.begun


class _Reload:
    def __init__(self, services: Services, declaration: Declaration) -> None:
        self.done: dict[str, list[str]] = {"started": [], "stopped": [], "restarted": [], "updated": []}
        self.stuck: list[str] = []
        self.unchanged = 0
        self.reasons: dict[str, list[str]] = {}
        self.begun: list[Unit] = []
        self._services = services
        self._declared = declaration.services

    async def perform(self, action: Action, all_anew: bool) -> None:
        name, verb, because = action.name, action.verb, list(action.because)
        if all_anew and verb in ("keep", "update"):
            # SERVICE_SERVER is in every child's environment.
            verb, because = "restart", [*because, "agent.server"]
        if because:
            self.reasons[name] = because
        match verb:
            case "keep":
                self.unchanged += 1
            case "start":
                self._bring_up(self._services.add(self._declared[name]))
                self.done["started"].append(name)
            case "stop":
                self._note("stopped", name, await self._remove(self._services.units[name]))
            case "update":
                self._note("updated", name, await self._update(self._services.units[name], self._declared[name]))
            case "restart":
                self._note("restarted", name, await self._replace(self._services.units[name], self._declared[name]))

    def _note(self, what: str, name: str, done: bool) -> None:
        """What did not end is told, stays listed, and is tried again by the next reload."""
        (self.done[what] if done else self.stuck).append(name)

    def _bring_up(self, unit: Unit) -> None:
        self._services.bring_up(unit)
        self.begun.append(unit)

    async def _remove(self, unit: Unit) -> bool:
        async with turn(unit, impatient=True):
            down = await self._services.bring_down(unit, "no longer declared")
            if down:
                self._services.remove(unit)
            return down

    async def _replace(self, unit: Unit, service: AnyService) -> bool:
        """A new worker under a new declaration, unless somebody had stopped the old one."""
        async with turn(unit, impatient=True):
            held_down = unit.phase is Phase.STOPPED and unit.service.enabled and not unit.untouched
            if not await self._services.bring_down(unit, "declared anew"):
                return False
            self._services.forget(unit)
            unit.update(service)
            if not held_down or not service.enabled:
                self._bring_up(unit)
            return True

    async def _update(self, unit: Unit, service: AnyService) -> bool:
        """The same worker under a new declaration, apart from starting what is now enabled and the reverse."""
        was_enabled = unit.service.enabled
        unit.update(service)
        if was_enabled and not service.enabled:
            return await self._services.bring_down(unit, "disabled in the declaration")
        if service.enabled and not was_enabled:
            self._bring_up(unit)
        return True
