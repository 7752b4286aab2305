"""Addresses as places on a line, so that a database can hold ranges of them and keep them in order. Pure."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from agent.workers.scan.plan import Family
from agent.workers.scan.spans import Ranges, merge

ZONE_LIMIT = 15
"""Characters of the name of an interface, IFNAMSIZ of linux/if.h."""


class Line(NamedTuple):
    """Where addresses can be compared: of one family and, for link-local ones that name it, one interface."""

    family: Family
    zone: str


class Place(NamedTuple):
    """One address. ``number`` is its value."""

    line: Line
    number: int


def place(address: str) -> Place:
    """The place of an address, with or without ``%zone``. Raises ``ValueError``."""
    plain, percent, zone = address.partition("%")
    if percent and not 0 < len(zone) <= ZONE_LIMIT:
        raise ValueError(f"{address[:60]!r} does not name an interface")
    if ":" in plain:
        return Place(Line(6, zone), int(IPv6Address(plain)))
    if percent:
        raise ValueError(f"{address[:60]!r} cannot be on an interface")
    try:
        packed = socket.inet_pton(socket.AF_INET, plain)  # a tenth of what an IPv4Address costs, once for each host
    except OSError as error:
        raise ValueError(f"{address[:60]!r} is no address") from error
    return Place(Line(4, ""), int.from_bytes(packed, "big"))


def text(line: Line, number: int) -> str:
    """The address at a place."""
    if line.family == 4:
        return str(IPv4Address(number))
    return f"{IPv6Address(number)}%{line.zone}" if line.zone else str(IPv6Address(number))


def pack(family: int, number: int) -> bytes:
    """A number so that bytes sort as numbers do within a family."""
    return number.to_bytes(4 if family == 4 else 16, "big")


def unpack(packed: bytes) -> int:
    """The number that ``pack`` packed."""
    return int.from_bytes(packed, "big")


def order(address: str) -> bytes:
    """A key that sorts addresses: IPv4 first, then IPv6, by value, by zone."""
    (family, zone), number = place(address)
    return bytes([family]) + pack(family, number) + zone.encode()


def ranges(addresses: Iterable[str]) -> dict[Line, Ranges]:
    """Addresses as ranges, by line. Raises ``ValueError``."""
    found: dict[Line, list[tuple[int, int]]] = {}
    for address in addresses:
        line, number = place(address)
        found.setdefault(line, []).append((number, number))
    return {line: merge(numbers) for line, numbers in found.items()}
