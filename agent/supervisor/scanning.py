"""What a scan is told while it runs: to pause, to go on, to end its run.

It is told by files in ``run``, which the worker looks for several times a second, whoever has started it: the agent,
or ``run-once`` under systemd or cron. A pause lasts until somebody takes it back, over restarts of the worker, of the
agent and of the host; an order to end is for one run, and the next start removes it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from agent.errors import AgentError, AlreadyRunning
from agent.linux.files import PrefixLock, write_atomic
from agent.paths import Paths
from agent.supervisor.lifecycle import Start
from agent.supervisor.report import Action, Outcome
from agent.supervisor.unit import Unit

ENDS_WITHIN = 5.0
"""Seconds for which somebody waits for a run that was told to end. It takes less than one."""


ACTIONS: tuple[Action, ...] = ("now", "pause", "resume", "end")
AT_ONCE: tuple[Action, ...] = ("pause", "resume")
"""Those that take no turn on the unit: whoever waits for a start must not hold up a pause."""

Recorder = Callable[[str, str, str, dict[str, Any]], None]
"""Takes an event: the service, the kind, the message, its data."""


async def carry_out(unit: Unit, paths: Paths, record: Recorder, action: Action, wait: bool) -> Outcome:
    """Perform one command of ``agentctl scan``, in our turn on the unit if it takes one."""
    if unit.service.kind != "scan":
        return _told(unit, action, False, f"is no scan, but a {unit.service.kind}")
    try:
        match action:
            case "pause":
                return _pause(unit, paths, record)
            case "resume":
                return _resume(unit, paths, record)
            case "now":
                return _now(unit, paths)
            case _:
                return await _end(unit, paths, wait)
    except AgentError as error:
        return _told(unit, action, False, str(error))
    except OSError as error:
        return _told(unit, action, False, f"{error.filename}: {error.strerror}")


def forget(name: str, paths: Paths) -> None:
    """The service is no longer declared: another of its name must not find itself paused."""
    for path in (paths.paused(name), paths.ended(name)):
        with suppress(OSError):
            path.unlink()


def _pause(unit: Unit, paths: Paths, record: Recorder) -> Outcome:
    path = paths.paused(unit.name)
    if path.exists():
        return _told(unit, "pause", True, "is paused already")
    write_atomic(path, time.strftime("since %Y-%m-%d %H:%M:%S\n"))
    record(unit.name, "scan_paused", "paused by hand", {})
    waits = "" if _runs(unit, paths) else "; it does not run now, and will wait when it is started"
    return _told(unit, "pause", True, f"paused{waits}")


def _resume(unit: Unit, paths: Paths, record: Recorder) -> Outcome:
    try:
        paths.paused(unit.name).unlink()
    except FileNotFoundError:
        return _told(unit, "resume", True, "is not paused")
    record(unit.name, "scan_resumed", "resumed by hand", {})
    return _told(unit, "resume", True, "resumed")


def _now(unit: Unit, paths: Paths) -> Outcome:
    if not unit.service.enabled:
        return _told(unit, "now", False, "is disabled in the declaration (enabled = false)")
    if runner := _runs(unit, paths):
        return _told(unit, "now", False, f"runs already, {runner}")
    unit.post(Start())
    paused = f"; it is paused, and waits: agentctl scan resume {unit.name}" if unit.paused else ""
    return _told(unit, "now", True, f"started{paused}")


async def _end(unit: Unit, paths: Paths, wait: bool) -> Outcome:
    run = unit.state.run

    def goes_on() -> bool:
        return unit.state.has_process and unit.state.run == run

    if not _runs(unit, paths):
        return _told(unit, "end", False, "does not run now")
    write_atomic(paths.ended(unit.name), "")
    if not goes_on() or not wait:
        return _told(unit, "end", True, "told to end its run")
    deadline = unit.now() + ENDS_WITHIN
    while goes_on():
        if not await unit.change(deadline - unit.now()):
            why = f"goes on {ENDS_WITHIN:g} s after it was told to end: agentctl stop {unit.name}"
            return _told(unit, "end", False, why)
    return _told(unit, "end", True, "has ended its run")


def _runs(unit: Unit, paths: Paths) -> str:
    """Who runs it, the agent or somebody else who holds its lock; empty when nobody does."""
    if unit.state.has_process:
        return f"pid {unit.pid}" if unit.pid is not None else unit.phase.value
    lock = PrefixLock(paths.service_lock(unit.name))
    try:
        lock.acquire()
    except AlreadyRunning as error:
        return f"under process {error.pid}"
    lock.release()
    return ""


def _told(unit: Unit, action: Action, ok: bool, message: str) -> Outcome:
    return Outcome(name=unit.name, action=action, ok=ok, state=unit.phase.value, message=message, pid=unit.pid)
