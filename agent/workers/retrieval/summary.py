"""A packet in a few words, as far as its headers tell: for a person who looks, and for ``--json``. Pure.

This tells addresses, ports and flags; who wants more has Wireshark. Whatever the bytes are, it does not fail.
"""

from __future__ import annotations

import socket
import struct
from typing import Any

from agent.workers.retrieval.offline import Packet

_ETHERNET, _LINUX_SLL, _LINUX_SLL2, _RAW, _NULL = 1, 113, 276, (12, 14, 101, 228, 229), (0, 108)
_TAGS = (0x8100, 0x88A8, 0x9100)
_IPV4, _ARP, _RARP, _IPV6 = 0x0800, 0x0806, 0x8035, 0x86DD
_NAMES = dict(
    (
        *((1, "icmp"), (2, "igmp"), (6, "tcp"), (17, "udp"), (33, "dccp"), (47, "gre"), (50, "esp"), (51, "ah")),
        *((58, "icmp6"), (89, "ospf"), (112, "vrrp"), (132, "sctp"), (136, "udplite")),
    )
)
_TYPES = {0x88CC: "lldp", 0x8847: "mpls", 0x8848: "mpls", 0x8863: "pppoe", 0x8864: "pppoe", 0x888E: "eapol"}
_PORTED = (6, 17, 33, 132, 136)
_EXTENSIONS = (0, 43, 44, 51, 60, 135, 139, 140)
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
    place = {_ETHERNET: 14, _LINUX_SLL: 16, _LINUX_SLL2: 20}.get(link_type)
    if place is not None:
        (ethertype,) = struct.unpack_from("!H", data, 0 if link_type == _LINUX_SLL2 else place - 2)
        while ethertype in _TAGS:
            tag, ethertype = struct.unpack_from("!HH", data, place)
            told.setdefault("vlans", []).append(tag & 0xFFF)
            place += 4
    elif link_type in (*_RAW, *_NULL):
        place = 4 if link_type in _NULL else 0
        ethertype = {4: _IPV4, 6: _IPV6}.get(data[place] >> 4, 0)
    else:
        told["detail"] = f"link type {link_type}"
        return
    if ethertype in (_IPV4, _IPV6):
        _ip(ethertype, data, place, told)
    elif ethertype in (_ARP, _RARP):
        _arp(ethertype, data, place, told)
    else:
        told["protocol"] = _TYPES.get(ethertype, "llc" if ethertype < 0x600 else f"0x{ethertype:04x}")
        if link_type == _ETHERNET:
            told["source"], told["destination"] = _mac(data[6:12]), _mac(data[:6])


def _mac(octets: bytes) -> str:
    return octets.hex(":")


def _arp(ethertype: int, data: bytes, place: int, told: Summary) -> None:
    told["protocol"] = "arp" if ethertype == _ARP else "rarp"
    kind, sizes, operation = struct.unpack_from("!2xHHH", data, place)
    if (kind, sizes) != (_IPV4, 0x0604):
        return
    sender, target = (socket.inet_ntoa(data[place + at : place + at + 4]) for at in (14, 24))
    told["source"], told["destination"] = sender, target
    said = _OPERATIONS.get(operation, f"operation {operation}")
    told["detail"] = f"{said} {_mac(data[place + 8 : place + 14])}" if operation == 2 else said


def _ip(ethertype: int, data: bytes, place: int, told: Summary) -> None:
    if ethertype == _IPV4:
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
    while protocol in _EXTENSIONS:
        following, length, position = struct.unpack_from("!BBH", data, behind)
        size = 8 if protocol == 44 else (length + 2) * 4 if protocol == 51 else (length + 1) * 8
        if protocol == 44:
            fragmented = True
            if position & 0xFFF8:
                return following, behind + size, True, True
        protocol, behind = following, behind + size
    return protocol, behind, False, fragmented


def _transport(protocol: int, data: bytes, place: int, told: Summary) -> None:
    detail = [told["detail"]] if "detail" in told else []
    if protocol in _PORTED:
        told["source_port"], told["destination_port"] = struct.unpack_from("!HH", data, place)
        if protocol == 6:
            (flags,) = struct.unpack_from("!H", data, place + 12)
            told["tcp_flags"] = "".join(letter for bit, letter in enumerate(_FLAGS) if flags >> bit & 1)
    elif protocol in (1, 58):
        kind = data[place]
        detail.append((_ICMP if protocol == 1 else _ICMP6).get(kind, f"type {kind}"))
    if detail:
        told["detail"] = " ".join(detail)
