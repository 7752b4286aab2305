"""Packets of every kind that an index knows, and of some that it does not, and expressions about them, at random.

Addresses, ports and tags are few, so that what is asked for is there. Layouts: RFC 791, 768, 793, 826, 8200,
IEEE 802.1Q, 802.3, pcap-linktype(7).
"""

from __future__ import annotations

import ipaddress
import struct
from random import Random

from agent.workers.retrieval.offline import Packet

ETHERNET, RAW, LINUX_SLL, LINUX_SLL2, NULL = 1, 101, 113, 276, 0

V4 = ("10.0.0.1", "10.0.0.2", "10.1.2.3", "192.168.7.1", "0.0.0.0")
V6 = ("fe80::1", "fe80::2", "2001:db8::7", "::1", "::10.0.0.1")
PORTS = (22, 53, 80, 443, 4789)
VLANS = (5, 7, 100)
TAGS = (0x8100, 0x88A8, 0x9100)
PROTOCOLS = (1, 2, 6, 17, 47, 50, 51, 58, 132, 33, 136, 89)
WORDS = ("ip", "ip6", "arp", "rarp", "tcp", "udp", "sctp", "icmp", "icmp6", "igmp", "esp", "ah", "pim")
EXTENSIONS = (0, 43, 44, 51, 60, 135)


def file_header(link_type: int = ETHERNET, snaplen: int = 262144) -> bytes:
    return struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, snaplen, link_type)


def record(packet: Packet) -> bytes:
    seconds, nanoseconds = divmod(packet.time, 1_000_000_000)
    return struct.pack("<IIII", seconds, nanoseconds, len(packet.data), packet.length) + packet.data


def transport(random: Random, protocol: int) -> bytes:
    if protocol in (6, 17, 132, 33, 136):
        ports = struct.pack("!HH", random.choice(PORTS), random.choice(PORTS))
        flags = random.choice((0x02, 0x12, 0x10, 0x11, 0x18))
        return ports + struct.pack("!IIBBHHH", 1, 1, 0x50, flags, 1024, 0, 0) + random.randbytes(random.choice((0, 9)))
    if protocol == 47:
        return struct.pack("!HH", 0, 0x0800) + ipv4(random)
    return random.randbytes(random.choice((0, 4, 8, 20)))


def ipv4(random: Random) -> bytes:
    protocol = random.choice(PROTOCOLS)
    options = random.choice((0, 0, 0, 4, 40))
    fragment = random.choice((0, 0, 0, 0x4000, 0x2000, 0x2005, 0x0007))
    source, destination = (ipaddress.IPv4Address(random.choice(V4)).packed for _ in range(2))
    body = transport(random, protocol)
    length = 20 + options + len(body)
    first = random.choice((*[0x45] * 8, 0x44, 0x65)) + options // 4
    return (
        struct.pack("!BBHHHBBH", first, 0, length, 1, fragment, 64, protocol, 0)
        + source
        + destination
        + bytes(options)
        + body
    )


def ipv6(random: Random) -> bytes:
    protocol = random.choice(PROTOCOLS)
    body = transport(random, protocol)
    for _ in range(random.choice((0, 0, 0, 1, 1, 2))):
        kind = random.choice(EXTENSIONS)
        if kind == 44:
            body = struct.pack("!BBHI", protocol, 0, random.choice((0, 1, 8, 0x101)), 7) + body
        else:
            body = struct.pack("!BBHI", protocol, 1 if kind == 51 else 0, 0, 0) + bytes(4 if kind == 51 else 0) + body
        protocol = kind
    source, destination = (ipaddress.IPv6Address(random.choice(V6)).packed for _ in range(2))
    first = random.choice((*[0x60000000] * 8, 0x40000000))
    return struct.pack("!IHBB", first, len(body), protocol, 64) + source + destination + body


def arp(random: Random) -> bytes:
    sender, target = (ipaddress.IPv4Address(random.choice(V4)).packed for _ in range(2))
    kind, lengths = random.choice(((0x0800, 0x0604), (0x0800, 0x0604), (0x0800, 0x0804), (0x86DD, 0x0604)))
    return struct.pack("!HHHH", 1, kind, lengths, random.choice((1, 2))) + bytes(6) + sender + bytes(6) + target


def payload(random: Random) -> tuple[int, bytes]:
    """An Ethernet type and what follows it."""
    match random.randrange(12):
        case 0 | 1 | 2 | 3:
            return 0x0800, ipv4(random)
        case 4 | 5 | 6:
            return 0x86DD, ipv6(random)
        case 7:
            return random.choice((0x0806, 0x8035)), arp(random)
        case 8:
            label = struct.pack("!I", 100 << 12 | 1 << 8 | 64)
            return random.choice(((0x8847, label + ipv4(random)), (0x8864, b"\x11\0\0\1\0\x30\0\x21" + ipv4(random))))
        case 9:
            return random.choice((0x0026, 0x05DC)), b"\xaa\xaa\x03\0\0\0\x08\0" + ipv4(random)
        case 10:
            return random.choice((0x88CC, 0x88B5, 0x0600)), random.randbytes(40)
        case _:
            return random.choice((0x0800, 0x86DD, 0x0806)), random.randbytes(random.randrange(60))


