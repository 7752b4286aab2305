"""Which addresses a scan may touch, and in which pieces. Pure.

The declaration was validated when it was loaded. The rules of safety are applied here once more, on numbers and right
before use, so that no way of writing an address, and no mistake elsewhere, can send a packet where none was declared.

Addresses are handled as ranges of integers, and every text that leaves this module is made from them.
"""

from __future__ import annotations

import hashlib
import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from itertools import accumulate
from typing import Literal

from agent.declaration.targets import MOST_ADDRESSES, NEVER, OWN, Span
from agent.declaration.targets import span as parse_span
from agent.errors import ConfigurationError
from agent.workers.scan.permute import Permutation
from agent.workers.scan.spans import Ranges, merge, without

Family = Literal[4, 6]
CHUNK_ADDRESSES = 64
"""Most addresses in one chunk."""

CHUNK_PROBES = 1 << 20
"""Most pairs of address and port that are swept together ."""

_ZONE = re.compile(r"[A-Za-z0-9_.-]{1,15}", re.ASCII)  # what a name of an interface is here, IFNAMSIZ in linux/if.h


@dataclass(frozen=True, slots=True)
class Chunk:
    """The addresses of one sweep, of one family and zone, in ascending order. ``number`` counts from 0."""

    number: int
    family: Family
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class Group:
    """All addresses of one family and zone; ``zone`` is the interface of link-local ones that name it, else empty."""

    family: Family
    zone: str
    ranges: Ranges

    @property
    def size(self) -> int:
        return self._ends[-1] if self._ends else 0

    @cached_property
    def _ends(self) -> tuple[int, ...]:
        """How many addresses there are up to the end of each range."""
        return tuple(accumulate(high - low + 1 for low, high in self.ranges))

    def addresses(self, start: int, count: int) -> Iterator[str]:
        """Those number ``start`` to ``start + count - 1``, fewer at the end."""
        make = IPv4Address if self.family == 4 else IPv6Address
        suffix = f"%{self.zone}" if self.zone else ""
        ends = self._ends
        while count > 0 and (place := bisect_right(ends, start)) < len(ends):
            first = self.ranges[place][1] - (ends[place] - 1 - start)
            take = min(count, ends[place] - start)
            for value in range(first, first + take):
                yield f"{make(value)}{suffix}"
            start, count = start + take, count - take


