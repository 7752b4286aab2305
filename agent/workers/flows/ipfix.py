"""Flow records as messages of IPFIX, RFC 7011, with information elements of IANA's registry.

::

    message   16 bytes: version 10, its length, when it was sent, sequence number, observation domain
    set        4 bytes, and its records: 2 templates, 256 flows over IPv4, 257 flows over IPv6

The sequence number counts the data records that were sent in the domain before this message, modulo 2^32; templates are
none (RFC 7011, 3.1).

**Octets.** ``octetDeltaCount`` counts IP packets, and an index frames: what the link type says that its header takes is
subtracted, VLAN tags too. What pads an Ethernet frame to its least size stays in, and so do headers between (MPLS,
PPPoE). ``layer2OctetDeltaCount`` is the frames, exactly.
"""

from __future__ import annotations

import socket
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.workers.flows import words
from agent.workers.flows.ended import Records
from agent.workers.index.model import IPV4, IPV6, LATER_FRAGMENT

if TYPE_CHECKING:
    from numpy.typing import NDArray

VERSION = 10
LONGEST = 1400
"""Bytes of a message: with the headers of UDP and IPv6 and those of a tunnel it stays below an MTU of 1500."""

TEMPLATES = 2  # RFC 7011, 3.3.2
OF_FAMILY = {IPV4: 256, IPV6: 257}
"""Template identifiers."""

_HEADER = struct.Struct("!HHIII")
_SET = struct.Struct("!HH")
_FIELD = struct.Struct("!HH")

# name of the element: (number, type here)
_COMMON: dict[str, tuple[int, str]] = {
    "flowStartMilliseconds": (152, ">u8"),
    "flowEndMilliseconds": (153, ">u8"),
    "octetDeltaCount": (1, ">u8"),
    "packetDeltaCount": (2, ">u8"),
    "layer2OctetDeltaCount": (352, ">u8"),
    "ingressInterface": (10, ">u4"),
    "sourceTransportPort": (7, ">u2"),
    "destinationTransportPort": (11, ">u2"),
    "tcpControlBits": (6, ">u2"),
    "vlanId": (58, ">u2"),
    "protocolIdentifier": (4, ">u1"),
    "flowEndReason": (136, ">u1"),
    "ipVersion": (60, ">u1"),
}
ELEMENTS: dict[int, dict[str, tuple[int, str]]] = {
    IPV4: {
        "sourceIPv4Address": (8, ">u4"),
        "destinationIPv4Address": (12, ">u4"),
        "icmpTypeCodeIPv4": (32, ">u2"),
        **_COMMON,
    },
    IPV6: {
        "sourceIPv6Address": (27, "V16"),
        "destinationIPv6Address": (28, "V16"),
        "icmpTypeCodeIPv6": (139, ">u2"),
        **_COMMON,
    },
}
"""What a record of each family holds, in this order."""

_FORMS = {
    family: np.dtype([(name, kind) for name, (_, kind) in elements.items()]) for family, elements in ELEMENTS.items()
}

_LINK_HEADERS = {1: 14, 113: 16, 276: 20, 0: 4, 108: 4}
"""Bytes before the network header by link type (pcap-linktype(7)): Ethernet, SLL, SLL2, NULL, LOOP; raw IP has none."""


def link_header(link_type: int) -> int:
    """How many bytes the link header takes, without VLAN tags; 0 where that is not known."""
    return _LINK_HEADERS.get(link_type, 0)


def template_set() -> bytes:
    """The set with both templates."""
    records = b""
    for family, elements in ELEMENTS.items():
        records += _FIELD.pack(OF_FAMILY[family], len(elements))
        for number, kind in elements.values():
            records += _FIELD.pack(number, np.dtype(kind).itemsize)
    return _SET.pack(TEMPLATES, _SET.size + len(records)) + records


def encoded(records: Records, family: int, interfaces: NDArray[np.uint32], headers: NDArray[np.uint64]) -> Any:
    """The records of one family as an array of what goes into a data set.

    ``interfaces`` and ``headers`` are the interface's index and the length of its link header, by origin.
    """
    chosen = records.table.family == family
    table, reasons = records.table[chosen], records.reasons[chosen]
    out = np.zeros(len(table), _FORMS[family])
    later = table.quirks & np.uint64(LATER_FRAGMENT) != 0
    typed = np.isin(table.protocol, (words.ICMP, words.ICMPV6)) & ~later
    version = 4 if family == IPV4 else 6
    if family == IPV4:
        out["sourceIPv4Address"], out["destinationIPv4Address"] = table.source[:, 1], table.destination[:, 1]
    else:
        for name, ends in (("sourceIPv6Address", table.source), ("destinationIPv6Address", table.destination)):
            out[name] = np.ascontiguousarray(ends, ">u8").view("V16")[:, 0]
    type_and_code = table.source_port << np.uint64(8) | table.destination_port
    out[f"icmpTypeCodeIPv{version}"] = np.where(typed, type_and_code, 0)
    out["flowStartMilliseconds"] = table.first // np.uint64(1_000_000)
    out["flowEndMilliseconds"] = table.last // np.uint64(1_000_000)
    origins = table.origin.astype(np.intp)
    before = table.packets * (headers[origins] + np.uint64(4) * table.tags)
    out["octetDeltaCount"] = table.octets - np.minimum(before, table.octets)
    out["packetDeltaCount"] = table.packets
    out["layer2OctetDeltaCount"] = table.octets
    out["ingressInterface"] = interfaces[origins]
    out["sourceTransportPort"] = np.where(typed, 0, table.source_port)
    out["destinationTransportPort"] = np.where(typed, 0, table.destination_port)
    out["tcpControlBits"] = table.tcp_flags & np.uint16(0x01FF)
    out["vlanId"] = table.vlan
    out["protocolIdentifier"] = table.protocol
    out["flowEndReason"] = reasons
    out["ipVersion"] = version
    return out


def interface_index(name: str) -> int:
    """The kernel's index of an interface, 0 when there is none of that name any more."""
    try:
        return socket.if_nametoindex(name)
    except (OSError, UnicodeError):
        return 0


@dataclass(slots=True)
class Domain:
    """An observation domain: its number, and how many data records were sent in it."""

    number: int
    sequence: int = 0


def domain(service: str, interface: str) -> Domain:
    """The domain of an interface of a service. Its number is the same on every day and host: a checksum, never 0."""
    return Domain(zlib.crc32(f"{service}/{interface}".encode(errors="surrogateescape")) or 1)


def template_message(of: Domain, when: int) -> bytes:
    """A message with the templates alone. ``when``: unix seconds."""
    return _message(of, when, template_set(), 0)


def messages(of: Domain, family: int, data: Any, clock: Any) -> Iterator[tuple[bytes, int]]:
    """Messages with these records, as ``encoded`` made them, and how many are in each.

    ``clock`` tells unix seconds; it is asked, and the sequence number moved on, as each message is taken.
    """
    room = (LONGEST - _HEADER.size - _SET.size) // data.dtype.itemsize
    for start in range(0, len(data), room):
        part = data[start : start + room]
        payload = part.tobytes()
        data_set = _SET.pack(OF_FAMILY[family], _SET.size + len(payload)) + payload
        yield _message(of, int(clock()), data_set, len(part)), len(part)


def _message(of: Domain, when: int, sets: bytes, records: int) -> bytes:
    head = _HEADER.pack(VERSION, _HEADER.size + len(sets), when & 0xFFFFFFFF, of.sequence & 0xFFFFFFFF, of.number)
    of.sequence = (of.sequence + records) & 0xFFFFFFFF
    return head + sets
