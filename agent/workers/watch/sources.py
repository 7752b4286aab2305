"""The four sources of drift as data: what is declared, what listens here, what captures saw, what scans found. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from agent.workers.scan.found import Host, Port
from agent.workers.scan.spans import common
from agent.workers.watch.expectation import Expectation, Span
from agent.workers.watch.listening import Listener

OPEN = "open"
CLOSED = ("closed", "filtered", "closed|filtered")
"""What says that nobody answers. ``open|filtered`` and ``unfiltered`` say neither."""

ENOUGH: Final = 2
"""Looks in a row that take back what another scan has found, as they do within one."""

_NO_WORD = (OPEN, "unfiltered")  # against that a port is open


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

    ``settled``: it rests on as many looks as that scan takes to believe something; else it is one look, and ``before``
    the one before it of the same kind.
    """

    host: Host
    run: int
    at: float
    began: float
    since: Mapping[Key, float] = field(default_factory=dict)
    looked: Mapping[Key, float] = field(default_factory=dict)
    settled: bool = False
    before: Known | None = None

    def port(self, protocol: str, number: int) -> Port | None:
        """The port, if it is told of by itself."""
        return next((port for port in self.host.ports if port.number == number and port.protocol == protocol), None)

    def says_open(self, spans: Iterable[Span]) -> list[Span]:
        """Those of the ports to which it says "open" as it does to any that are in these ``spans``."""
        rests = [rest for rest in self.host.rest if rest.state == OPEN]
        return [
            Span(one.protocol, low, high)
            for one in spans
            for rest in rests
            if rest.protocol == one.protocol
            for low, high in common(rest.ports, ((one.low, one.high),))
        ]

    def silences(self, since: float) -> int:
        """How many looks that began after ``since`` say that the host is not there."""
        if self.settled:
            return ENOUGH if self.host.state != "up" and self.at > since else 0
        return sum(look.host.state != "up" and look.began > since for look in (self, self.before) if look is not None)

    def denials(self, protocol: str, number: int, since: float) -> int:
        """How many looks that began after ``since`` say that a port is anything but open."""
        if self.settled:
            looked = self.looked.get((protocol, number), self.at)
            return ENOUGH if looked > since and self._denies(protocol, number) else 0
        looks = (look for look in (self, self.before) if look is not None)
        return sum(look.began > since and look._denies(protocol, number) for look in looks)

    def _denies(self, protocol: str, number: int) -> bool:
        state = self.host.state_of(protocol, number)
        return state is not None and state not in _NO_WORD


@dataclass(frozen=True, slots=True)
class Scanned:
    """The memory of one scan service: of each address that it has asked, and that somebody may want to know of.

    ``imported``: nobody scans here under this name, and reports of others were taken in. They may have been made from
    elsewhere, so they take back nothing that a scan of our own has found, and do not promise to ask everybody.
    """

    service: str
    known: Mapping[str, Known]
    site: str = ""
    fresh: float = 8 * 86400.0
    """Seconds for which what it found is held against anything."""
    imported: bool = False


class Look(NamedTuple):
    """What a scan that asked for a port, between ``began`` and ``at``, says of it. Times are unix seconds."""

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
    clients: tuple[int, int] = (0, 0)

    def listened(self, protocol: str, port: int) -> bool:
        """Whether it would be known if somebody listened there."""
        low, high = self.clients
        return self.listening is not None and not (protocol == "udp" and low <= port <= high)


class Looks:
    """What is to be held for each port, by the scans of one site that are not too old at ``now``."""

    def __init__(self, scans: Iterable[Scanned], now: float) -> None:
        self._scans = tuple(scans)
        self._now = now

    def __bool__(self) -> bool:
        """Whether anybody scans here."""
        return any(not scanned.imported for scanned in self._scans)

    def of(self, address: str) -> Iterator[tuple[Scanned, Known]]:
        """Those that have asked this address."""
        for scanned in self._scans:
            known = scanned.known.get(address)
            if known is not None and self._now - known.at <= scanned.fresh:
                yield scanned, known

    def host(self, address: str) -> tuple[Scanned, Known] | None:
        """Who asked it last, for whatever."""
        return max(self.of(address), key=lambda one: one[1].at, default=None)

    def down(self, address: str) -> tuple[Scanned, Known] | None:
        """Who asked it last, if it is to be taken for down: nobody says that it is up, or two looks since then say that
        it is not, and of what was found open nothing is so any more.
        """
        every = list(self.of(address))
        up = [(scanned, known) for scanned, known in every if known.host.state == "up"]
        seen = max((known.at for _, known in up), default=None)
        own = any(not scanned.imported for scanned, _ in up)
        silent = [
            (scanned, known)
            for scanned, known in every
            if known.host.state != "up" and not (own and scanned.imported) and (seen is None or known.at > seen)
        ]
        if silent and seen is not None:
            looks = sum(known.silences(seen) for _, known in silent)
            found = (self.port(address, *key) for key in self.open_ports(address))
            if looks < ENOUGH or any(look is not None and look.open for look in found):
                return None
        return max(silent, key=lambda one: one[1].at, default=None)

    def port(self, address: str, protocol: str, number: int) -> Look | None:
        """``None``: no scan has asked for it, or not for long. What one found open is so until two looks deny it."""
        looks = list(self._at(address, protocol, number))
        latest = max(looks, key=_when, default=None)
        opened = max((look for look in looks if look.open), key=_when, default=None)
        if opened is None or latest is None or latest.open:
            return latest
        denials = sum(
            look.known.denials(protocol, number, opened.at)
            for look in looks
            if opened.scanned.imported or not look.scanned.imported
        )
        return latest if denials >= ENOUGH else opened

    def _at(self, address: str, protocol: str, number: int) -> Iterator[Look]:
        for scanned, known in self.of(address):
            state = known.host.state_of(protocol, number)
            at = known.looked.get((protocol, number), known.at)
            if state is not None and self._now - at <= scanned.fresh:
                since = known.since.get((protocol, number), at)
                yield Look(scanned, known, state, min(known.began, at), at, since)

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


def _when(look: Look) -> float:
    return look.at
