"""The same packets in the words of the index, as tshark has them and as the index has them."""

from __future__ import annotations

import ipaddress
from typing import Any

from agent.workers.index import headers
from agent.workers.index.headers import MARGIN
from agent.workers.index.model import ARP, EXTENDED, FRAGMENTED, IPV4, IPV6, LATER_FRAGMENT, OTHER, SYN_ACK
from agent.workers.index.records import Order, find
from tests.workers.index import lab
from tests.workers.index.kinds import (
    AH,
    FRAGMENT,
    HOP,
    ICMP,
    ICMP6,
    KINDS,
    OPTIONS,
    ROUTE,
    SHIM6,
    TCP,
    UDP,
    Sample,
)
from tests.workers.index.lab import Packet, Piece

_NEXT = {
    HOP: "ipv6.hopopts.nxt",
    ROUTE: "ipv6.routing.nxt",
    FRAGMENT: "ipv6.fraghdr.nxt",
    OPTIONS: "ipv6.dstopts.nxt",
    AH: "ah.next_header",
    SHIM6: "shim6.nxt",
}
_PORTS = {TCP: "tcp", UDP: "udp", 136: "udp", 132: "sctp", 33: "dccp"}
FIELDS = [
    *("frame.time_epoch", "frame.len", "frame.cap_len", "frame.protocols"),
    *("eth.type", "sll.etype", "vlan.id", "vlan.etype", "ieee8021ad.id"),
    *("ip.src", "ip.dst", "ip.proto", "ip.flags.mf", "ip.frag_offset", "ipv6.src", "ipv6.dst", "ipv6.nxt"),
    *("ipv6.fraghdr.offset", *_NEXT.values()),
    *("arp.opcode", "arp.src.proto_ipv4", "arp.dst.proto_ipv4"),
    *("tcp.flags", "icmp.type", "icmp.code", "icmpv6.type", "icmpv6.code"),
    *(f"{name}.{end}" for name in ("tcp", "udp", "sctp", "dccp") for end in ("srcport", "dstport")),
]

Row = dict[str, Any]


def told(found: dict[str, list[str]]) -> Row:
    """What tshark says of a packet, in the words of the index. What it does not say is not in it."""

    def number(name: str) -> int | None:
        return int(found[name][0], 0) if found[name] else None

    time, fraction = found["frame.time_epoch"][0].split(".")
    row: Row = {
        "time": int(time) * lab.SECOND + int(fraction),
        "wire": number("frame.len"),
        "captured": number("frame.cap_len"),
    }
    layers = found["frame.protocols"][0].split(":") if found["frame.protocols"] else []
    ids = {"vlan": iter(found["vlan.id"]), "ieee8021ad": iter(found["ieee8021ad.id"])}
    tags = []
    while layers and layers[0] in ("eth", "ethertype", "sll", "null", "raw", *ids):
        layer = layers.pop(0)
        if layer in ids:
            tags.append(int(next(ids[layer], "-1")))
    vlans = [tag for tag in tags if tag >= 0]
    row |= {"tags": len(vlans), "vlan": [*vlans, 0][0], "inner_vlan": [*vlans, 0, 0][1]}
    network = layers[0] if layers else ""
    types = [int(kind, 0) for kind in found["eth.type"] + found["sll.etype"] + found["vlan.etype"]]
    if types and (len(types) > len(vlans) or types[-1] not in (0x8100, 0x88A8, 0x9100)):
        row["ethertype"] = types[-1]
    row["family"] = {"ip": IPV4, "ipv6": IPV6, "arp": ARP}.get(network, OTHER)
    if network == "arp":
        row |= {"protocol": number("arp.opcode"), "quirks": 0}
        row |= {"source": found["arp.src.proto_ipv4"][:1], "destination": found["arp.dst.proto_ipv4"][:1]}
    elif network == "ip":
        row |= {"protocol": number("ip.proto"), "source": found["ip.src"][:1], "destination": found["ip.dst"][:1]}
        later = bool(number("ip.frag_offset"))
        row["quirks"] = (later or found["ip.flags.mf"][:1] == ["1"]) * FRAGMENTED | later * LATER_FRAGMENT
    elif network == "ipv6":
        following = {kind: iter(found[name]) for kind, name in _NEXT.items()}
        protocol, chain = number("ipv6.nxt"), []
        later = False
        while protocol in following and not later:
            chain.append(protocol)
            protocol = int(next(following[protocol], "255"))
            later = chain[-1] == FRAGMENT and number("ipv6.fraghdr.offset") != 0
        row |= {"protocol": protocol, "source": found["ipv6.src"][:1], "destination": found["ipv6.dst"][:1]}
        fragment = FRAGMENT in chain
        row["quirks"] = bool(chain) * EXTENDED | fragment * FRAGMENTED | later * LATER_FRAGMENT
    row |= {"source_port": 0, "destination_port": 0, "tcp_flags": 0}
    if network in ("ip", "ipv6") and not row["quirks"] & LATER_FRAGMENT:
        protocol = row["protocol"]
        if protocol in _PORTS:
            name = _PORTS[protocol]
            row |= {"source_port": number(f"{name}.srcport"), "destination_port": number(f"{name}.dstport")}
        elif protocol in (ICMP, ICMP6):
            name = {ICMP: "icmp", ICMP6: "icmpv6"}[protocol]
            row |= {"source_port": number(f"{name}.type"), "destination_port": number(f"{name}.code")}
        if protocol == TCP:
            flags = (number("tcp.flags") or 0) & 0x1FF
            row["tcp_flags"] = flags | (SYN_ACK if flags & 0x12 == 0x12 else 0)
    return row


