"""The timer that says when a job's time has come."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Protocol

import msgspec

from agent.declaration.model import Timer
from agent.errors import AgentError
from agent.supervisor.schedule import Appointment, appoint

LONGEST_SLEEP = 3600.0
"""Calendar timers sleep at most this many seconds, so that a clock that drifts is followed."""


class Memory(Protocol):
    """What outlives the agent: up to when the calendar of a job has been served, in unix seconds."""

    def served(self, name: str) -> float | None: ...
    def serve(self, name: str, at: float) -> None: ...


class Plan(msgspec.Struct, frozen=True):
    """What an agenda holds besides its timer: see ``agent.supervisor.schedule.appoint``."""

    since: float | None = None
    next: Appointment | None = None


class Agenda:
    """Calls ``on_due`` at each of a job's times, whether or not a run follows; ``on_failure`` when none can be told."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        name: str,
        memory: Memory,
        on_due: Callable[[], None],
        on_failure: Callable[[str], None],
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._loop = loop
        self._name = name
        self._memory = memory
        self._on_due = on_due
        self._on_failure = on_failure
        self._draw = draw
        self._timer: Timer | None = None
        self._since: float | None = None
        self._next: Appointment | None = None
        self._handle: asyncio.TimerHandle | None = None

    @property
    def next_run(self) -> float | None:
        """Unix seconds; ``None``: never."""
        return self._next.due if self._next is not None else None

    def plan(self, timer: Timer | None, last_run: float | None = None) -> None:
        """From now on these are the times; ``last_run`` is when a run began last, if any ever did."""
        self._cancel()
        before, self._timer = self._timer, timer
        if timer is None:
            self._next = None
            return
        now = time.time()
        if before is None or before.calendar != timer.calendar:
            self._since = self._next = None
        if timer.calendar is None:
            self._since = _latest(self._since, last_run)
        elif self._since is None:
            self._since = self._begin(timer, last_run, now)
        if self._since is not None:
            self._since = min(self._since, now)  # the clock was set back: what comes again is called again
        try:
            self._next = appoint(timer, self._since, now, self._next, self._draw)
        except AgentError as error:
            # Its time zone was there when the declaration was checked, and is no more: the host lost tzdata.
            self._next = None
            self._on_failure(str(error))
            return
        self._arm(now)

    def _arm(self, now: float) -> None:
        if self._next is not None:
            delay = min(max(0.0, self._next.due - now), LONGEST_SLEEP)
            self._handle = self._loop.call_later(delay, self.look)

    def _begin(self, timer: Timer, last_run: float | None, now: float) -> float:
        """From when on the times of a calendar count: from now on, unless those that were missed are made up for."""
        if not timer.persistent:
            return now
        since = _latest(self._memory.served(self._name), last_run)
        if since is None:
            # It has missed nothing yet, and could from now on.
            self._memory.serve(self._name, now)
            return now
        return since

    def freeze(self) -> Plan:
        """What is planned, for another program in this process that is to go on with it."""
        return Plan(since=self._since, next=self._next)

    def thaw(self, timer: Timer, plan: Plan) -> None:
        """Go on with what an earlier program had planned: a time that has come meanwhile is due now."""
        self._cancel()
        self._timer, self._since, self._next = timer, plan.since, plan.next
        self._arm(time.time())

    def look(self) -> None:
        """See whether the time has come, by the wall clock as it is now: also when that was set."""
        self._cancel()
        now = time.time()
        if self._next is not None and self._timer is not None and now >= self._next.due:
            # Also when the run is skipped: its time has passed all the same.
            self._since = now
            if self._timer.persistent:
                self._memory.serve(self._name, now)
            self._on_due()
        if self._handle is None:
            self.plan(self._timer)

    def _cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


def _latest(*times: float | None) -> float | None:
    return max((at for at in times if at is not None), default=None)
