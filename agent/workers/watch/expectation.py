"""Expectations held against what is known of a port: which of them speak of a host, and what they say of it. Pure.

Where several expectations speak of one host, all of them hold: what any of them wants open is expected, what any of
them forbids is forbidden, and anything else is allowed only if all of them allow it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, NamedTuple

from agent.workers.scan.found import Port

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Wanted(NamedTuple):
    """A port that should be open, and what should answer there: patterns of a shell, empty for anything."""

    protocol: str
    port: int
    service: str = ""
    version: str = ""


class Span(NamedTuple):
    """Ports from ``low`` to ``high``."""

    protocol: str
    low: int
    high: int

    def holds(self, protocol: str, port: int) -> bool:
        return self.protocol == protocol and self.low <= port <= self.high

    def __str__(self) -> str:
        """``tcp/23``, ``tcp/1-1024``."""
        return f"{self.protocol}/{self.low}" + (f"-{self.high}" if self.high > self.low else "")


@dataclass(frozen=True, slots=True)
class Expectation:
    """``[expect.NAME]``. ``named`` are hosts that must be there, which are in ``networks`` too; of the others those
    that are. ``allowed`` may be open. ``weight``: by how many steps its rows are graver than others.
    """

    name: str
    networks: tuple[Network, ...]
    named: frozenset[str] = frozenset()
    open: tuple[Wanted, ...] = ()
    closed: tuple[Span, ...] = ()
    allowed: tuple[Span, ...] = ()
    others: bool = True
    weight: int = 0


class Bearing(NamedTuple):
    """What those expectations that speak of one host say of it together."""

    expectations: tuple[Expectation, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(one.name for one in self.expectations)

    @property
    def weight(self) -> int:
        """The most that any of them weighs."""
        return max((one.weight for one in self.expectations), default=0)

    @property
    def wanted(self) -> list[tuple[Expectation, Wanted]]:
        return [(one, wanted) for one in self.expectations for wanted in one.open]

    def allows(self, protocol: str, port: int) -> bool:
        """Whether any of them says that it may be open."""
        return any(span.holds(protocol, port) for one in self.expectations for span in one.allowed)

    def forbids(self, protocol: str, port: int) -> list[Expectation]:
        """Those that name it as one that must not be open. What is expected by another is still forbidden."""
        return [one for one in self.expectations if any(span.holds(protocol, port) for span in one.closed)]

    @property
    def strict(self) -> list[Expectation]:
        """Those that allow no others."""
        return [one for one in self.expectations if not one.others]


class Bearings:
    """Which expectations speak of an address, found by the lengths of their networks and not one by one."""

    def __init__(self, expectations: Iterable[Expectation]) -> None:
        self._all = tuple(expectations)
        self._by_network: dict[tuple[int, int, int], set[int]] = {}
        for place, one in enumerate(self._all):
            for network in one.networks:
                key = (network.version, network.prefixlen, int(network.network_address))
                self._by_network.setdefault(key, set()).add(place)
        self._lengths = sorted({key[:2] for key in self._by_network})

    def of(self, address: str) -> Bearing:
        """Those that speak of it; none of what is no address."""
        try:
            parsed = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return Bearing(())
        number, bits = int(parsed), parsed.max_prefixlen
        found: set[int] = set()
        for version, length in self._lengths:
            if version == parsed.version:
                low = number >> (bits - length) << (bits - length)
                found |= self._by_network.get((version, length, low), set())
        return Bearing(tuple(self._all[place] for place in sorted(found)))


def differs(wanted: Wanted, port: Port) -> Literal["service", "version"] | None:
    """In what an open port differs from what is wanted of it; ``None`` if in nothing, or if nobody knows who answers.

    The number of a port alone (``method`` ``table``) says nothing about what answers there.
    """
    if not identified(port):
        return None
    if wanted.service and not matches(wanted.service, _services(port)):
        return "service"
    known = _versions(port)
    if wanted.version and known and not matches(wanted.version, known):
        return "version"
    return None


def identified(port: Port) -> bool:
    """Whether what answers there has said what it is."""
    return port.method == "probed" or (port.method != "table" and bool(port.product))


def matches(pattern: str, texts: Iterable[str]) -> bool:
    """Whether one of the texts is as the pattern says, in whichever case."""
    return any(fnmatchcase(text.lower(), pattern.lower()) for text in texts)


def _services(port: Port) -> list[str]:
    """What may be meant by the service of a port: ``https``, ``ssl/http``, ``nginx``, ``nginx 1.22.1``."""
    names = [port.service, port.product]
    if port.product and port.version:
        names.append(f"{port.product} {port.version}")
    if port.tunnel and port.service:
        names += [f"{port.tunnel}/{port.service}", f"{port.service}s"]
    return [name for name in names if name]


def _versions(port: Port) -> list[str]:
    if not port.version:
        return []
    return [port.version, f"{port.product} {port.version}".strip(), f"{port.product}/{port.version}"]


def answers(port: Port) -> str:
    """What answers at a port, in words: ``http nginx 1.22.1``; empty when that is not known."""
    name = f"{port.tunnel}/{port.service}" if port.tunnel and port.service else port.service
    if not identified(port) or port.product.lower().startswith(name.lower()):
        name = ""
    return " ".join(filter(None, (name, port.product, port.version)))
