"""Hosts that say "open" whatever they are asked: a proxy in front of them answers, or a trap does. Pure.

Many open ports alone are no proof, some hosts have them. So a few ports on which nobody listens are asked too, chosen
anew for each host: where every one of them is open, being open means nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Final

from agent.workers.scan.engine import Probe

MANY: Final = 100
"""Open ports of a host that are suspicious in any case."""

UNLIKELY: Final = 5
"""How many odd ports are asked."""

_FEW, _PART = 20, 0.8  # or at least so many, if they are so large a part of what was asked


def suspicious(found: int, asked: int) -> bool:
    """Whether ``found`` open ports of ``asked`` are to be looked into."""
    return found >= MANY or (found >= _FEW and found >= _PART * asked)


def unlikely(seed: bytes, place: int) -> tuple[int, ...]:
    """``UNLIKELY`` different ports from 20,000 to 32,767: below the ports that hosts give out, above most services."""
    stream = hashlib.shake_128(b"scan-unlikely-1" + seed + place.to_bytes(4, "big")).digest(64)
    ports: dict[int, None] = {}
    for at in range(0, 64, 2):
        ports[20_000 + int.from_bytes(stream[at : at + 2], "big") % 12_768] = None
    return tuple(ports)[:UNLIKELY]


def everywhere(answers: Mapping[Probe, str], silent: Iterable[Probe]) -> frozenset[int]:
    """The places at which every odd port that was asked is open: the state of each that answered, and the others."""
    odd: dict[int, set[str]] = {}
    for (place, _), state in answers.items():
        odd.setdefault(place, set()).add(state)
    for place, _ in silent:
        odd.setdefault(place, set()).add("")
    return frozenset(place for place, states in odd.items() if states == {"open"})