@dataclass(frozen=True)
class Plan:
    """What one scan covers. Equal declarations give equal plans, so results of an interrupted one can be continued."""

    groups: tuple[Group, ...]
    chunk_size: int
    plan_hash: str

    @cached_property
    def hosts(self) -> int:
        """How many addresses, at most ``MOST_ADDRESSES``."""
        return sum(group.size for group in self.groups)

    @cached_property
    def chunk_count(self) -> int:
        return sum(-(-group.size // self.chunk_size) for group in self.groups)

    def chunks(self) -> Iterator[Chunk]:
        """All chunks by number, IPv4 before IPv6, each made when it is asked for."""
        return map(self.chunk, range(self.chunk_count))

    def chunk(self, number: int) -> Chunk:
        """One chunk, made without the others. Raises ``IndexError`` for a number from ``chunk_count`` on."""
        left = number
        for group in self.groups:
            count = -(-group.size // self.chunk_size)
            if 0 <= left < count:
                return Chunk(number, group.family, tuple(group.addresses(left * self.chunk_size, self.chunk_size)))
            left -= count
        raise IndexError(number)

    def order(self, seed: int) -> Iterator[int]:
        """The numbers of all chunks in the order in which they are asked: neighbours are far apart, so that one network
        after the other is not at its limit while the rest wait."""
        return Permutation(self.chunk_count, f"{self.plan_hash} {seed}".encode()).items(0, self.chunk_count)

    def piece(self, seed: int, number: int) -> str:
        """What decides the order within a chunk, beside what it asks (``Grid.key``). Whoever has the targets and the
        ports can check them by the hash, and make any chunk, in its order, as everybody else does."""
        return f"{self.plan_hash} {seed} {number}"


def make_plan(
    targets: Iterable[str],
    exclude: Iterable[str] = (),
    allow_public: Iterable[str] = (),
    *,
    ports: int = 1,
    identity: Iterable[str] = (),
) -> Plan:
    """Turn addresses, networks and ranges into a plan. Names and files have become addresses before.

    ``ports`` is how many ports each address is asked for (0 or more), ``identity`` what else makes two scans the same
    (their ports and profile), for the hash. An address of ``exclude`` without a zone is left out in every zone.

    Raises ``ConfigurationError`` for a target that is none of these, and for a plan that holds an address
    that is never scanned, or one that is public and not allowed, or none, or too many.
    """
    holes = [_parse("exclude", text) for text in exclude]
    allowed = _permitted([_parse("allow_public", text) for text in allow_public])
    wanted: dict[tuple[Family, str], list[Span]] = {}
    for span in (_parse("targets", text) for text in targets):
        wanted.setdefault((span.family, span.zone), []).append(span)
    groups = []
    for (family, zone), spans in sorted(wanted.items()):
        excluded = [span for span in holes if span.zone in ("", zone)]
        if ranges := without(_ranges(family, spans), _ranges(family, excluded)):
            _judge(family, ranges, allowed)
            groups.append(Group(family, zone, ranges))
    hosts = sum(group.size for group in groups)
    if not 1 <= hosts <= MOST_ADDRESSES:
        what = f"are {hosts} addresses, at most {MOST_ADDRESSES} can be scanned" if hosts else "leave nothing to scan"
        raise ConfigurationError(f"targets: without those excluded they {what}")
    chunk_size = max(1, min(CHUNK_ADDRESSES, CHUNK_PROBES // max(1, ports)))
    return Plan(tuple(groups), chunk_size, _hash(groups, chunk_size, identity))


def _permitted(allow_public: Iterable[Span]) -> list[Span]:
    """What may be scanned at all: what is ours, and what was named."""
    return [*(_span(network) for network in OWN), *allow_public]


def _judge(family: Family, ranges: Ranges, allowed: Iterable[Span]) -> None:
    """Raise ``ConfigurationError`` unless every address of ``ranges`` may be scanned."""

    def text(value: int) -> str:
        return str(IPv4Address(value) if family == 4 else IPv6Address(value))

    for never, reason in NEVER:
        rest = without(ranges, _ranges(family, [_span(never)]))
        if touched := without(ranges, rest):
            raise ConfigurationError(f"targets: {text(touched[0][0])} is {reason}: that is never scanned")
    if strange := without(ranges, _ranges(family, allowed)):
        raise ConfigurationError(f"targets: {text(strange[0][0])} is public: allow_public does not name it")


def _parse(key: str, text: str) -> Span:
    """An address, network or range as the numbers of its addresses, with the zone of a link-local address."""
    try:
        span = parse_span(text)
    except ValueError as error:
        raise ConfigurationError(f"{key}: {text[:80]!r} is not an address, network or range: {error}") from error
    # The zone is free text that goes into nmap's list of targets: nothing but a name of an interface may pass.
    if span.zone and not _ZONE.fullmatch(span.zone):
        raise ConfigurationError(f"{key}: {text[:80]!r} is not a link-local address with the name of an interface")
    return span


def _span(network: IPv4Network | IPv6Network) -> Span:
    return Span(network.version, int(network.network_address), int(network.broadcast_address))


def _ranges(family: Family, spans: Iterable[Span]) -> Ranges:
    return merge((span.low, span.high) for span in spans if span.family == family)


def _hash(groups: Iterable[Group], chunk_size: int, identity: Iterable[str]) -> str:
    """SHA-256 over everything that decides what chunk N asks; the first word is the version of this rule."""
    parts = [[group.family, group.zone, group.ranges] for group in groups]
    canonical = json.dumps(["scan-plan-1", parts, chunk_size, list(identity)], separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
