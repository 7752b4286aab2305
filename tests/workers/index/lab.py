"""What the tests of the index share: packets of every kind, files of them, and what tshark says about these.

Packets are put together by hand, from the RFCs: what is wrong about one is then wrong on purpose. With each piece goes
how many bytes of it are headers that the index decodes, so that a test knows which packets were cut too short for that.
"""

from __future__ import annotations

import ctypes
import ipaddress
import struct
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from agent.linux import libpcap
from agent.workers.capture import binding
from agent.workers.capture.binding import pcap
from agent.workers.capture.savefile import Format, Walk, whole_records
from agent.workers.index.records import Order

ETHERNET, NULL, LOOP, RAW, SLL, SLL2, IPV4, IPV6 = 1, 0, 108, 101, 113, 276, 228, 229
SECOND = 10**9
BEGIN = 1_790_000_000 * SECOND

_PATIENCE = 30.0

_DLT_RAW = 12  # in memory; in a file it is LINKTYPE_RAW: pcap-linktype(7)

_found = libpcap.load()
assert _found
_offline_filter = _found[1].pcap_offline_filter
_offline_filter.restype = ctypes.c_int
_offline_filter.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]


class Piece(NamedTuple):
    """Bytes of a packet from some header on, and how many of them have to be there for all that the index tells."""

    data: bytes
    depth: int = 0


def tcp(source: int = 40000, destination: int = 443, flags: int = 0x10, payload: bytes = b"") -> Piece:
    return Piece(struct.pack("!HHIIHHHH", source, destination, 7, 9, 5 << 12 | flags, 1000, 0, 0) + payload, 14)


def udp(source: int = 40000, destination: int = 9, payload: bytes = b"datagram") -> Piece:
    return Piece(struct.pack("!HHHH", source, destination, 8 + len(payload), 0) + payload, 4)


def sctp(source: int = 2905, destination: int = 2906) -> Piece:
    return Piece(struct.pack("!HHII", source, destination, 1, 0) + struct.pack("!BBH", 11, 0, 4), 4)  # COOKIE ACK


def dccp(source: int = 5004, destination: int = 5005) -> Piece:
    # Data, of a long sequence number: RFC 4340, 5.1
    return Piece(struct.pack("!HHBBHBBHI", source, destination, 4, 0, 0, 2 << 1 | 1, 0, 0, 1), 4)


def icmp(kind: int = 8, code: int = 0, payload: bytes = b"\0\1\0\2echo") -> Piece:
    return Piece(struct.pack("!BBH", kind, code, 0) + payload, 2)


def opaque(data: bytes = b"sixteen bytes ok") -> Piece:
    return Piece(data)


