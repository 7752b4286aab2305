"""A flow as an object of JSON: the form that ``agentctl flows --by flow --json`` and the export as JSON lines share.

Fields are added to it and never change their meaning.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from agent.workers.flows import words
from agent.workers.flows.ended import (
    ACTIVE_TIMEOUT,
    END_OF_FLOW,
    FORCED_END,
    IDLE_TIMEOUT,
    LACK_OF_RESOURCES,
)
from agent.workers.flows.table import Table
from agent.workers.index.model import ARP, IPV4, IPV6, LATER_FRAGMENT, ODD

if TYPE_CHECKING:
    from numpy.typing import NDArray

REASONS = {
    0: None,
    IDLE_TIMEOUT: "idle",
    ACTIVE_TIMEOUT: "active",
    END_OF_FLOW: "end",
    FORCED_END: "cut",
    LACK_OF_RESOURCES: "room",
}


class Line(msgspec.Struct, frozen=True):
    """One flow, in one direction.

    ``start`` and ``end`` are ISO 8601 in UTC with nanoseconds, ``start_ns`` and ``end_ns`` the same since the epoch.
    ``bytes`` are on the wire, link header included. ``source`` and ``destination`` are ``None`` for what is neither IP
    nor ARP; ports for what has none. ``vlans``: the outermost and the next. ``odd``: not decoded as far as its headers
    go. ``fragments``: later fragments, which have no ports. ``reason``: why the record ends here.
    """

    service: str
    interface: str
    start: str
    end: str
    start_ns: int
    end_ns: int
    family: str
    protocol: str
    source: str | None
    destination: str | None
    source_port: int | None
    destination_port: int | None
    icmp_type: int | None
    icmp_code: int | None
    protocol_number: int | None
    ethertype: int
    vlans: list[int]
    tcp_flags: str | None
    packets: int
    bytes: int
    odd: bool
    fragments: bool
    reason: str | None


def lines(table: Table, origins: Sequence[tuple[str, str]], reasons: NDArray[np.uint8] | None = None) -> Iterator[Line]:
    """One object a row. ``origins`` are the service and the interface that each ``origin`` stands for."""
    told = np.zeros(len(table), np.uint8) if reasons is None else reasons
    columns = (
        table.origin, table.family, table.protocol, table.ethertype, table.quirks, table.source_port,
        table.destination_port, table.tags, table.vlan, table.inner_vlan, table.tcp_flags, table.first, table.last,
        table.packets, table.octets, told,
    )  # fmt: skip
    ends = table.key[:, :4].tolist()
    for row, (origin, family, protocol, ethertype, quirks, *rest) in enumerate(
        zip(*(column.tolist() for column in columns), strict=True)
    ):
        source_port, destination_port, tags, vlan, inner, flags, first, last, packets, octets, reason = rest
        service, interface = origins[origin]
        upper, lower, other_upper, other_lower = ends[row]
        ip = family in (IPV4, IPV6)
        addressed = ip or family == ARP
        later = bool(quirks & LATER_FRAGMENT)
        ports = ip and bool(words.PORTED[protocol]) and not later
        typed = ip and protocol in (words.ICMP, words.ICMPV6) and not later
        yield Line(
            service=service,
            interface=interface,
            start=iso(first),
            end=iso(last),
            start_ns=first,
            end_ns=last,
            family=words.FAMILIES.get(family, str(family)),
            protocol=words.what(family, ethertype, protocol),
            source=words.address(family, upper, lower) if addressed else None,
            destination=words.address(family, other_upper, other_lower) if addressed else None,
            source_port=source_port if ports else None,
            destination_port=destination_port if ports else None,
            icmp_type=source_port if typed else None,
            icmp_code=destination_port if typed else None,
            protocol_number=protocol if ip else None,
            ethertype=ethertype,
            vlans=[vlan, inner][:tags],
            tcp_flags=words.flags(flags) if ip and protocol == words.TCP else None,
            packets=packets,
            bytes=octets,
            odd=bool(quirks & ODD),
            fragments=later,
            reason=REASONS.get(reason),
        )


def encoded(line: Line) -> bytes:
    """One line of JSON, with its end. It is ASCII without control characters: somebody may look at it."""
    try:
        text = msgspec.json.encode(line)
    except UnicodeEncodeError:  # an interface whose name is no text
        text = b"\x7f"
    if not text.isascii() or b"\x7f" in text:
        text = json.dumps(msgspec.structs.asdict(line), separators=(",", ":")).replace("\x7f", "\\u007f").encode()
    return text + b"\n"


def iso(instant: int) -> str:
    """Nanoseconds since the epoch as ``2026-11-20T14:00:00.123456789Z``."""
    seconds, fraction = divmod(instant, 1_000_000_000)
    return f"{_second(seconds)}.{fraction:09d}Z"


@functools.lru_cache(4096)
def _second(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"  # 64 bits of nanoseconds end in 2554
