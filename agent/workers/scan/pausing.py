"""Whether a scan may send now: not while paused by hand, and not outside its window. And whether its run is to end.

``agentctl scan pause`` and ``stop`` leave files beside the settings of the scan (``agent.supervisor.scanning``); who
sends anything asks the gate before each batch, which looks at them every ``LOOK`` seconds and costs nothing in between.
What waits in an engine, or would be repeated by the kernel, is held back too (``Engine.resting``). The kernel alone may
still look for a neighbour that it was made to look for: by three requests, a second apart (arp(7)).

What runs as a foreign program, nmap, cannot be asked. It is killed when the gate closes, and what it was at and is not
noted elsewhere (``rollcall``, ``notebook``) is done anew when the gate opens (``Gate.redo``). To stop it in its tracks
(SIGSTOP) would be shorter, and wrong: its timers go on while it stands, and when it continues every probe in flight has
timed out, so that a pause would read as loss, filtered ports and lost hosts. To let it end by itself may take minutes,
and a pause has to hold within a second.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from agent.declaration.model import Scan
from agent.declaration.wall_clock import offsets_of
from agent.declaration.window import FARTHEST, OffsetAt, Window, is_open, next_change, parse_window
from agent.workers.runtime import Context

LOOK = 0.2
"""Seconds between two looks: nothing leaves the host any more within twice that."""

EXTEND_EVERY = 1.0
"""Seconds between two requests for more time, once something of it was spent waiting."""

_T = TypeVar("_T")

Opens = Callable[[float], float | None]
"""When a window opens next, in unix seconds, if it is closed at that unix time; ``None``: it is open."""


class Ended(Exception):
    """Somebody ended the run: ``agentctl scan stop``. What it has found stays; the next run does not go on with it."""

    def __init__(self) -> None:
        super().__init__("ended by hand")


def always(now: float) -> float | None:
    """A window that is always open."""
    return None


class Gate:
    """Open, or closed and saying why. All but ``open`` and ``held`` raise ``Ended`` once the run is to end."""

    def __init__(
        self,
        config: Path | None,
        opens: Opens = always,
        *,
        timeout: float | None = None,
        extend: Callable[[float], object] = lambda seconds: None,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        """``config`` is where the settings of the scan are (``SERVICE_CONFIG``).

        ``timeout`` is how many seconds the run may take in all, from now on, and ``extend`` asks for that many more
        from the moment on at which it is called: the time for which the gate is closed does not count.
        """
        self._paused = config and config.with_suffix(".paused")
        self._ended = config and config.with_suffix(".ended")
        self._opens = opens
        self._timeout = timeout
        self._extend = extend
        self._clock = clock
        self._ticks = ticks
        self._began = ticks()
        self._looked: float | None = None
        self._closed_since: float | None = None
        self._extended = float("-inf")
        self._held = 0.0
        self._over = False
        self.why = ""
        """Why it is closed, as a person reads it; empty while it is open."""

    @property
    def open(self) -> bool:
        """As of the last look."""
        return not self.why

    @property
    def held(self) -> float:
        """Seconds for which it has been closed in all."""
        return self._held + (self._ticks() - self._closed_since if self._closed_since is not None else 0.0)

    def look(self) -> bool:
        """Whether anything may be sent now. To be asked before each batch. Raises ``Ended``."""
        now = self._ticks()
        if self._looked is None or now - self._looked >= LOOK:
            self._looked = now
            self._over = self._over or _there(self._ended)
            self._turn(self._reason(), now)
        if self._over:
            raise Ended
        return not self.why

    async def passage(self, turn: Callable[[], None] = lambda: None) -> None:
        """Return once it is open. ``turn`` is called at each look meanwhile: to beat, and to tell. Raises ``Ended``."""
        while not self.look():
            turn()
            await asyncio.sleep(LOOK)

    async def breathe(self, turn: Callable[[], None] = lambda: None) -> None:
        """A break in long work that sends nothing: call ``turn``, let others have their turn, and as ``passage``."""
        turn()
        await asyncio.sleep(0)
        await self.passage(turn)

    async def redo(self, make: Callable[[], Coroutine[Any, Any, _T]], turn: Callable[[], None] = lambda: None) -> _T:
        """The result of what ``make`` begins. It is cancelled when the gate closes, and begun anew when that opens.

        What is begun must take a cancellation within a fraction of a second, and leave nothing half-done. Raises what
        it raises, and ``Ended``, after it was cancelled.
        """
        while True:
            await self.passage(turn)
            work = asyncio.ensure_future(make())
            try:
                while not work.done():
                    await asyncio.wait({work}, timeout=LOOK)
                    if not work.done() and not self.look():
                        break
            finally:
                if not work.done():
                    work.cancel()
                    with suppress(asyncio.CancelledError):
                        await asyncio.wait({work})
            if not work.cancelled():
                return work.result()

    def _reason(self) -> str:
        if _there(self._paused):
            return "paused by hand"
        opens = self._opens(self._clock())
        if opens is None:
            return ""
        return f"outside its window until {time.strftime('%Y-%m-%d %H:%M', time.localtime(opens))}"

    def _turn(self, why: str, now: float) -> None:
        if why and self._closed_since is None:
            self._closed_since = now
        elif not why and self._closed_since is not None:
            self._held += now - self._closed_since
            self._closed_since = None
        self.why = why
        # Also while it is open again: nobody is given more than an hour at a time (agent.supervisor.notices).
        if self._timeout is not None and (why or self._held) and now - self._extended >= EXTEND_EVERY:
            self._extended = now
            self._extend(max(0.0, self._timeout - (now - self._began - self.held)))


def opens(windows: Sequence[Window], offset_at: OffsetAt) -> Opens:
    """When one of these windows opens next. One that never does (its hour is left out for ever) is far off."""

    def next_opening(now: float) -> float | None:
        if is_open(windows, now, offset_at):
            return None
        change = next_change(windows, now, offset_at)
        return now + FARTHEST if change is None else change

    return next_opening


def gate_of(context: Context) -> Gate:
    """The gate of the scan that this process is the worker of. Raises ``ConfigurationError``."""
    config, service = os.environ.get("SERVICE_CONFIG"), context.service
    windows = [parse_window(text) for text in service.window] if isinstance(service, Scan) else []
    when = opens(windows, offsets_of(None))

    def extend(seconds: float) -> None:
        context.tell(EXTEND_TIMEOUT_USEC=str(int(seconds * 1e6)))

    return Gate(Path(config) if config else None, when, timeout=service.run_timeout, extend=extend)


def _there(path: Path | None) -> bool:
    return path is not None and os.path.lexists(path)
