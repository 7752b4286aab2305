"""The timer that says when a job's time has come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from agent.declaration.model import Timer
from agent.errors import AgentError
from agent.supervisor.schedule import next_run

LONGEST_SLEEP = 3600.0
"""Calendar timers sleep at most this many seconds, so that a clock that drifts is followed."""


class Agenda:
    """Calls ``on_due`` at each of a job's times, whether or not a run follows; ``on_failure`` when none can be told."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, on_due: Callable[[], None], on_failure: Callable[[str], None]
    ) -> None:
        self.next_run: float | None = None
        """Unix seconds; ``None``: never."""
        self._loop = loop
        self._on_due = on_due
        self._on_failure = on_failure
        self._timer: Timer | None = None
        self._last: float | None = None
        self._handle: asyncio.TimerHandle | None = None

    def plan(self, timer: Timer | None, last_run: float | None = None) -> None:
        """From now on these are the times; ``last_run`` is when a run began last, if any ever did."""
        self._cancel()
        self._timer = timer
        known = [at for at in (last_run, self._last) if at is not None]
        self._last = max(known, default=None)
        self.next_run = None
        if timer is None:
            return
        now = time.time()
        try:
            self.next_run = next_run(timer, now, self._last)
        except AgentError as error:
            # Its time zone was there when the declaration was checked, and is no more: the host lost tzdata.
            self._on_failure(str(error))
            return
        if self.next_run is not None:
            delay = min(max(0.0, self.next_run - now), LONGEST_SLEEP)
            self._handle = self._loop.call_later(delay, self.look)

    def resume(self, timer: Timer, next_run: float | None) -> None:
        """Go on with what an earlier program had planned: a time that has come meanwhile is due now."""
        self._cancel()
        self._timer, self.next_run = timer, next_run
        if next_run is not None:
            delay = min(max(0.0, next_run - time.time()), LONGEST_SLEEP)
            self._handle = self._loop.call_later(delay, self.look)

    def look(self) -> None:
        """See whether the time has come, by the wall clock as it is now: also when that was set."""
        self._cancel()
        if self.next_run is not None and time.time() >= self.next_run:
            # Also when the run is skipped: its time has passed all the same.
            self._last = time.time()
            self._on_due()
        if self._handle is None:
            self.plan(self._timer)

    def _cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
