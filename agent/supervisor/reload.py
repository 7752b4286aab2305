"""Performing a plan: services come, go, and change, all of them at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from agent.declaration.model import AnyService, Declaration
from agent.supervisor.command import turn
from agent.supervisor.lifecycle import Phase
from agent.supervisor.plan import Action, Verb
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
    report = reload.report
    for names in (report.started, report.stopped, report.restarted, report.updated, report.added, report.removed):
        names.sort()
    report.stuck.sort()
    return report, reload.begun


class _Reload:
    """Each action is told by what came of it, not by what was to be done: what is disabled or waits was not started."""

    def __init__(self, services: Services, declaration: Declaration) -> None:
        self.report = ReloadReport()
        self.begun: list[Unit] = []
        self._services = services
        self._declared = declaration.services

    async def perform(self, action: Action, all_anew: bool) -> None:
        name, verb, because = action.name, action.verb, list(action.because)
        if all_anew and verb in ("keep", "update"):
            # SERVICE_SERVER is in every child's environment.
            verb, because = "restart", [*because, "agent.server"]
        report = self.report
        if because:
            report.reasons[name] = because
        if verb == "keep":
            report.unchanged += 1
            return
        unit = self._services.add(self._declared[name]) if verb == "start" else self._services.units[name]
        lived, run = _lives(unit), unit.state.run
        if not await self._perform(unit, verb):
            # It is told, stays listed, and is tried again by the next reload.
            report.stuck.append(name)
            return
        begun, ended = unit.state.run > run, lived and not _lives(unit)
        match verb:
            case "start":
                (report.started if begun else report.added).append(name)
            case "stop":
                (report.stopped if lived else report.removed).append(name)
            case "update":
                (report.started if begun else report.stopped if ended else report.updated).append(name)
            case "restart":
                anew = report.restarted if lived else report.started
                (anew if begun else report.stopped if ended else report.updated).append(name)

    async def _perform(self, unit: Unit, verb: Verb) -> bool:
        """Whether it could be done: not with processes that do not end."""
        match verb:
            case "start":
                self._bring_up(unit)
                return True
            case "stop":
                return await self._remove(unit)
            case "update":
                return await self._update(unit, self._declared[unit.name])
            case _:
                return await self._replace(unit, self._declared[unit.name])

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


def _lives(unit: Unit) -> bool:
    """Whether it has a process, or is about to have the next one."""
    return unit.state.has_process or unit.phase is Phase.BACKOFF