def frame(random: Random, link_type: int) -> bytes:
    ethertype, body = payload(random)
    for _ in range(random.choice((0, 0, 0, 0, 1, 1, 2, 3)) if link_type != RAW else 0):
        body = struct.pack("!HH", random.choice((0, 0xE000)) | random.choice(VLANS), ethertype) + body
        ethertype = random.choice(TAGS)
    match link_type:
        case 1:
            return random.randbytes(12) + struct.pack("!H", ethertype) + body
        case 113:
            return struct.pack("!HHH8sH", 0, 1, 6, b"\2\0\0\0\0\1\0\0", ethertype) + body
        case 276:
            return struct.pack("!HHIHBB8s", ethertype, 0, 3, 1, 0, 6, b"\2\0\0\0\0\1\0\0") + body
        case 0:
            return struct.pack("=I", random.choice((2, 10, 24, 28, 30))) + body
        case _:
            return body


def packets(random: Random, count: int, link_type: int = ETHERNET, begin: int = 0, step: int = 1000) -> list[Packet]:
    """So many packets, ``step`` nanoseconds apart; one in four is cut short, some without a byte left."""
    made = []
    for number in range(count):
        data = frame(random, link_type)
        length = max(1, len(data))
        if random.randrange(4) == 0:
            data = data[: random.randrange(len(data) + 1)]
        made.append(Packet(begin + number * step, length, data))
    return made


def primitive(random: Random) -> str:
    v4, v6, port, vlan = random.choice(V4), random.choice(V6), random.choice(PORTS), random.choice(VLANS)
    way = random.choice(("", "", "src ", "dst ", "src or dst ", "src and dst "))
    return random.choice(
        (
            f"{way}host {v4}",
            f"{way}host {v6}",
            f"{way or 'src '}{v4}",
            f"{random.choice(('ip', 'arp', 'rarp'))} {way}host {v4}",
            f"ip6 {way}host {v6}",
            f"{way}net {v4.rsplit('.', 1)[0]}",
            f"{way}net 10.0.0.0/{random.choice((8, 15, 28, 32))}",
            f"net 10.0.0.0 mask 255.{random.choice((0, 254, 255))}.0.0",
            "net 10",
            f"{way}net {random.choice(('fe80::/10', 'fe80::/64', '::/0', '2001:db8::/32', '::1/128'))}",
            "net 0.0.0.0/0",
            f"{way}port {port}",
            f"{random.choice(('tcp', 'udp', 'sctp'))} {way}port {port}",
            f"{way}portrange {port}-{port + random.choice((0, 1, 400))}",
            f"port {random.choice(('domain', 'http', 'ssh'))}",
            random.choice(WORDS),
            f"{random.choice(('ip ', 'ip6 ', ''))}proto {random.choice(PROTOCOLS)}",
            f"{random.choice(('ip ', 'ip6 '))}proto {random.choice(('gre', 'ospf', chr(92) + 'tcp', chr(92) + 'udp'))}",
            f"ether proto {random.choice(('0x0800', '0x88cc', '0x8100', '0x86dd', '2054', chr(92) + 'arp', '0x26'))}",
            random.choice(("vlan", f"vlan {vlan}", f"vlan {vlan}")),
            random.choice(
                (
                    "tcp[tcpflags] & (tcp-syn|tcp-ack) != 0",
                    "ip[8] = 64",
                    "ether[0] & 1 = 0",
                    "less 60",
                    "len >= 60",
                    "ip multicast",
                    "ether broadcast",
                    "mpls",
                    "mpls 100",
                    "pppoes",
                    "udp[0:2] = 53",
                    "(ip[0] & 15) * 4 = 20",
                    "ether host 2:0:0:0:0:1",
                )
            ),
            f"host ({v4} or {random.choice(V4)})",
            f"port not {port}",
        )
    )


def expression(random: Random, size: int = 3) -> str:
    """An expression of up to so many levels; libpcap may refuse it."""
    if size == 0:
        return primitive(random)
    match random.randrange(7):
        case 0:
            return f"{random.choice(('not', '!'))} ({expression(random, size - 1)})"
        case 1:
            return f"not {primitive(random)}"
        case 2:
            return f"port {random.choice(PORTS)} or {random.choice(PORTS)}"
        case 3:
            return f"src host {random.choice(V4)} or not {random.choice(V4)} and {random.choice(V6)}"
        case 4:
            return primitive(random)
        case _:
            word = random.choice(("and", "or", "&&", "||"))
            right = expression(random, size - 1)
            return f"{expression(random, size - 1)} {word} {random.choice((right, f'({right})'))}"
