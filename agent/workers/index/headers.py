"""What the headers of packets say, for all packets of a stretch at once.

Everything is gathered from the bytes by position: a step costs the same for a million packets as for one, and packets
that need another step (tags, options, extension headers) are few and get it by themselves. What was not captured is
never looked at: a packet that ends before its headers do is ``ODD``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.workers.index import numbers
from agent.workers.index.link import network_layer
from agent.workers.index.model import ARP, EXTENDED, FRAGMENTED, IPV4, IPV6, LATER_FRAGMENT, ODD, OTHER, SYN_ACK

if TYPE_CHECKING:
    from numpy.typing import NDArray

MARGIN = 64
"""Bytes that must be readable behind the last record: headers are gathered in one piece, used or not."""

_PORTED = np.zeros(256, np.bool_)
_PORTED[list(numbers.PORTED)] = True
_TYPED = np.zeros(256, np.bool_)
_TYPED[[numbers.ICMP, numbers.ICMPV6]] = True
_IS_EXTENSION = np.zeros(256, np.bool_)
_IS_EXTENSION[list(numbers.EXTENSIONS)] = True


@dataclass(frozen=True, slots=True)
class Packets:
    """One row a packet; the columns are those of ``Flows``, with addresses in full.

    ``place`` is where the record begins, ``time`` nanoseconds since the epoch, ``wire`` and ``captured`` lengths in
    bytes. ``source`` and ``destination`` are the lower 64 bits of the addresses, ``source_high`` and
    ``destination_high`` the upper, or ``None`` when no packet here is IPv6.
    """

    place: NDArray[np.int64]
    time: NDArray[np.uint64]
    wire: NDArray[np.uint32]
    captured: NDArray[np.int64]
    family: NDArray[np.uint8]
    ethertype: NDArray[np.uint16]
    tags: NDArray[np.uint8]
    vlan: NDArray[np.uint16]
    inner_vlan: NDArray[np.uint16]
    quirks: NDArray[np.uint8]
    protocol: NDArray[np.uint8]
    source: NDArray[np.uint64]
    destination: NDArray[np.uint64]
    source_high: NDArray[np.uint64] | None
    destination_high: NDArray[np.uint64] | None
    source_port: NDArray[np.uint16]
    destination_port: NDArray[np.uint16]
    tcp_flags: NDArray[np.uint16]


class Bytes:
    """Gathers numbers from anywhere in ``data``, of which at least ``MARGIN`` bytes more than are asked for exist."""

    def __init__(self, data: bytes | bytearray) -> None:
        self._data = data

    def take(self, kind: str, places: NDArray[np.int64]) -> NDArray[Any]:
        """The numbers of this numpy type that begin at these places, aligned or not."""
        size = np.dtype(kind).itemsize
        view: NDArray[Any] = np.ndarray((len(self._data) - size + 1,), kind, self._data, 0, (1,))
        return view[places]


_COLUMNS = {
    "place": np.int64,
    "time": np.uint64,
    "wire": np.uint32,
    "captured": np.int64,
    "family": np.uint8,
    "ethertype": np.uint16,
    "tags": np.uint8,
    "vlan": np.uint16,
    "inner_vlan": np.uint16,
    "quirks": np.uint8,
    "protocol": np.uint8,
    "source": np.uint64,
    "destination": np.uint64,
    "source_high": np.uint64,
    "destination_high": np.uint64,
    "source_port": np.uint16,
    "destination_port": np.uint16,
    "tcp_flags": np.uint16,
}


def room(count: int) -> Packets:
    """Columns for so many packets, of anything."""
    columns: dict[str, Any] = {name: np.empty(count, kind) for name, kind in _COLUMNS.items()}
    return Packets(**columns)


def part(packets: Packets, begin: int, end: int) -> Packets:
    """Some of them: views, not copies. Upper halves of addresses must be there."""
    return Packets(**{name: getattr(packets, name)[begin:end] for name in _COLUMNS})


def short(packets: Packets) -> Packets:
    """These packets, none of which is IPv6."""
    columns = {name: getattr(packets, name) for name in _COLUMNS}
    return Packets(**{**columns, "source_high": None, "destination_high": None})


def lower(packets: Packets) -> None:
    """Fill in the upper halves of addresses where none is IPv6."""
    for column in (packets.source_high, packets.destination_high):
        if column is not None:
            column[:] = 0


def read(data: bytes | bytearray, places: NDArray[np.int64], order: str, unit: int, link_type: int) -> Packets:
    """Decode the packets whose records begin at ``places``: see ``decode``."""
    found = room(len(places))
    return found if decode(data, places, order, unit, link_type, found) else short(found)


def decode(
    data: bytes | bytearray, places: NDArray[np.int64], order: str, unit: int, link_type: int, found: Packets
) -> bool:
    """Decode the packets whose records begin at ``places`` into as many rows; returns whether one of them is IPv6: only
    then upper halves of addresses are filled in.

    ``order`` is the byte order of the file, ``unit`` how many nanoseconds a fraction counts. ``data`` must go on for
    ``MARGIN`` bytes behind the last record.
    """
    taken = Bytes(data)
    record = taken.take("V16", places).view(order + "u4").reshape(-1, 4)
    found.place[:] = places
    found.time[:] = record[:, 0]
    found.time[:] *= np.uint64(1_000_000_000)
    found.time[:] += record[:, 1] if unit == 1 else record[:, 1] * np.uint64(unit)
    found.captured[:] = record[:, 2]
    found.wire[:] = record[:, 3]
    frame = places + 16
    end = frame + found.captured
    link = network_layer(taken, frame, end, link_type)
    for name in ("ethertype", "tags", "vlan", "inner_vlan", "quirks"):
        getattr(found, name)[:] = getattr(link, name)
    for name in ("family", "protocol", "source", "destination", "source_port", "destination_port", "tcp_flags"):
        getattr(found, name)[:] = 0
    _ipv4(taken, found, link.start, end)
    has_high = _ipv6(taken, found, link.start, end)
    _arp(taken, found, link.start, end)
    return has_high


def _rows(found: Packets, *ethertypes: int) -> Any:
    """Which packets say that this follows their link header. All of them are a slice: it costs nothing to index by."""
    mask = found.ethertype == ethertypes[0]
    for other in ethertypes[1:]:
        mask |= found.ethertype == other
    mask &= (found.quirks & ODD) == 0
    count = int(np.count_nonzero(mask))
    return slice(None) if count == len(mask) else np.flatnonzero(mask)


def _of(rows: Any, mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Those of ``rows`` of which that is so."""
    some = np.flatnonzero(mask)
    return some if isinstance(rows, slice) else rows[some]