def read(link: int, packets: list[Packet]) -> list[Row]:
    """What the index says of packets of one link type, in either byte order."""
    order: Order = "<" if link % 2 else ">"
    data = lab.savefile(link, packets, order)[24:]
    places = find(data, len(data), order).places
    assert len(places) == len(packets)
    found = headers.read(data + b"\xa5" * MARGIN, places, order, 1, link)
    return [as_row(found, at) for at in range(len(places))]


def decoded(samples: list[Sample]) -> list[Row]:
    rows: dict[int, Row] = {}
    for link in {KINDS[sample.kind].link for sample in samples}:
        mine = [at for at, sample in enumerate(samples) if KINDS[sample.kind].link == link]
        rows |= zip(mine, read(link, [samples[at].packet for at in mine]), strict=True)
    return [rows[at] for at in range(len(samples))]


def one(link: int, frame: Piece) -> Row:
    (row,) = read(link, [Packet(lab.BEGIN, frame.data, 9000)])
    return row


def as_row(packets: headers.Packets, at: int) -> Row:
    row: Row = {}
    for name in packets.__slots__:
        column = getattr(packets, name)
        row[name] = 0 if column is None else int(column[at])
    for name in ("source", "destination"):
        address = row.pop(f"{name}_high") << 64 | row[name]
        match row["family"]:
            case 6:
                row[name] = [str(ipaddress.IPv6Address(address))]
            case 2 | 4:
                row[name] = [str(ipaddress.IPv4Address(address))]
            case _:
                assert address == 0
    return row


def without(row: Row, quirk: int) -> Row:
    return {**row, "quirks": row["quirks"] & ~quirk}


def compared(row: Row, truth: Row) -> tuple[Row, Row]:
    """Both, as far as tshark says anything."""
    said = {name: value for name, value in truth.items() if value is not None and value != []}
    return {name: row[name] for name in said}, said


def address_as_number(row: Row) -> Row:
    """As tables have it."""
    numbers = {name: int(ipaddress.ip_address(row[name][0])) if row[name] else 0 for name in ("source", "destination")}
    return {**row, **numbers}
