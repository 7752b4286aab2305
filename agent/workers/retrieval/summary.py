"""A packet in a few words, as far as its headers tell: for a person who looks, and for ``--json``. Pure.

This tells addresses, ports and flags; who wants more has Wireshark. Whatever the bytes are, it does not fail.
"""

from __future__ import annotations

import socket
import struct
from typing import Any

from agent.workers.index.numbers import (
    AF_INET,
    AF_INET6,
    ARP,
    AUTHENTICATION,
    ETHERNET,
    EXTENSIONS,
    FRAGMENT,
    ICMP,
    ICMPV6,
    IPV4,
    IPV4_ONLY,
    IPV6,
    IPV6_ONLY,
    LINUX_SLL,
    LINUX_SLL2,
    LLDP,
    LOOP,
    MOST_EXTENSIONS,
    MOST_TAGS,
    NULL,
    PORTED,
    RARP,
    RAW,
    RAW_OLD,
    SHORTEST_ETHERTYPE,
    TAGS,
    TCP,
)
from agent.workers.retrieval.offline import Packet

_RAW = (RAW, *RAW_OLD, IPV4_ONLY, IPV6_ONLY)
_NAMES = dict(
    (
        *((1, "icmp"), (2, "igmp"), (6, "tcp"), (17, "udp"), (33, "dccp"), (47, "gre"), (50, "esp"), (51, "ah")),
        *((58, "icmp6"), (89, "ospf"), (112, "vrrp"), (132, "sctp"), (136, "udplite")),
    )
)
_TYPES = {LLDP: "lldp", 0x8847: "mpls", 0x8848: "mpls", 0x8863: "pppoe", 0x8864: "pppoe", 0x888E: "eapol"}
_FLAGS = "FSRPAUECN"  # from the lowest bit on: RFC 9293, the last of RFC 3540
_ICMP = {0: "echo reply", 3: "unreachable", 5: "redirect", 8: "echo request", 11: "time exceeded"}
_ICMP6 = dict(
    (
        *((1, "unreachable"), (2, "packet too big"), (3, "time exceeded"), (128, "echo request"), (129, "echo reply")),
        *((133, "router solicitation"), (134, "router advertisement"), (135, "neighbour solicitation")),
        (136, "neighbour advertisement"),
    )
)
_OPERATIONS = {1: "who has", 2: "is at"}

Summary = dict[str, Any]


def summary(link_type: int, data: bytes) -> Summary:
    """What the headers of a packet say: ``protocol`` always, and what of ``source``, ``destination``, ``source_port``,
    ``destination_port``, ``vlans``, ``tcp_flags`` and ``detail`` there is.
    """
    told: Summary = {"protocol": "?"}
    try:
        _link(link_type & 0xFFFF, data, told)
    except (struct.error, IndexError, ValueError, OSError):  # it ends before its headers do
        told["detail"] = " ".join(filter(None, (told.get("detail"), "cut short")))
    return told


def document(service: str, interface: str, link_type: int, packet: Packet) -> Summary:
    """A packet as JSON says it."""
    return {
        "time": packet.time / 1e9,
        "service": service,
        "interface": interface,
        "length": packet.length,
        "captured": len(packet.data),
        **summary(link_type, packet.data),
    }


def line(told: Summary) -> str:
    """The same as one line: ``10.0.0.1:4242 > 10.0.0.2:443 tcp S``."""
    ends = " > ".join(
        _end(told[end], told.get(f"{end}_port")) for end in ("source", "destination") if told.get(end) is not None
    )
    tags = "".join(f"vlan {vlan} " for vlan in told.get("vlans", ()))
    flags = told["tcp_flags"] or "none" if "tcp_flags" in told else None
    return tags + " ".join(filter(None, (ends, told["protocol"], flags, told.get("detail"))))