def _none(rows: Any) -> bool:
    return not isinstance(rows, slice) and not len(rows)


def _ipv4(taken: Bytes, found: Packets, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> None:
    rows = _rows(found, numbers.IPV4)
    if _none(rows):
        return
    start, end = starts[rows], ends[rows]
    header = taken.take("V20", start)
    octets = header.view(np.uint8).reshape(-1, 20)
    words = header.view(">u2").reshape(-1, 10)
    longs = header.view(">u4").reshape(-1, 5)
    length = (octets[:, 0] & 15).astype(np.int64) * 4
    fragment = words[:, 3].astype(np.uint16)
    odd = (octets[:, 0] >> 4 != 4) | (length < 20) | (start + 20 > end)
    found.family[rows] = IPV4
    found.protocol[rows] = octets[:, 9]
    found.source[rows] = longs[:, 3]
    found.destination[rows] = longs[:, 4]
    whole = ~odd
    if odd.any():
        few = _of(rows, odd)
        found.family[few] = OTHER
        found.quirks[few] |= ODD
        for column in (found.protocol, found.source, found.destination):
            column[few] = 0
    if (fragment & 0x3FFF).any():
        later = (fragment & 0x1FFF) != 0
        found.quirks[_of(rows, later)] |= LATER_FRAGMENT
        found.quirks[_of(rows, (fragment & 0x3FFF) != 0)] |= FRAGMENTED
        whole &= ~later
    _transport(taken, found, rows, start + length, end, whole)


def _ipv6(taken: Bytes, found: Packets, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> bool:
    rows = _rows(found, numbers.IPV6)
    if _none(rows):
        return False
    start, end = starts[rows], ends[rows]
    header = taken.take("V40", start)
    octets = header.view(np.uint8).reshape(-1, 40)
    quads = header.view(">u8").reshape(-1, 5)
    known = (octets[:, 0] >> 4 == 6) & (start + 40 <= end)
    zero = np.uint64(0)
    lower(found)
    for column, number in ((found.source_high, 1), (found.destination_high, 3)):
        if column is not None:
            column[rows] = np.where(known, quads[:, number], zero)
    found.source[rows] = np.where(known, quads[:, 2], zero)
    found.destination[rows] = np.where(known, quads[:, 4], zero)
    found.family[rows] = np.where(known, np.uint8(IPV6), np.uint8(OTHER))
    protocol = np.where(known, octets[:, 6], np.uint8(_NO_NEXT))
    place = start + 40
    quirks = np.where(known, np.uint8(0), np.uint8(ODD))
    later = _behind_extensions(taken, protocol, place, end, quirks)
    found.protocol[rows] = np.where(known, protocol, np.uint8(0))
    found.quirks[rows] |= quirks
    _transport(taken, found, rows, place, end, (quirks & ODD == 0) & ~later)
    return True


_NO_NEXT = 59  # RFC 8200: no next header


def _behind_extensions(
    taken: Bytes,
    protocol: NDArray[np.uint8],
    place: NDArray[np.int64],
    end: NDArray[np.int64],
    quirks: NDArray[np.uint8],
) -> NDArray[np.bool_]:
    """Move ``protocol`` and ``place`` behind the extension headers; returns which are fragments but not the first."""
    later = np.zeros(len(place), np.bool_)
    rows = np.flatnonzero(_IS_EXTENSION[protocol])
    for _ in range(numbers.MOST_EXTENSIONS):
        if not len(rows):
            return later
        here, kind = place[rows], protocol[rows]
        quirks[rows] |= EXTENDED
        cut = here + 8 > end[rows]
        quirks[rows[cut]] |= ODD
        rows, here, kind = rows[~cut], here[~cut], kind[~cut]
        octets = taken.take("V8", here).view(np.uint8).reshape(-1, 8)
        is_fragment = kind == numbers.FRAGMENT
        length = octets[:, 1].astype(np.int64)
        size = np.where(kind == numbers.AUTHENTICATION, (length + 2) * 4, (length + 1) * 8)
        size[is_fragment] = 8
        position = (octets[:, 2].astype(np.uint16) << 8 | octets[:, 3]) & 0xFFF8
        behind = is_fragment & (position != 0)
        quirks[rows[is_fragment]] |= FRAGMENTED
        quirks[rows[behind]] |= LATER_FRAGMENT
        later[rows[behind]] = True
        protocol[rows] = octets[:, 0]
        place[rows] = here + size
        rows = rows[~behind & _IS_EXTENSION[octets[:, 0]]]
    quirks[rows] |= ODD
    return later


def _transport(
    taken: Bytes,
    found: Packets,
    rows: Any,
    place: NDArray[np.int64],
    end: NDArray[np.int64],
    known: NDArray[np.bool_],
) -> None:
    """Ports, or type and code, and the flags of TCP, of those packets of ``rows`` whose header is at ``place``."""
    protocol = found.protocol[rows]
    ported = known & _PORTED[protocol]
    typed = known & _TYPED[protocol]
    is_tcp = ported & (protocol == numbers.TCP)
    left = end - place
    readable = (ported & (left >= 4)) | (typed & (left >= 2))
    flagged = is_tcp & (left >= 14)
    short = ((ported | typed) & ~readable) | (is_tcp & ~flagged)
    if short.any():
        found.quirks[rows] |= np.where(short, np.uint8(ODD), np.uint8(0))
    # Most have what there is to read. Where it is none, the begin of the data is read, and not kept.
    unreadable = np.flatnonzero(~readable)
    place[unreadable] = 0
    ports = taken.take(">u4", place).astype(np.uint32)
    types = np.flatnonzero(typed & readable)
    kinds = ports[types] >> np.uint32(16)  # type and code become ports
    ports[types] = (kinds >> np.uint32(8)) << np.uint32(16) | kinds & np.uint32(0xFF)
    ports[unreadable] = 0
    found.source_port[rows] = ports >> np.uint32(16)
    found.destination_port[rows] = ports & np.uint32(0xFFFF)
    if flagged.all():
        found.tcp_flags[rows] = _flags(taken, place)
    elif flagged.any():
        found.tcp_flags[_of(rows, flagged)] = _flags(taken, place[flagged])


_FLAGS = np.arange(0x200, dtype=np.uint16)
_FLAGS[_FLAGS & 0x12 == 0x12] |= SYN_ACK


def _flags(taken: Bytes, place: NDArray[np.int64]) -> NDArray[np.uint16]:
    """The flags of TCP headers that begin there: RFC 9293, RFC 3540."""
    flags: NDArray[np.uint16] = _FLAGS[taken.take(">u2", place + 12) & 0x1FF]
    return flags


def _arp(taken: Bytes, found: Packets, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> None:
    """ARP and RARP for IPv4 over hardware with addresses of 6 bytes: RFC 826, RFC 903."""
    rows = _rows(found, numbers.ARP, numbers.RARP)
    if _none(rows):
        return
    start, end = starts[rows], ends[rows]
    words = taken.take("V28", start).view(">u2").reshape(-1, 14)
    known = (start + 28 <= end) & (words[:, 1] == numbers.IPV4) & (words[:, 2] == 0x0604) & (words[:, 3] < 256)
    longs = words.astype(np.uint64)
    zero = np.uint64(0)
    found.family[rows] = np.where(known, np.uint8(ARP), np.uint8(OTHER))
    found.quirks[rows] |= np.where(known, np.uint8(0), np.uint8(ODD))
    found.protocol[rows] = np.where(known, words[:, 3].astype(np.uint8), np.uint8(0))
    found.source[rows] = np.where(known, longs[:, 7] << np.uint64(16) | longs[:, 8], zero)
    found.destination[rows] = np.where(known, longs[:, 12] << np.uint64(16) | longs[:, 13], zero)
