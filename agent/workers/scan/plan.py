"""Which addresses a scan may touch, and in which pieces. Pure.

The declaration was validated when it was loaded. The rules of safety are applied here once more, on numbers and right
before use, so that no way of writing an address, and no mistake elsewhere, can send a packet where none was declared.

Addresses are handled as ranges of integers: a plan for a million of them takes no more memory than one for ten.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from itertools import accumulate
from typing import Literal

from agent.errors import ConfigurationError

Family = Literal[4, 6]
Ranges = tuple[tuple[int, int], ...]
"""Inclusive ranges of addresses of one family: sorted, disjoint, not adjacent."""

CHUNK_ADDRESSES = 64
"""Most addresses in one run of nmap."""

CHUNK_PROBES = 65_536
"""Most pairs of address and port in one run of nmap: bounds its time, its answer and what an interruption can lose."""

MAX_ADDRESSES = 2**20
"""Most addresses in one plan (a /12). More is a mistake: at 1000 packets a second, one port each takes 17 minutes."""

LOCAL = (
    "10.0.0.0/8",  # RFC 1918
    "172.16.0.0/12",
    "192.168.0.0/16",
    "127.0.0.0/8",  # RFC 1122, 3.2.1.3
    "169.254.0.0/16",  # RFC 3927
    "fc00::/7",  # RFC 4193
    "fe80::/10",  # RFC 4291, 2.5.6
    "::1/128",
)
"""What may be scanned without being allowed by name."""

FORBIDDEN = {
    "unspecified": ("0.0.0.0/8", "::/128"),  # RFC 1122, 3.2.1.3; RFC 4291, 2.5.2
    "multicast": ("224.0.0.0/4", "ff00::/8"),  # RFC 5771; RFC 4291, 2.7
    "broadcast": ("255.255.255.255/32",),  # RFC 919
    "the metadata service of a cloud": ("169.254.169.254/32", "fd00:ec2::254/128"),
    "an IPv4 address written as IPv6": ("::ffff:0:0/96",),  # RFC 4291, 2.5.5.2: would go round the rules for IPv4
}
"""What is never scanned, whatever is allowed."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """The addresses of one run of nmap, of one family, in ascending order. ``number`` counts from 0."""

    number: int
    family: Family
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What one scan covers. Equal declarations give equal plans, so results of an interrupted one can be continued."""

    ipv4: Ranges
    ipv6: Ranges
    chunk_size: int
    plan_hash: str

    @property
    def hosts(self) -> int:
        """How many addresses, at most ``MAX_ADDRESSES``."""
        return _size(self.ipv4) + _size(self.ipv6)

    @property
    def chunk_count(self) -> int:
        return self._chunks_of(self.ipv4) + self._chunks_of(self.ipv6)

    def chunks(self) -> Iterator[Chunk]:
        """All chunks in order, IPv4 before IPv6, each made when it is asked for."""
        return (self.chunk(number) for number in range(self.chunk_count))

    def chunk(self, number: int) -> Chunk:
        """One chunk by its number. Raises ``IndexError`` outside ``0 … chunk_count-1``."""
        if not 0 <= number < self.chunk_count:
            raise IndexError(number)
        before = self._chunks_of(self.ipv4)
        if number < before:
            values = _slice(self.ipv4, number * self.chunk_size, self.chunk_size)
            return Chunk(number, 4, tuple(str(IPv4Address(value)) for value in values))
        values = _slice(self.ipv6, (number - before) * self.chunk_size, self.chunk_size)
        return Chunk(number, 6, tuple(str(IPv6Address(value)) for value in values))

    def _chunks_of(self, ranges: Ranges) -> int:
        return -(-_size(ranges) // self.chunk_size)


def make_plan(
    targets: Iterable[str],
    exclude: Iterable[str] = (),
    allow_public: Iterable[str] = (),
    *,
    ports: int = 1,
    identity: Iterable[str] = (),
) -> Plan:
    """Turn addresses and networks into a plan.

    ``ports`` is how many ports each address is asked for (0 or more), ``identity`` what else makes two scans the same
    (their ports and profile), for the hash. Forbidden addresses inside a larger target are left out.

    Raises ``ConfigurationError`` for a target that is not an address or network, that is forbidden as a whole or public
    and not allowed, and for a plan of no or too many addresses.
    """
    excluded = _networks("exclude", exclude)
    allowed = [*map(ip_network, LOCAL), *_networks("allow_public", allow_public)]
    forbidden = [ip_network(text) for texts in FORBIDDEN.values() for text in texts]
    chosen: dict[Family, list[tuple[int, int]]] = {4: [], 6: []}
    for network in _networks("targets", targets):
        family: Family = network.version
        remaining = subtract(_range(network), _of_family(family, forbidden))
        if not remaining:
            raise ConfigurationError(f"targets: {network} is {_why_forbidden(network)}: that is never scanned")
        if subtract(remaining, _of_family(family, allowed)):
            raise ConfigurationError(
                f"targets: {network} is not a private network: name it in allow_public if it may be scanned"
            )
        chosen[family].extend(remaining)
    ipv4 = subtract(merge(chosen[4]), _of_family(4, excluded))
    ipv6 = subtract(merge(chosen[6]), _of_family(6, excluded))
    hosts = _size(ipv4) + _size(ipv6)
    if not 1 <= hosts <= MAX_ADDRESSES:
        what = f"are {hosts} addresses, at most {MAX_ADDRESSES} can be scanned" if hosts else "leave nothing to scan"
        raise ConfigurationError(f"targets: without those excluded they {what}")
    chunk_size = max(1, min(CHUNK_ADDRESSES, CHUNK_PROBES // max(1, ports)))
    return Plan(ipv4, ipv6, chunk_size, _hash(ipv4, ipv6, chunk_size, identity))


def merge(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """The union of any ranges, sorted, with those that touch made one."""
    result: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if result and low <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(result[-1][1], high))
        else:
            result.append((low, high))
    return tuple(result)


def subtract(ranges: Ranges, holes: Ranges) -> Ranges:
    """``ranges`` without ``holes``."""
    result: list[tuple[int, int]] = []
    for low, high in ranges:
        for hole_low, hole_high in holes:
            if hole_high < low or hole_low > high:
                continue
            if hole_low > low:
                result.append((low, hole_low - 1))
            low = hole_high + 1
        if low <= high:
            result.append((low, high))
    return tuple(result)


def _networks(key: str, texts: Iterable[str]) -> list[IPv4Network | IPv6Network]:
    networks = []
    for text in texts:
        try:
            # A zone (fe80::1%eth0) is free text: nothing of it may reach a list of targets.
            if "%" in text:
                raise ValueError("an address with a zone cannot be scanned")
            networks.append(ip_network(text))
        except ValueError as error:
            raise ConfigurationError(f"{key}: {text[:80]!r} is not an address or a network: {error}") from error
    return networks


def _range(network: IPv4Network | IPv6Network) -> Ranges:
    return ((int(network.network_address), int(network.broadcast_address)),)


def _of_family(family: Family, networks: Iterable[IPv4Network | IPv6Network]) -> Ranges:
    return merge(_range(network)[0] for network in networks if network.version == family)


def _why_forbidden(network: IPv4Network | IPv6Network) -> str:
    for reason, texts in FORBIDDEN.items():
        covering = _of_family(network.version, map(ip_network, texts))
        if subtract(_range(network), covering) != _range(network):
            return reason
    raise AssertionError(f"{network} is not forbidden")


def _size(ranges: Ranges) -> int:
    return sum(high - low + 1 for low, high in ranges)


def _slice(ranges: Ranges, start: int, count: int) -> Iterator[int]:
    """The addresses number ``start`` to ``start + count - 1`` of all in ``ranges``, fewer at the end."""
    ends = list(accumulate(high - low + 1 for low, high in ranges))
    while count > 0 and (place := bisect_right(ends, start)) < len(ranges):
        low, _ = ranges[place]
        offset = start - (ends[place - 1] if place else 0)
        take = min(count, ends[place] - start)
        yield from range(low + offset, low + offset + take)
        start, count = start + take, count - take


def _hash(ipv4: Ranges, ipv6: Ranges, chunk_size: int, identity: Iterable[str]) -> str:
    """SHA-256 over everything that decides what chunk N asks; the first word is the version of this rule."""
    canonical = json.dumps(["scan-plan-1", ipv4, ipv6, chunk_size, list(identity)], separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
