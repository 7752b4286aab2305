"""Frames, savefiles and stores for the tests of flows, written byte by byte: nothing of the program is believed."""

from __future__ import annotations

import ipaddress
import random
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

SECOND = 1_000_000_000
NOON = 1_795_183_200 * SECOND
"""2026-11-20 14:00:00 UTC."""

TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58
FIN, SYN, RST, PUSH, ACK = 1, 2, 4, 8, 16

_MACS = bytes.fromhex("020000000001020000000002")


class Packet(NamedTuple):
    """``time`` in nanoseconds since the epoch, and the frame."""

    time: int
    frame: bytes


def ip(source: str, destination: str, protocol: int, payload: bytes, *, vlans: Sequence[int] = ()) -> bytes:
    """An Ethernet frame with an IPv4 or IPv6 packet."""
    one, other = ipaddress.ip_address(source).packed, ipaddress.ip_address(destination).packed
    if len(one) == 4:
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0) + one + other
        ethertype = 0x0800
    else:
        head = struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64) + one + other
        ethertype = 0x86DD
    tags = b"".join(struct.pack("!HH", 0x8100, vlan) for vlan in vlans)
    return _MACS + tags + struct.pack("!H", ethertype) + head + payload


def tcp(
    source: str, source_port: int, destination: str, port: int, flags: int, size: int = 0, **how: Sequence[int]
) -> bytes:
    """An Ethernet frame with a TCP segment of ``size`` bytes."""
    head = struct.pack("!HHIIBBHHH", source_port, port, 1, 1, 0x50, flags, 1024, 0, 0)
    return ip(source, destination, TCP, head + bytes(size), **how)


def udp(source: str, source_port: int, destination: str, port: int, size: int = 0, **how: Sequence[int]) -> bytes:
    """An Ethernet frame with a UDP datagram of ``size`` bytes."""
    head = struct.pack("!HHHH", source_port, port, 8 + size, 0)
    return ip(source, destination, UDP, head + bytes(size), **how)


def icmp(source: str, destination: str, kind: int, code: int = 0, size: int = 32) -> bytes:
    """An Ethernet frame with an ICMP or ICMPv6 message."""
    protocol = ICMPV6 if ":" in source else ICMP
    return ip(source, destination, protocol, struct.pack("!BBHHH", kind, code, 0, 1, 1) + bytes(size))


def arp(source: str, destination: str) -> bytes:
    """An ARP request, padded as a network card does."""
    one, other = ipaddress.ip_address(source).packed, ipaddress.ip_address(destination).packed
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + _MACS[6:] + one + bytes(6) + other
    return (_MACS + struct.pack("!H", 0x0806) + body).ljust(60, b"\0")


def savefile(packets: Sequence[Packet], snaplen: int = 262144) -> bytes:
    """A pcap file with nanoseconds."""
    parts = [struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, snaplen, 1)]
    for time, frame in packets:
        kept = frame[:snaplen]
        parts.append(struct.pack("<IIII", *divmod(time, SECOND), len(kept), len(frame)) + kept)
    return b"".join(parts)


def conversation(start: int, client: str, port: int, server: str, service: int, size: int = 700) -> list[Packet]:
    """A TCP connection with its handshake, a question, an answer and its end, within 90 ms."""
    there, back = (client, port, server, service), (server, service, client, port)
    steps = [
        tcp(*there, SYN),
        tcp(*back, SYN | ACK),
        tcp(*there, ACK),
        tcp(*there, PUSH | ACK, 120),
        tcp(*back, PUSH | ACK, size),
        tcp(*there, ACK),
        tcp(*back, FIN | ACK),
        tcp(*there, FIN | ACK),
        tcp(*back, ACK),
    ]
    return [Packet(start + number * 10_000_000, frame) for number, frame in enumerate(steps)]


def mixed(seed: int, count: int, start: int = NOON, seconds: int = 100) -> list[Packet]:
    """``count`` conversations and other things of all kinds, in order of time."""
    dice = random.Random(seed)
    packets: list[Packet] = []
    for _ in range(count):
        when = start + dice.randrange(seconds * SECOND)
        port = dice.randrange(32768, 60999)
        client = f"10.0.{dice.randrange(4)}.{dice.randrange(1, 30)}"
        client6 = f"2001:db8::{dice.randrange(1, 40):x}"
        match dice.randrange(7):
            case 0 | 1:
                packets += conversation(
                    when,
                    client,
                    port,
                    f"192.0.2.{dice.randrange(1, 4)}",
                    dice.choice([80, 443, 22]),
                    dice.randrange(1200),
                )
            case 2:
                packets += conversation(when, client6, port, "2001:db8:1::1", 443, dice.randrange(1200))
            case 3:
                packets += [
                    Packet(when, udp(client, port, "192.0.2.53", 53, 40)),
                    Packet(when + 3_000_000, udp("192.0.2.53", 53, client, port, dice.randrange(60, 400))),
                ]
            case 4:
                packets += [Packet(when, udp(client6, port, "2001:db8::35", 53, 60, vlans=[7]))]
            case 5:
                packets += [
                    Packet(when, icmp(client, "192.0.2.1", 8)),
                    Packet(when + 1_000_000, icmp("192.0.2.1", client, 0)),
                    Packet(when + 2_000_000, icmp(client6, "2001:db8::1", 128)),
                ]
            case _:
                packets += [Packet(when, arp(client, "10.0.0.1"))]
    return sorted(packets)


def store(
    directory: Path,
    interface: str,
    segments: Sequence[Sequence[Packet]],
    *,
    indexed: bool = True,
    snaplen: int = 262144,
) -> list[Path]:
    """Closed segments in a store, each named by its first packet and written to last at its end."""
    import os

    from agent.workers.capture.naming import CLOSED, segment_name

    place = directory / interface
    place.mkdir(parents=True, exist_ok=True)
    paths = []
    for packets in segments:
        path = place / segment_name(packets[0].time, CLOSED)
        path.write_bytes(savefile(packets, snaplen))
        last = max(packet.time for packet in packets)
        os.utime(path, ns=(last, last))
        if indexed:
            index(path)
        paths.append(path)
    return paths


def index(path: Path) -> None:
    """Write the index of a closed segment, as the index process does."""
    from agent.workers.capture.catalogue import INDEX
    from agent.workers.index.build import Reader, kind_of
    from agent.workers.index.form import encode

    with path.open("rb") as file:
        kind = kind_of(file.read(24))
        assert kind is not None
        made = list(Reader(file.fileno(), kind).chunks(path.stat().st_size))
    path.with_suffix(INDEX).write_bytes(b"".join(encode(chunk) for chunk in made))
