"""Hosts, made of what was folded: who is who, under which name, and since when. Pure.

A host is a MAC, with every address that it has on the link it is seen on, and what was told of these; or an address of
which no MAC is known there. An address that several MACs claim is that of the one who claimed it last; the others had
it before.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from agent.workers.inventory.sighting import (
    DHCP,
    DHCPV6,
    DNS,
    FACTS,
    LLDP,
    MDNS,
    NAME,
    SERVICE,
    TLS,
)
from agent.workers.inventory.table import ADDRESS, Key, Row, Table

_RANK = {source: rank for rank, source in enumerate((LLDP, DHCP, DHCPV6, MDNS, DNS, TLS))}
"""Whose word about a name counts first: the host's own, then others'."""


class Former(msgspec.Struct, frozen=True):
    """A MAC that had an address before. Times are nanoseconds since the epoch, here and below."""

    mac: str
    first: int
    last: int


class Holding(msgspec.Struct):
    """An address of a host."""

    address: str
    first: int
    last: int
    former: list[Former] = []


class Told(msgspec.Struct):
    """A fact about a host, who told, and for hearsay to whom it was told last."""

    value: str
    source: str
    first: int
    last: int
    asker: str = ""


class Host(msgspec.Struct):
    """One host. ``facts``: kind -> what is told; names in the order in which they count, services by port.

    ``seen_by``: ``SERVICE/INTERFACE``, with ``.VLAN`` where there is one. ``own``: it is this machine.
    """

    mac: str
    first: int
    last: int
    own: bool = False
    addresses: list[Holding] = []
    facts: dict[str, list[Told]] = {}
    seen_by: list[str] = []

    @property
    def name(self) -> str:
        """The name that counts most; empty when there is none."""
        names = self.facts.get(NAME)
        return names[0].value if names else ""


class Source(NamedTuple):
    """What one capture service knows, and what this machine was called when it wrote that."""

    service: str
    table: Table
    own: Iterable[str] = ()


class _Claim(NamedTuple):
    last: int
    mac: str
    first: int


def hosts(sources: Iterable[Source]) -> list[Host]:
    """All hosts that these know of, by address."""
    sources = list(sources)
    claims = _claims(sources)
    own = {name for source in sources for name in source.own}
    made: dict[str, Host] = {}
    for source in sources:
        for key, row in source.table.stations.items():
            host = _host(made, key.identity, key.identity, row)
            _seen(host, source.service, key)
            _tell(host, row)
        for key, row in source.table.addresses.items():
            claim = claims.get(key)
            mac = max(claim.values()).mac if claim else ""
            host = _host(made, mac or key.identity, mac, row)
            _seen(host, source.service, key)
            _tell(host, row)
            _hold(host, key.identity, row.first, row.last)
    for key, by_mac in claims.items():
        *former, holder = sorted(by_mac.values())
        if holder.mac in made:
            _hold(
                made[holder.mac],
                key.identity,
                holder.first,
                holder.last,
                [Former(claim.mac, claim.first, claim.last) for claim in former],
            )
    by_address: dict[str, list[Host]] = {}
    for host in made.values():
        host.own = host.mac in own or any(_is_own(holding.address, own) for holding in host.addresses)
        for holding in host.addresses:
            by_address.setdefault(holding.address, []).append(host)
    for source in sources:
        for key, row in source.table.heard.items():
            for host in by_address.get(key.identity, ()):
                _tell(host, row)
    for host in made.values():
        _settle(host)
    return sorted(made.values(), key=_place)


def _claims(sources: Iterable[Source]) -> dict[Key, dict[str, _Claim]]:
    """For each address on a link, every MAC that has claimed it."""
    claims: dict[Key, dict[str, _Claim]] = {}
    for source in sources:
        for key, row in source.table.stations.items():
            for (address, _), (first, last, _) in row.facts.get(ADDRESS, {}).items():
                by_mac = claims.setdefault(Key(key.interface, key.vlan, address), {})
                before = by_mac.get(key.identity, _Claim(last, key.identity, first))
                by_mac[key.identity] = _Claim(max(last, before.last), key.identity, min(first, before.first))
    return claims


def _host(made: dict[str, Host], identity: str, mac: str, row: Row) -> Host:
    host = made.get(identity)
    if host is None:
        host = made[identity] = Host(mac, row.first, row.last)
    host.first, host.last = min(host.first, row.first), max(host.last, row.last)
    return host


def _seen(host: Host, service: str, key: Key) -> None:
    place = f"{service}/{key.interface}" + (f".{key.vlan}" if key.vlan else "")
    if place not in host.seen_by:
        host.seen_by.append(place)


def _hold(host: Host, address: str, first: int, last: int, former: Iterable[Former] = ()) -> None:
    for holding in host.addresses:
        if holding.address == address:
            break
    else:
        holding = Holding(address, first, last)
        host.addresses.append(holding)
    holding.first, holding.last = min(holding.first, first), max(holding.last, last)
    holding.former = sorted({*holding.former, *former}, key=lambda one: (one.last, one.mac))


def _tell(host: Host, row: Row) -> None:
    for kind in FACTS:
        told = host.facts.setdefault(kind, []) if kind in row.facts else []
        for (value, source), (first, last, asker) in row.facts.get(kind, {}).items():
            for known in told:
                if (known.value, known.source) == (value, source):
                    if last > known.last:
                        known.asker = asker
                    known.first, known.last = min(known.first, first), max(known.last, last)
                    break
            else:
                told.append(Told(value, source, first, last, asker))


def _settle(host: Host) -> None:
    """Everything in its order."""
    host.addresses.sort(key=lambda holding: address_order(holding.address))
    host.seen_by.sort()
    for kind, told in host.facts.items():
        if kind == NAME:
            told.sort(key=lambda one: (_RANK.get(one.source, len(_RANK)), -one.last, one.value))
        elif kind == SERVICE:
            told.sort(key=lambda one: (service_order(one.value), one.source))
        else:
            told.sort(key=lambda one: (one.value, one.source))


def _is_own(address: str, own: set[str]) -> bool:
    return address in own or ipaddress.ip_address(address).is_loopback


def address_order(address: str) -> tuple[int, int, int]:
    """IPv4 first, then IPv6, of these what is valid on a link only last."""
    parsed = ipaddress.ip_address(address)
    return parsed.version, int(parsed.is_link_local), int(parsed)


def service_order(service: str) -> tuple[int, str]:
    """By port, then by protocol."""
    protocol, _, port = service.partition("/")
    return int(port) if port.isascii() and port.isdecimal() and len(port) < 6 else 65536, protocol


def _place(host: Host) -> tuple[int, int, int, str]:
    if not host.addresses:
        return (9, 0, 0, host.mac)
    return (*address_order(host.addresses[0].address), host.mac)
