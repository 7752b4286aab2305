"""One run's heartbeat, looked at when something may follow from it and at no other time.

Until a service is ready its ``start_timeout`` is what bounds it, and nobody looks, unless the first heartbeat is what
makes it ready. From then on the next look is when the heartbeat known last would be too old.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from agent.supervisor.pulse import Beat, Pulse

FIRST_LOOK = 0.1
"""Seconds between looks for a first heartbeat that makes a service ready."""

SOONEST = 0.01
"""Seconds that a look waits at least: a timer may fire a little early."""


class Liveness:
    """``on_first`` is called once when it has beaten, if asked to ``expect`` that; ``on_stale`` once with the age."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        pulse: Pulse,
        *,
        on_first: Callable[[], None],
        on_stale: Callable[[float], None],
    ) -> None:
        self._loop = loop
        self._pulse = pulse
        self._on_first = on_first
        self._on_stale = on_stale
        self._timer: asyncio.TimerHandle | None = None

    def expect(self) -> None:
        """Call ``on_first`` once there is a first heartbeat."""
        self._pulse.age(self._loop.time())
        if self._pulse.ever:
            self.close()
            self._on_first()
        else:
            self._timer = self._loop.call_later(FIRST_LOOK, self.expect)

    def freeze(self) -> Beat:
        """What another program in this process needs to go on watching."""
        return self._pulse.freeze()

    def resume(self, beat: Beat, *, ready: bool, expected: bool) -> None:
        """Go on where an earlier program was frozen: what is ready has to beat, what is ``expected`` to has not yet."""
        self._pulse.thaw(beat)
        if ready:
            self._await_due()
        elif expected:
            self.expect()

    def watch(self) -> None:
        """It is ready: from now on it has to beat."""
        self.close()
        self._pulse.restart(self._loop.time())
        self._await_due()

    def beat(self) -> None:
        """The worker said that it is alive."""
        self._pulse.beat(self._loop.time())

    def age(self) -> float:
        """Seconds since the last heartbeat."""
        return self._pulse.age(self._loop.time())

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _await_due(self) -> None:
        delay = max(SOONEST, self._pulse.due - self._loop.time())
        self._timer = self._loop.call_later(delay, self._look)

    def _look(self) -> None:
        self._timer = None
        stale = self._pulse.look(self._loop.time())
        if stale is None:
            self._await_due()
        else:
            self._on_stale(stale)
