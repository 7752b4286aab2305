"""The probes of one chunk by number: every address with every port. Pure.

What decides which question has which number is hashed (``Grid.key``), so that what was stored about probe N of one
chunk is never taken for the answer to another question, on another day, by another version, or on another host.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Sequence
from typing import Final, Literal

from agent.workers.scan.plan import CHUNK_PROBES
from agent.workers.scan.spans import Ranges

MOST_PROBES: Final = CHUNK_PROBES
"""Of one chunk: what is known of it takes one byte each, and it is the piece in which work is handed on."""


class Grid:
    """``addresses`` (1 or more, each once) times ``ports`` (1 or more), at most ``MOST_PROBES`` probes.

    The probe of the address at ``place`` to the port at ``slot`` of the flattened ports is number
    ``place * width + slot``: all probes of an address stand side by side.
    """

    def __init__(self, protocol: Literal["tcp", "udp"], addresses: Sequence[str], ports: Ranges) -> None:
        """Raises ``ValueError`` for a chunk that is empty or too large."""
        self.protocol = protocol
        self.addresses = tuple(addresses)
        self.ports = array("H", (port for low, high in ports for port in range(low, high + 1)))
        self.width = len(self.ports)
        self.size = self.width * len(self.addresses)
        if not 1 <= self.size <= MOST_PROBES:
            raise ValueError(f"{self.size} probes are no chunk, it has from 1 to {MOST_PROBES}")
        self._slots = dict(zip(self.ports, range(self.width), strict=True))
        canonical = json.dumps(["scan-grid-1", protocol, self.addresses, ports], separators=(",", ":"))
        self._identity = canonical.encode()

    def key(self, plan_hash: str) -> bytes:
        """SHA-256 over everything that decides what probe N asks, and the plan that it is a part of."""
        return hashlib.sha256(plan_hash.encode() + b"\n" + self._identity).digest()

    def number(self, place: int, port: int) -> int | None:
        """Which probe asks this; ``None`` when none does."""
        slot = self._slots.get(port)
        return None if slot is None or not 0 <= place < len(self.addresses) else place * self.width + slot

    def probe(self, number: int) -> tuple[int, int]:
        """``(place, port)`` of a probe by its number, from 0 to ``size - 1``."""
        place, slot = divmod(number, self.width)
        return place, self.ports[slot]