def ipv4(
    protocol: int,
    inner: Piece,
    source: str = "10.1.2.3",
    destination: str = "192.168.255.254",
    *,
    options: bytes = b"",
    fragment: int = 0,
    version: int = 4,
    words: int | None = None,
) -> Piece:
    """``fragment``: flags and offset. ``words``: what the header claims to be long, in units of 4 bytes."""
    length = 20 + len(options)
    first = version << 4 | (length // 4 if words is None else words)
    header = struct.pack(
        "!BBHHHBBH4s4s",
        *(first, 0, length + len(inner.data), 1, fragment, 64, protocol, 0),
        *(ipaddress.IPv4Address(source).packed, ipaddress.IPv4Address(destination).packed),
    )
    deep = inner.depth and not fragment & 0x1FFF
    return Piece(header + options + inner.data, length + inner.depth if deep else 20)


def ipv6(
    protocol: int, inner: Piece, source: str = "2001:db8::1", destination: str = "fe80::ffff:1", *, version: int = 6
) -> Piece:
    """``protocol``: of the next header, which may be an extension: ``inner`` then begins with it."""
    addresses = ipaddress.IPv6Address(source).packed + ipaddress.IPv6Address(destination).packed
    header = struct.pack("!IHBB", version << 28 | 0x12345, len(inner.data), protocol, 64) + addresses
    return Piece(header + inner.data, 40 + inner.depth)


def extension(following: int, inner: Piece, units: int = 1, body: bytes = b"") -> Piece:
    """An extension header of so many units of 8 bytes; the options in it are one byte each: RFC 8200, 4.2."""
    padding = bytes(units * 8 - 2 - len(body))  # Pad1
    data = struct.pack("!BB", following, units - 1) + body + padding
    return Piece(data + inner.data, len(data) + inner.depth if inner.depth else 8)


def routing(following: int, inner: Piece, segments: int = 1) -> Piece:
    """RFC 6554 and the like: type 0 of RFC 2460, no segments left."""
    data = struct.pack("!BBBBI", following, 2 * segments, 0, 0, 0) + bytes(16 * segments)
    return Piece(data + inner.data, len(data) + inner.depth if inner.depth else 8)


def fragment6(following: int, inner: Piece, position: int, more: bool) -> Piece:
    data = struct.pack("!BBHI", following, 0, position << 3 | more, 77)
    return Piece(data + inner.data, 8 if position else 8 + inner.depth)


def authentication(following: int, inner: Piece, words: int = 1) -> Piece:
    """RFC 4302. ``words``: of 4 bytes, in the integrity check value; the length field counts one more."""
    data = struct.pack("!BBHII", following, 1 + words, 0, 1, 2) + bytes(4 * words)
    return Piece(data + inner.data, len(data) + inner.depth if inner.depth else 8)


def arp(
    operation: int = 1, source: str = "10.1.2.3", destination: str = "10.1.2.4", *, hardware: int = 1, length: int = 6
) -> Piece:
    head = struct.pack("!HHBBH", hardware, 0x0800, length, 4, operation)
    addresses = ipaddress.IPv4Address(source).packed, ipaddress.IPv4Address(destination).packed
    return Piece(head + bytes(length) + addresses[0] + bytes(length) + addresses[1], 28)


def tagged(kind: int, *tags: tuple[int, int], inner: Piece) -> tuple[int, Piece]:
    """``kind``: ethertype of ``inner``; ``tags``: their ethertype and their content, outermost first."""
    for tag, content in reversed(tags):
        inner = Piece(struct.pack("!HH", content, kind) + inner.data, 4 + inner.depth)
        kind = tag
    return kind, inner


def ethernet(kind: int, inner: Piece) -> Piece:
    """``kind``: the ethertype, or a length."""
    return Piece(b"\x02\0\0\0\0\2\x02\0\0\0\0\1" + struct.pack("!H", kind) + inner.data, 14 + inner.depth)


def sll(kind: int, inner: Piece) -> Piece:
    return Piece(struct.pack("!HHH8sH", 0, 1, 6, b"\x02\0\0\0\0\1", kind) + inner.data, 16 + inner.depth)


def sll2(kind: int, inner: Piece) -> Piece:
    return Piece(struct.pack("!HHIHBB8s", kind, 0, 3, 1, 0, 6, b"\x02\0\0\0\0\1") + inner.data, 20 + inner.depth)


def loopback(family: int, inner: Piece, order: str) -> Piece:
    return Piece(struct.pack(order + "I", family) + inner.data, 4 + inner.depth)


class Packet(NamedTuple):
    """As it stands in a file. ``time`` in nanoseconds since the epoch, ``wire`` the length it had there."""

    time: int
    data: bytes
    wire: int


def savefile(link_type: int, packets: Iterable[Packet], order: str = "<", unit: int = 1) -> bytes:
    """A pcap file: pcap-savefile(5). ``unit``: nanoseconds that a fraction counts, 1 or 1000."""
    magic = {1: 0xA1B23C4D, 1000: 0xA1B2C3D4}[unit]
    parts = [struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 262144, link_type)]
    for packet in packets:
        seconds, fraction = divmod(packet.time, SECOND)
        parts += [struct.pack(order + "IIII", seconds, fraction // unit, len(packet.data), packet.wire), packet.data]
    return b"".join(parts)


def pcapng(packets: Sequence[tuple[int, Packet]]) -> bytes:
    """One file of packets of several link types: draft-ietf-opsawg-pcapng."""

    def block(kind: int, body: bytes) -> bytes:
        length = struct.pack("<I", len(body) + 12)
        return struct.pack("<I", kind) + length + body + length

    kinds = sorted({link_type for link_type, _ in packets})
    parts = [block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))]
    nanoseconds = struct.pack("<HHB3xHH", 9, 1, 9, 0, 0)  # if_tsresol, opt_endofopt
    parts += [block(1, struct.pack("<HHI", kind, 0, 262144) + nanoseconds) for kind in kinds]
    for link_type, packet in packets:
        high, low = divmod(packet.time, 1 << 32)
        head = struct.pack("<IIIII", kinds.index(link_type), high, low, len(packet.data), packet.wire)
        parts.append(block(6, head + packet.data.ljust(-(-len(packet.data) // 4) * 4, b"\0")))
    return b"".join(parts)


def walked(data: bytes, order: Order) -> tuple[list[int], Walk]:
    """Where each record begins, one after the other."""
    walk = whole_records(data, Format(order, 1))
    places, place = [], 0
    while place < walk.length:
        places.append(place)
        place += 16 + struct.unpack_from(order + "I", data, place + 8)[0]
    assert (place, len(places)) == (walk.length, walk.records)
    return places, walk


def tshark(path: Path, fields: Sequence[str]) -> list[dict[str, list[str]]]:
    """Of each packet, all that tshark found for each field: outer ones first."""
    command = ["tshark", "-n", "-r", str(path), "-T", "fields", "-E", "occurrence=a", "-E", "separator=/t"]
    for preference in ("ip.defragment", "ipv6.defragment", "tcp.desegment_tcp_streams"):
        command += ["-o", f"{preference}:FALSE"]
    for field in fields:
        command += ["-e", field]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE)
    assert done.returncode == 0, done.stderr
    return [
        {field: value.split(",") if value else [] for field, value in zip(fields, line.split("\t"), strict=True)}
        for line in done.stdout.splitlines()
    ]


def passes(link_type: int, expression: str, packets: Sequence[Packet]) -> list[bool]:
    """Which of these packets pass a filter of libpcap."""
    dead = pcap.pcap_open_dead(_DLT_RAW if link_type == RAW else link_type, 262144)
    program = pcap.bpf_program()
    unknown = ctypes.c_int(binding.NETMASK_UNKNOWN).value
    if pcap.pcap_compile(dead, ctypes.byref(program), expression.encode(), 1, unknown) != 0:
        assert b"rejects all packets" in pcap.pcap_geterr(dead), expression
        pcap.pcap_close(dead)
        return [False] * len(packets)
    found = []
    for packet in packets:
        header = pcap.pcap_pkthdr(pcap.timeval(0, 0), len(packet.data), packet.wire)
        data = (ctypes.c_ubyte * len(packet.data)).from_buffer_copy(packet.data)
        found.append(_offline_filter(ctypes.byref(program), ctypes.byref(header), data) != 0)
    pcap.pcap_freecode(ctypes.byref(program))
    pcap.pcap_close(dead)
    return found