def _end(address: str, port: int | None) -> str:
    if port is None:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _link(link_type: int, data: bytes, told: Summary) -> None:
    place = {ETHERNET: 14, LINUX_SLL: 16, LINUX_SLL2: 20}.get(link_type)
    if place is not None:
        (ethertype,) = struct.unpack_from("!H", data, 0 if link_type == LINUX_SLL2 else place - 2)
        for _ in range(MOST_TAGS):
            if ethertype not in TAGS:
                break
            tag, ethertype = struct.unpack_from("!HH", data, place)
            told.setdefault("vlans", []).append(tag & 0xFFF)
            place += 4
    elif link_type in _RAW:
        place, ethertype = 0, {4: IPV4, 6: IPV6}.get(data[0] >> 4, 0)
    elif link_type in (NULL, LOOP):
        place, ethertype = 4, _family(link_type, data)
    else:
        told["detail"] = f"link type {link_type}"
        return
    if ethertype in (IPV4, IPV6):
        _ip(ethertype, data, place, told)
    elif ethertype in (ARP, RARP):
        _arp(ethertype, data, place, told)
    else:
        told["protocol"] = _TYPES.get(ethertype, "llc" if ethertype < SHORTEST_ETHERTYPE else f"0x{ethertype:04x}")
        if link_type == ETHERNET:
            told["source"], told["destination"] = _mac(data[6:12]), _mac(data[:6])


def _family(link_type: int, data: bytes) -> int:
    """What a loopback header says that follows: in the byte order of the host that captured, or that of the network."""
    (family,) = struct.unpack_from("!I" if link_type == LOOP else "=I", data)
    if link_type == NULL and family > 0xFFFF:
        (family,) = struct.unpack(">I", struct.pack("<I", family))
    return IPV4 if family == AF_INET else IPV6 if family in AF_INET6 else 0


def _mac(octets: bytes) -> str:
    return octets.hex(":")


def _arp(ethertype: int, data: bytes, place: int, told: Summary) -> None:
    told["protocol"] = "arp" if ethertype == ARP else "rarp"
    kind, sizes, operation = struct.unpack_from("!2xHHH", data, place)
    if (kind, sizes) != (IPV4, 0x0604):
        return
    sender, target = (socket.inet_ntoa(data[place + at : place + at + 4]) for at in (14, 24))
    told["source"], told["destination"] = sender, target
    said = _OPERATIONS.get(operation, f"operation {operation}")
    told["detail"] = f"{said} {_mac(data[place + 8 : place + 14])}" if operation == 2 else said


def _ip(ethertype: int, data: bytes, place: int, told: Summary) -> None:
    if ethertype == IPV4:
        protocol, fragment = data[place + 9], struct.unpack_from("!H", data, place + 6)[0]
        told["source"], told["destination"] = (socket.inet_ntoa(data[place + at : place + at + 4]) for at in (12, 16))
        behind, later = place + (data[place] & 15) * 4, bool(fragment & 0x1FFF)
        fragmented = bool(fragment & 0x3FFF)
    else:
        told["source"], told["destination"] = (
            socket.inet_ntop(socket.AF_INET6, data[place + at : place + at + 16]) for at in (8, 24)
        )
        protocol, behind, later, fragmented = _behind_extensions(data, place)
    told["protocol"] = _NAMES.get(protocol, f"protocol {protocol}")
    if fragmented:
        told["detail"] = "fragment"
    if not later:
        _transport(protocol, data, behind, told)


def _behind_extensions(data: bytes, place: int) -> tuple[int, int, bool, bool]:
    protocol, behind, fragmented = data[place + 6], place + 40, False
    for _ in range(MOST_EXTENSIONS):
        if protocol not in EXTENSIONS:
            break
        following, length, position = struct.unpack_from("!BBH", data, behind)
        size = 8 if protocol == FRAGMENT else (length + 2) * 4 if protocol == AUTHENTICATION else (length + 1) * 8
        if protocol == FRAGMENT:
            fragmented = True
            if position & 0xFFF8:
                return following, behind + size, True, True
        protocol, behind = following, behind + size
    return protocol, behind, False, fragmented


def _transport(protocol: int, data: bytes, place: int, told: Summary) -> None:
    detail = [told["detail"]] if "detail" in told else []
    if protocol in PORTED:
        told["source_port"], told["destination_port"] = struct.unpack_from("!HH", data, place)
        if protocol == TCP:
            (flags,) = struct.unpack_from("!H", data, place + 12)
            told["tcp_flags"] = "".join(letter for bit, letter in enumerate(_FLAGS) if flags >> bit & 1)
    elif protocol in (ICMP, ICMPV6):
        kind = data[place]
        detail.append((_ICMP if protocol == ICMP else _ICMP6).get(kind, f"type {kind}"))
    if detail:
        told["detail"] = " ".join(detail)
