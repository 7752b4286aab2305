"""``start``, ``stop`` and ``restart``: ask, wait, and say what became of it."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agent.supervisor import lifecycle
from agent.supervisor.lifecycle import Phase
from agent.supervisor.report import Action, Outcome
from agent.supervisor.transitions import KILL_AGAIN
from agent.supervisor.unit import Unit
from agent.supervisor.view import message as why

ROTATE = signal.SIGUSR1
"""What a capture worker closes its segments for."""
MARGIN = 2.0
"""Seconds on top of the declared timeouts before a command gives up waiting."""
FIRST_MOMENTS = 0.25
"""Seconds for which a program that announces nothing is watched, lest one that fails at once be called started."""


@asynccontextmanager
async def turn(unit: Unit, *, impatient: bool = False) -> AsyncIterator[None]:
    """Our turn on this unit: whoever asks something of it does it one after the other.

    Somebody ``impatient`` who queues up behind a command that waits for a start ends that wait: nobody has to sit out
    the start of something that is to be stopped.
    """
    unit.impatient += impatient
    unit.wake()
    try:
        await unit.queue.acquire()
    finally:
        unit.impatient -= impatient
    try:
        yield
    finally:
        unit.queue.release()


async def carry_out(unit: Unit, action: Action, wait: bool) -> Outcome:
    """Perform one command, in our turn on the unit."""
    if action == "rotate":
        return _rotate(unit)
    run_before = unit.state.run
    awaited = run_before
    match action:
        case "start":
            if unit.phase not in (Phase.STARTING, Phase.RUNNING):
                awaited += 1
            unit.post(lifecycle.Start())
        case "restart":
            awaited += 1
            unit.post(lifecycle.Restart())
        case "stop":
            unit.post(lifecycle.Stop("stopped by hand"))
    if not wait:
        return Outcome(
            name=unit.name, action=action, ok=True, state=unit.phase.value, message="asked for", pid=unit.pid
        )
    deadline = unit.now() + _patience(unit, action)
    while not _decided(unit, action, awaited) and not (unit.phase is Phase.STARTING and unit.impatient):
        if not await unit.change(deadline - unit.now()):
            break
    if action != "stop" and unit.phase is Phase.RUNNING and awaited > run_before:
        await _watch_first_moments(unit)
    return _outcome(unit, action, awaited, run_before)


def _rotate(unit: Unit) -> Outcome:
    """Tell a capture to close its segments. Nothing of its state changes, so there is nothing to wait for."""
    if unit.service.kind != "capture":
        ok, message = False, "is no capture: it has no segments to close"
    elif unit.run is not None and unit.run.tell(ROTATE):
        ok, message = True, "told to close its segments"
    else:
        ok, message = False, "does not capture now"
    return Outcome(name=unit.name, action="rotate", ok=ok, state=unit.phase.value, message=message, pid=unit.pid)


async def _watch_first_moments(unit: Unit) -> None:
    if unit.service.ready != "immediate":
        return
    run, deadline = unit.state.run, unit.now() + FIRST_MOMENTS
    while unit.state.has_process:
        if unit.state.run != run:
            # It was started again at once, for which the same holds: what is told is what came of that.
            run, deadline = unit.state.run, unit.now() + FIRST_MOMENTS
        if not await unit.change(deadline - unit.now()):
            return


def _patience(unit: Unit, action: Action) -> float:
    """Seconds that the command may take by the declaration, and a little more."""
    stopping = unit.service.stop_timeout + KILL_AGAIN if unit.state.has_process else 0.0
    starting = unit.service.start_timeout if action != "stop" else 0.0
    return stopping + starting + MARGIN


def _decided(unit: Unit, action: Action, awaited: int) -> bool:
    if action == "stop" or unit.phase is Phase.STOPPED:  # also when a stop has overtaken the start
        return unit.phase is Phase.STOPPED
    return unit.state.run >= awaited and unit.phase not in (Phase.STARTING, Phase.STOPPING)


def _outcome(unit: Unit, action: Action, awaited: int, run_before: int) -> Outcome:
    phase = unit.phase
    if action == "stop":
        ok = phase is Phase.STOPPED
        message = _stopped(unit) if ok else f"still {phase.value}: {unit.state.reason or 'its processes do not end'}"
    else:
        ran_through = unit.state.verdict is not None and unit.state.verdict.success
        ok = unit.state.run == awaited and (
            phase is Phase.RUNNING or (phase in (Phase.WAITING, Phase.COMPLETED) and ran_through)
        )
        message = f"runs already, pid {unit.pid}" if ok and awaited == run_before else _told(unit, action, ok)
    return Outcome(name=unit.name, action=action, ok=ok, state=phase.value, message=message, pid=unit.pid)


def _stopped(unit: Unit) -> str:
    if not unit.times_are_systemds:
        return "stopped"
    return f"stopped; systemd goes on starting it at its times, unless you systemctl stop agent-job@{unit.name}.timer"


def _told(unit: Unit, action: Action, ok: bool) -> str:
    if ok and unit.phase is Phase.RUNNING:
        return f"{action}ed, pid {unit.pid}"
    if ok:
        return f"ran: {unit.last_exit}"
    if unit.impatient:
        return f"still {unit.phase.value} when it was to be stopped"
    if unit.phase is Phase.STARTING:
        return f"still not ready; last exit: {unit.last_exit or 'none'}"
    if unit.phase is Phase.RUNNING:
        when = " at once" if unit.service.ready == "immediate" else ""
        return f"it ended{when}, {unit.last_exit}, and was started again, pid {unit.pid}"
    if unit.state.reason:
        return why(unit)
    # A phase that has no reason is told by what is waited for, which is no answer here.
    return f"it ended at once: {unit.last_exit}" if unit.state.verdict else f"not started: {unit.last_exit}"
