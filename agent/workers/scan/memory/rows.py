"""What the memory of a scan service tells, row by row: runs, what is so now, and what changed. Data only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

import msgspec

from agent.workers.scan.found import Host
from agent.workers.scan.memory.state import Service

Moment = Annotated[float, msgspec.Meta(ge=0, le=1e11)]
"""Unix seconds that a calendar has: a database may be another user's, and hold anything."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run. Times are unix seconds. ``loss`` is the share (0 to 1) of the probes that got lost in the part that was
    asked last, ``None`` when not measured.

    ``degraded`` says why what it did not find is not to be believed, and is empty otherwise. ``folded``: what it found
    is part of what is so now. ``declared`` is what was to be scanned, as the worker wrote it down.
    """

    id: int
    site: str
    started: Moment
    ended: Moment | None
    status: str
    message: str
    degraded: str
    plan_hash: str
    seed: int
    profile: str
    engine: str
    nmap_version: str
    declared: dict[str, Any]
    argv: list[str]
    sent: int
    answered: int
    loss: float | None
    hosts_total: int
    hosts_up: int
    ports_open: int
    chunks_total: int
    chunks_done: int
    everything: int
    """Hosts that say open to everything: their ports are not among ``ports_open``."""
    folded: bool

    @property
    def trusted(self) -> bool:
        """Whether what it asked and did not find is not there: it came to its end, and nothing went wrong."""
        return self.status in ("finished", "imported") and not self.degraded


class PortNow(NamedTuple):
    """What is so now at a port that was open at least once.

    ``state`` is settled: one run that did not find it so changes ``misses`` only. ``first_seen`` and ``last_seen`` are
    of being open, ``last_looked`` is when a run last asked, ``last_changed`` when the state, the service or its version
    became what it is. ``source``: who told last, ``sweep``, ``nmap`` or ``passive``; ``import`` where none of them did.
    ``confidence``: ``certain``, ``likely`` (open, told by one look or by a capture alone) or ``doubtful`` (missed
    since, or flapping).
    """

    address: str
    protocol: str
    number: int
    state: str
    reason: str
    source: str
    first_seen: Moment
    last_seen: Moment
    last_looked: Moment
    last_changed: Moment
    misses: int
    confidence: str
    service: Service
    flapping: bool

    @property
    def key(self) -> tuple[str, int]:
        """``(protocol, number)``."""
        return self.protocol, self.number


@dataclass(frozen=True, slots=True)
class HostNow:
    """What is so now of a host: ``state`` is ``up`` or ``gone``. The other fields as in ``PortNow``.

    The ports of a host that is gone are as they were when it went.
    """

    address: str
    site: str
    state: str
    source: str
    mac: str
    names: tuple[str, ...]
    os: tuple[str, ...]
    first_seen: Moment
    last_seen: Moment
    last_looked: Moment
    last_changed: Moment
    misses: int
    flapping: bool
    everything: int = 0
    """Ports that it last said "open" to as it does to any; 0 for a host that does not."""
    ports: tuple[PortNow, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Change:
    """One change, as it was reported, once. ``kind`` as in docs/journal.md.

    ``protocol`` is empty and ``number`` 0 for a change of the host. ``run`` may be forgotten by now, and is ``None``
    for what a capture saw.
    """

    id: int
    run: int | None
    time: Moment
    site: str
    address: str
    protocol: str
    number: int
    kind: str
    old: str
    new: str
    source: str

    @property
    def key(self) -> tuple[str, int]:
        """``(protocol, number)``."""
        return self.protocol, self.number


class Canary(NamedTuple):
    """A port that has been open for a while, and is known to answer."""

    address: str
    protocol: str
    number: int


class Quarantined(NamedTuple):
    """A port that accepts and then says nothing: asked on a slow clock. Times are unix seconds."""

    address: str
    protocol: str
    number: int
    since: float
    tries: int
    next_try: float


class Pair(NamedTuple):
    """A host in two runs; ``None`` where there is no picture of it."""

    before: Host | None
    after: Host | None
