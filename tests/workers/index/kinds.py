"""Packets of every kind of link and header, whole, cut to every length, and damaged."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Iterator
from typing import NamedTuple

from tests.workers.index import lab
from tests.workers.index.lab import Packet, Piece

TCP, UDP, ICMP, ICMP6, GRE, AH = 6, 17, 1, 58, 47, 51
HOP, ROUTE, FRAGMENT, OPTIONS, MOBILITY, HIP, SHIM6, NONE = 0, 43, 44, 60, 135, 139, 140, 59
MORE = 0x2000

V4 = lab.ipv4(TCP, lab.tcp(payload=b"GET / HTTP/1.1\r\n\r\n"))
V6 = lab.ipv6(UDP, lab.udp())
INNER = lab.ethernet(0x0800, lab.ipv4(UDP, lab.udp(5000, 5001), "172.16.0.1", "172.16.0.2"))
MPLS = b"\x00\x06\x41\x40"  # label 100, bottom of stack
PPP = b"\x11\x00\x00\x01\x00\x10\x00\x21"
SNAP = b"\xaa\xaa\x03\0\0\0\x08\x00"


def _network() -> Iterator[tuple[str, int, Piece]]:
    """What follows a link header: a name, the ethertype, the packet from there on."""
    yield "ipv4 tcp", 0x0800, V4
    yield "ipv4 tcp syn", 0x0800, lab.ipv4(TCP, lab.tcp(flags=0x02))
    yield "ipv4 tcp syn ack", 0x0800, lab.ipv4(TCP, lab.tcp(443, 40000, flags=0x12))
    yield "ipv4 tcp all flags", 0x0800, lab.ipv4(TCP, lab.tcp(flags=0xFFF))
    yield "ipv4 udp", 0x0800, lab.ipv4(UDP, lab.udp())
    yield "ipv4 udp-lite", 0x0800, lab.ipv4(136, lab.udp(7, 8))
    yield "ipv4 sctp", 0x0800, lab.ipv4(132, lab.sctp())
    yield "ipv4 dccp", 0x0800, lab.ipv4(33, lab.dccp())
    yield "ipv4 icmp echo", 0x0800, lab.ipv4(ICMP, lab.icmp())
    quoted = lab.ipv4(UDP, lab.udp(1, 2), "10.9.9.9", "10.8.8.8").data
    yield "ipv4 icmp unreachable", 0x0800, lab.ipv4(ICMP, lab.icmp(3, 13, bytes(4) + quoted))
    yield "ipv4 igmp", 0x0800, lab.ipv4(2, lab.opaque(b"\x16\0\0\0\xef\1\2\3"))
    yield "ipv4 ospf", 0x0800, lab.ipv4(89, lab.opaque())
    yield "ipv4 esp", 0x0800, lab.ipv4(50, lab.opaque(bytes(20)))
    yield "ipv4 authentication", 0x0800, lab.ipv4(AH, lab.opaque(lab.authentication(UDP, lab.udp()).data))
    yield "ipv4 gre", 0x0800, lab.ipv4(GRE, lab.opaque(b"\0\0\x08\0" + V4.data))
    yield "ipv4 gre of ethernet", 0x0800, lab.ipv4(GRE, lab.opaque(b"\x20\0\x65\x58\0\0\0\7" + INNER.data))
    yield "ipv4 vxlan", 0x0800, lab.ipv4(UDP, lab.udp(50000, 4789, b"\x08\0\0\0\0\0\x2a\0" + INNER.data))
    yield "ipv4 ipv6", 0x0800, lab.ipv4(41, lab.opaque(V6.data))
    yield "ipv4 ipv4", 0x0800, lab.ipv4(4, lab.opaque(V4.data))
    yield "ipv4 options", 0x0800, lab.ipv4(TCP, lab.tcp(), options=b"\x94\x04\0\0")
    yield "ipv4 most options", 0x0800, lab.ipv4(UDP, lab.udp(), options=b"\x01" * 40)
    yield "ipv4 options icmp", 0x0800, lab.ipv4(ICMP, lab.icmp(13, 0, bytes(16)), options=b"\x01" * 8)
    yield "ipv4 options igmp", 0x0800, lab.ipv4(2, lab.opaque(b"\x16\0\0\0\xef\1\2\3"), options=b"\x94\x04\0\0")
    yield "ipv4 first fragment", 0x0800, lab.ipv4(UDP, lab.udp(), fragment=MORE)
    yield "ipv4 later fragment", 0x0800, lab.ipv4(UDP, lab.udp(), fragment=MORE | 100)
    yield "ipv4 last fragment", 0x0800, lab.ipv4(TCP, lab.tcp(), fragment=185)
    yield "ipv4 don't fragment", 0x0800, lab.ipv4(TCP, lab.tcp(), fragment=0x4000)
    yield "ipv4 all ones", 0x0800, lab.ipv4(UDP, lab.udp(65535, 65535), "255.255.255.255", "255.255.255.255")
    yield "ipv6 udp", 0x86DD, V6
    yield "ipv6 tcp", 0x86DD, lab.ipv6(TCP, lab.tcp(flags=0x112))
    yield "ipv6 sctp", 0x86DD, lab.ipv6(132, lab.sctp())
    yield "ipv6 dccp", 0x86DD, lab.ipv6(33, lab.dccp())
    yield "ipv6 udp-lite", 0x86DD, lab.ipv6(136, lab.udp())
    yield "ipv6 icmp", 0x86DD, lab.ipv6(ICMP6, lab.icmp(135, 0, bytes(20)))
    yield "ipv6 icmp unreachable", 0x86DD, lab.ipv6(ICMP6, lab.icmp(1, 4, bytes(4) + V6.data))
    yield "ipv6 no next", 0x86DD, lab.ipv6(NONE, lab.opaque())
    yield "ipv6 ipv4", 0x86DD, lab.ipv6(4, lab.opaque(V4.data))
    yield "ipv6 gre", 0x86DD, lab.ipv6(GRE, lab.opaque(b"\0\0\x08\0" + V4.data))
    yield "ipv6 esp", 0x86DD, lab.ipv6(50, lab.opaque(bytes(20)))
    yield "ipv6 hop-by-hop", 0x86DD, lab.ipv6(HOP, lab.extension(TCP, lab.tcp()))
    yield "ipv6 hop-by-hop mld", 0x86DD, lab.ipv6(HOP, lab.extension(ICMP6, lab.icmp(143, 0, bytes(4))))
    yield "ipv6 long options", 0x86DD, lab.ipv6(OPTIONS, lab.extension(UDP, lab.udp(), 32))
    yield "ipv6 longest options", 0x86DD, lab.ipv6(OPTIONS, lab.extension(UDP, lab.udp(), 256))
    yield "ipv6 routing", 0x86DD, lab.ipv6(ROUTE, lab.routing(UDP, lab.udp(), 2))
    yield "ipv6 authentication", 0x86DD, lab.ipv6(AH, lab.authentication(TCP, lab.tcp()))
    yield "ipv6 long authentication", 0x86DD, lab.ipv6(AH, lab.authentication(TCP, lab.tcp(), 17))
    yield "ipv6 first fragment", 0x86DD, lab.ipv6(FRAGMENT, lab.fragment6(UDP, lab.udp(), 0, more=True))
    yield "ipv6 later fragment", 0x86DD, lab.ipv6(FRAGMENT, lab.fragment6(UDP, lab.udp(), 181, more=True))
    yield "ipv6 last fragment", 0x86DD, lab.ipv6(FRAGMENT, lab.fragment6(OPTIONS, lab.udp(), 362, more=False))
    yield "ipv6 atomic fragment", 0x86DD, lab.ipv6(FRAGMENT, lab.fragment6(TCP, lab.tcp(), 0, more=False))
    yield "ipv6 mobility", 0x86DD, lab.ipv6(MOBILITY, lab.opaque(b"\x3b\1\5\0" + bytes(12)))
    yield "ipv6 hip", 0x86DD, lab.ipv6(HIP, lab.opaque(b"\x3b\4\1\x11" + bytes(36)))
    yield "ipv6 shim6", 0x86DD, lab.ipv6(SHIM6, lab.extension(UDP, lab.udp(), 1, b"\x80\1\2\3\4\5"))
    options = lab.extension(TCP, lab.tcp(22, 50022), 3)
    behind = lab.fragment6(OPTIONS, options, 0, more=True)
    chain = lab.extension(ROUTE, lab.routing(FRAGMENT, behind))
    yield "ipv6 a chain of four", 0x86DD, lab.ipv6(HOP, chain)
    yield "arp request", 0x0806, lab.arp()
    yield "arp reply", 0x0806, lab.arp(2, "10.1.2.4", "10.1.2.3")
    yield "rarp", 0x8035, lab.arp(3, "0.0.0.0", "0.0.0.0")
    yield "lldp", 0x88CC, lab.opaque(b"\x02\x07\x04\x02\0\0\0\0\x01\x04\x02\x07a\x06\x02\0\x78\0\0")
    yield "nothing known", 0x88B5, lab.opaque()
    yield "mpls", 0x8847, lab.opaque(MPLS + V4.data)
    yield "pppoe", 0x8864, lab.opaque(PPP + V4.data)


class Kind(NamedTuple):
    name: str
    link: int
    packet: Piece


def _kinds() -> Iterator[Kind]:
    ip = {0x0800: lab.IPV4, 0x86DD: lab.IPV6}
    for name, kind, packet in _network():
        yield Kind(name, lab.ETHERNET, lab.ethernet(kind, packet))
        yield Kind(f"{name} in a vlan", lab.ETHERNET, lab.ethernet(*lab.tagged(kind, (0x8100, 0x2064), inner=packet)))
    tags = {"qinq": 0x88A8, "old qinq": 0x9100, "double": 0x8100}
    for name, kind, packet in [("ipv4 tcp", 0x0800, V4), ("ipv6 udp", 0x86DD, V6), ("arp", 0x0806, lab.arp())]:
        for tag, outer in tags.items():
            frame = lab.tagged(kind, (outer, 0x0FFF), (0x8100, 0xE001), inner=packet)
            yield Kind(f"{name} {tag}", lab.ETHERNET, lab.ethernet(*frame))
            yield Kind(f"{name} {tag} cooked", lab.SLL, lab.sll(*frame))
            yield Kind(f"{name} {tag} cooked v2", lab.SLL2, lab.sll2(*frame))
        thrice = lab.tagged(kind, (0x88A8, 1), (0x8100, 2), (0x8100, 3), inner=packet)
        yield Kind(f"{name} three tags", lab.ETHERNET, lab.ethernet(*thrice))
        eight = lab.tagged(kind, *[(0x8100, number) for number in range(1, 9)], inner=packet)
        yield Kind(f"{name} eight tags", lab.ETHERNET, lab.ethernet(*eight))
        yield Kind(f"{name} cooked", lab.SLL, lab.sll(kind, packet))
        yield Kind(f"{name} cooked v2", lab.SLL2, lab.sll2(kind, packet))
        for link in (lab.RAW, 12, 14, ip.get(kind)):
            if link is not None and kind in ip:
                yield Kind(f"{name} raw {link}", link, packet)
    for order in "<>":
        yield Kind(f"ipv4 loopback {order}", lab.NULL, lab.loopback(2, V4, order))
        for family in (24, 28, 30):
            yield Kind(f"ipv6 loopback {family} {order}", lab.NULL, lab.loopback(family, V6, order))
    yield Kind("ipv4 loopback of OpenBSD", lab.LOOP, lab.loopback(2, V4, ">"))
    yield Kind("ipv6 loopback of OpenBSD", lab.LOOP, lab.loopback(24, V6, ">"))
    yield Kind("snap", lab.ETHERNET, lab.ethernet(len(V4.data) + 8, lab.opaque(SNAP + V4.data)))
    yield Kind("spanning tree", lab.ETHERNET, lab.ethernet(38, lab.opaque(b"\x42\x42\x03" + bytes(35))))
    yield Kind("cooked 802.2", lab.SLL, lab.sll(4, lab.opaque(b"\x42\x42\x03" + bytes(35))))


def _random_kinds(count: int) -> Iterator[Kind]:
    rng = random.Random(1990)
    for number in range(count):
        protocol, inner = rng.choice(
            [
                (TCP, lab.tcp(rng.getrandbits(16), rng.getrandbits(16), rng.getrandbits(12))),
                (UDP, lab.udp(rng.getrandbits(16), rng.getrandbits(16), bytes(rng.randrange(30)))),
                (ICMP, lab.icmp(rng.choice([0, 3, 5, 8, 11]), rng.randrange(16), bytes(32))),
                (132, lab.sctp(rng.getrandbits(16), rng.getrandbits(16))),
            ]
        )
        if rng.random() < 0.5:
            options = b"\x01" * (4 * rng.randrange(11))
            fragment = rng.choice([0, 0, 0x4000, MORE, MORE | rng.randrange(1, 0x1FFF), rng.randrange(1, 0x1FFF)])
            source, destination = (str(ipaddress.IPv4Address(rng.getrandbits(32))) for _ in range(2))
            kind, packet = 0x0800, lab.ipv4(protocol, inner, source, destination, options=options, fragment=fragment)
        else:
            for _ in range(rng.choice([0, 0, 1, 1, 2, 5])):
                match extension := rng.choice([OPTIONS, ROUTE, AH]):
                    case 60:
                        inner = lab.extension(protocol, inner, rng.randrange(1, 50))
                    case 43:
                        inner = lab.routing(protocol, inner, rng.randrange(4))
                    case _:
                        inner = lab.authentication(protocol, inner, rng.randrange(12) | 1)
                protocol = extension
            if rng.random() < 0.2:
                position = rng.choice([0, rng.randrange(1, 0x1FFF)])
                inner, protocol = lab.fragment6(protocol, inner, position, rng.random() < 0.5), FRAGMENT
            source, destination = (str(ipaddress.IPv6Address(rng.getrandbits(128))) for _ in range(2))
            kind, packet = 0x86DD, lab.ipv6(protocol, inner, source, destination)
        tags = [(rng.choice([0x8100, 0x88A8, 0x9100]), rng.getrandbits(16)) for _ in range(rng.choice([0, 0, 1, 2, 3]))]
        if len([kind for kind, _ in tags if kind == 0x88A8]) > 1:
            tags = tags[:1]  # tshark takes two of them for one
        link, frame = rng.choice([(lab.ETHERNET, lab.ethernet), (lab.SLL, lab.sll), (lab.SLL2, lab.sll2)])
        yield Kind(f"random {number}", link, frame(*lab.tagged(kind, *tags, inner=packet)))


KINDS = [*_kinds(), *_random_kinds(600)]
NAMED = {kind.name: number for number, kind in enumerate(KINDS)}


def cuts() -> Iterator[tuple[int, int]]:
    """Every kind, cut to every length that does not leave all its headers, and some that do."""
    for number, kind in enumerate(KINDS[: -len(KINDS) // 2]):
        whole = len(kind.packet.data)
        for length in range(min(whole, kind.packet.depth + 6)):
            if length < 150 or length > whole - 30:
                yield number, length


class Sample(NamedTuple):
    """A packet as captured: of which kind, and its first so many bytes."""

    kind: int
    packet: Packet


def _samples() -> list[Sample]:
    whole = [(number, len(kind.packet.data)) for number, kind in enumerate(KINDS)]
    return [
        Sample(kind, Packet(lab.BEGIN + at * 1_000_003, KINDS[kind].packet.data[:length], len(KINDS[kind].packet.data)))
        for at, (kind, length) in enumerate([*whole, *cuts()])
    ]


SAMPLES = _samples()
WHOLE = len(KINDS)
"""So many samples at the beginning are not cut."""


def mutations(count: int) -> Iterator[Kind]:
    """Packets of every kind with some bytes of their headers changed, mostly to what means something elsewhere."""
    rng = random.Random(2026)
    common = [0, 1, 4, 5, 6, 8, 17, 41, 44, 51, 58, 59, 60, 0x45, 0x60, 0x81, 0x86, 0x88, 0xDD, 0xFF]
    kinds = [kind for kind in KINDS if kind.link in (lab.ETHERNET, lab.SLL, lab.RAW)]
    for number in range(count):
        name, link, packet = rng.choice(kinds)
        data = bytearray(packet.data[: rng.choice([len(packet.data), packet.depth, rng.randrange(len(packet.data))])])
        for _ in range(rng.randrange(4)):
            if data:
                data[rng.randrange(min(len(data), packet.depth + 4))] = rng.choice([*common, rng.getrandbits(8)])
        yield Kind(f"{name} {number}", link, Piece(bytes(data)))
