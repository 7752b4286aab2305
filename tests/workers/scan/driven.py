"""Drives an engine as the sweep does, without anything that the sweep decides: each probe once, all that comes back."""

from __future__ import annotations

import select
import time
from collections.abc import Sequence

from agent.workers.scan.engine import Engine, Probe, Reply

LONGEST = 15.0


def replies(engine: Engine, probes: Sequence[Probe], *, expected: int, rate: float = 5000.0) -> dict[Probe, Reply]:
    """Send all, ``rate`` a second, and listen until there are ``expected`` answers and nothing is waiting.

    Raises ``TimeoutError`` when that takes too long.
    """
    found: dict[Probe, Reply] = {}
    begun, sent = time.monotonic(), 0
    while sent < len(probes) or len(found) < expected or engine.waiting:
        now = time.monotonic()
        if now - begun > LONGEST:
            raise TimeoutError(f"{len(found)} answers to {sent} of {len(probes)} probes, {engine.waiting} waiting")
        room = min(engine.room, int((now - begun) * rate) + 1 - sent)
        if room > 0:
            sent += engine.send(probes[sent : sent + room], now)
        select.select([engine], [], [], 0.005)
        for reply in engine.receive(time.monotonic()):
            found[reply.place, reply.port] = reply
    return found
