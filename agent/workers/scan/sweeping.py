"""The sweep of one chunk in the worker's own loop: who turns it, and what becomes of what it found."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from agent.workers.scan.engine import Engine
from agent.workers.scan.pausing import Gate
from agent.workers.scan.sweep import Sweep

_ENOUGH = 0.005  # seconds of turns without a break: longer would keep others in this loop waiting


async def drive(sweep: Sweep, engine: Engine, gate: Gate, turn: Callable[[], None]) -> None:
    """Turn the sweep until it is done. ``turn`` is called at least every tenth of a second: to beat, and to tell.

    Raises ``Ended`` once the run is to end, and what the engine raises. Whatever ends it, the ledger can be continued.
    """
    told = rested = time.monotonic()
    try:
        while not sweep.done:
            now = time.monotonic()
            delay = sweep.turn(now) if gate.look() else sweep.hold(now)
            if now - told >= 0.1:
                told = now
                turn()
            if delay > 0 or now - rested >= _ENOUGH:
                await asyncio.sleep(delay)
                rested = time.monotonic()
    finally:
        engine.forget()
