"""The four sources of drift as data: what is declared, what listens here, what captures saw, what scans found. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from agent.workers.scan.found import Host, Port
from agent.workers.watch.expectation import Expectation
from agent.workers.watch.listening import Listener

OPEN = "open"
CLOSED = ("closed", "filtered", "closed|filtered")
"""What says that nobody answers. ``open|filtered`` and ``unfiltered`` say neither."""


Key = tuple[str, int]


class DeclaredPort(NamedTuple):
    """A port of this host that a declared service is known to listen at; ``where`` in its declaration that is said."""

    service: str
    protocol: str
    port: int
    where: str


class Sight(NamedTuple):
    """An address that was seen to answer at a port. Times are unix seconds."""

    capture: str
    interface: str
    vlan: int
    address: str
    protocol: str
    port: int
    first: float
    last: float


class Claim(NamedTuple):
    """A MAC that was seen to have an address."""

    capture: str
    interface: str
    vlan: int
    address: str
    mac: str
    first: float
    last: float


@dataclass(frozen=True, slots=True)
class Known:
    """What a scan service knows of one address now, in the words of ``found``, asked last in ``run``.

    It was asked between ``began`` and ``at``. ``since``: since when a port is in the state that it is in, and of
    ``("", 0)`` the host. ``looked``: when a port was asked for last, where that was not at ``at``.
    """

    host: Host
    run: int
    at: float
    began: float
    since: Mapping[Key, float] = field(default_factory=dict)
    looked: Mapping[Key, float] = field(default_factory=dict)

    def port(self, protocol: str, number: int) -> Port | None:
        """The port, if it is told of by itself."""
        return next((port for port in self.host.ports if port.number == number and port.protocol == protocol), None)


@dataclass(frozen=True, slots=True)
class Scanned:
    """The memory of one scan service: of each address that it has asked, and that somebody may want to know of."""

    service: str
    known: Mapping[str, Known]
    site: str = ""
    fresh: float = 8 * 86400.0
    """Seconds for which what it found is held against anything."""


class Look(NamedTuple):
    """What the latest scan that asked for a port, between ``began`` and ``at``, says of it. Times are unix seconds."""

    scanned: Scanned
    known: Known
    state: str
    began: float
    at: float
    since: float

    @property
    def open(self) -> bool:
        return self.state == OPEN

    @property
    def closed(self) -> bool:
        return self.state in CLOSED


@dataclass(frozen=True, slots=True)
class Sources:
    """``listening`` is ``None`` where that could not be looked at: nothing is concluded from it, least of all that
    drift is gone.

    ``own`` are the addresses of this host. ``blind`` names the sources that should be there and could not be read or
    are too old, as rows depend on them. ``noticed``: since when each listener is known to be there, by protocol,
    address and port; ``None`` where nobody keeps watch, and the age of a process must do, which may have begun to
    listen later.
    """

    expectations: tuple[Expectation, ...] = ()
    services: tuple[DeclaredPort, ...] = ()
    listening: tuple[Listener, ...] | None = None
    own: frozenset[str] = frozenset()
    sights: tuple[Sight, ...] = ()
    claims: tuple[Claim, ...] = ()
    scans: tuple[Scanned, ...] = ()
    blind: frozenset[str] = frozenset()
    noticed: Mapping[tuple[str, str, int], float] | None = None


class Looks:
    """The latest look of each port among scans of one site that are not too old at ``now``."""

    def __init__(self, scans: Iterable[Scanned], now: float) -> None:
        self._scans = tuple(scans)
        self._now = now

    def __bool__(self) -> bool:
        return bool(self._scans)

    def of(self, address: str) -> Iterator[tuple[Scanned, Known]]:
        """Those that have asked this address."""
        for scanned in self._scans:
            known = scanned.known.get(address)
            if known is not None and self._now - known.at <= scanned.fresh:
                yield scanned, known

    def host(self, address: str) -> tuple[Scanned, Known] | None:
        """Who asked it last, for whatever."""
        return max(self.of(address), key=lambda one: one[1].at, default=None)

    def port(self, address: str, protocol: str, number: int) -> Look | None:
        """``None``: no scan has asked for it, or not for long."""
        best: Look | None = None
        for scanned, known in self.of(address):
            state = known.host.state_of(protocol, number)
            at = known.looked.get((protocol, number), known.at)
            if state is None or self._now - at > scanned.fresh or (best is not None and best.at >= at):
                continue
            since = known.since.get((protocol, number), at)
            best = Look(scanned, known, state, min(known.began, at), at, since)
        return best

    def open_ports(self, address: str) -> set[tuple[str, int]]:
        """Those that any of them found open."""
        return {port.key for _, known in self.of(address) for port in known.host.open_ports()}

    def up(self) -> set[str]:
        """The addresses that answered to one of them."""
        return {
            address
            for scanned in self._scans
            for address, known in scanned.known.items()
            if known.host.state == "up" and self._now - known.at <= scanned.fresh
        }
