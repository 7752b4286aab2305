"""Packets of every kind are decoded as tshark decodes them, and what is too short for that says so."""

from __future__ import annotations

from typing import Any

import pytest

from agent.workers.index.model import ARP, ENCAPSULATED, EXTENDED, FRAGMENTED, IPV4, IPV6, LATER_FRAGMENT, ODD
from tests.workers.index import lab
from tests.workers.index.kinds import GRE, ICMP, KINDS, NAMED, OPTIONS, SAMPLES, TCP, UDP, V4, WHOLE, mutations
from tests.workers.index.lab import Packet, Piece
from tests.workers.index.truth import Row, compared, one, read, without


@pytest.mark.parametrize("name", [name for name in NAMED if not name.startswith("random")])
def test_a_packet_is_what_tshark_says(name: str, rows: list[Row], truth: list[Row]) -> None:
    row, said = compared(without(rows[NAMED[name]], ENCAPSULATED), truth[NAMED[name]])
    assert row == said
    assert set(said) >= {"time", "wire", "family", "vlan", "source_port"}


def test_packets_of_any_combination_are_what_tshark_says(rows: list[Row], truth: list[Row]) -> None:
    wrong = []
    for name, number in NAMED.items():
        row, said = compared(without(rows[number], ENCAPSULATED), truth[number])
        if row != said:
            wrong.append((name, {key: (row[key], said[key]) for key in row if row[key] != said[key]}))
    assert not wrong, wrong[:5]


def test_a_packet_that_is_cut_says_so_or_all(rows: list[Row]) -> None:
    """With one byte less than its headers have it is odd, with all of them it is what it was whole."""
    seen = 0
    for sample, row in zip(SAMPLES, rows, strict=True):
        kind, length = KINDS[sample.kind], len(sample.packet.data)
        if row["quirks"] & ODD:
            assert length < kind.packet.depth, (kind.name, length)
            seen += 1
        else:
            assert length >= kind.packet.depth, (kind.name, length)
            same = {**rows[sample.kind], "captured": length, "time": row["time"], "place": row["place"]}
            assert row == same, (kind.name, length)
    assert seen > 5000


def test_a_cut_packet_that_is_not_odd_contradicts_tshark_in_nothing(rows: list[Row], truth: list[Row]) -> None:
    for sample, row, said in zip(SAMPLES[WHOLE:], rows[WHOLE:], truth[WHOLE:], strict=True):
        if not row["quirks"] & ODD:
            if said["tcp_flags"] == 0:
                del said["tcp_flags"]  # tshark shows them when there is more of the header than they are in
            mine, its = compared(without(row, ENCAPSULATED), said)
            assert mine == its, (KINDS[sample.kind].name, len(sample.packet.data))


DAMAGED = {
    "ipv4 of version 6": lab.ethernet(0x0800, lab.ipv4(TCP, lab.tcp(), version=6)),
    "ipv4 of version 0": lab.ethernet(0x0800, lab.ipv4(TCP, lab.tcp(), version=0)),
    "ipv4 of a short header": lab.ethernet(0x0800, lab.ipv4(TCP, lab.tcp(), words=4)),
    "ipv4 of no header": lab.ethernet(0x0800, lab.ipv4(TCP, lab.tcp(), words=0)),
    "ipv4 of a header longer than it": lab.ethernet(0x0800, lab.ipv4(TCP, lab.tcp(), words=15)),
    "ipv6 of version 4": lab.ethernet(0x86DD, lab.ipv6(TCP, lab.tcp(), version=4)),
    "ipv6 of an extension longer than it": lab.ethernet(
        0x86DD, lab.ipv6(OPTIONS, Piece(bytes([TCP, 255]) + bytes(30)))
    ),
    "arp of IEEE 802 with addresses of 8 bytes": lab.ethernet(0x0806, lab.arp(length=8)),
    "arp of AX.25": lab.ethernet(0x0806, lab.arp(hardware=3, length=7)),
    "arp of an operation that nobody knows": lab.ethernet(0x0806, lab.arp(256 + 1)),
    "nine tags": lab.ethernet(*lab.tagged(0x0800, *[(0x8100, 1)] * 9, inner=V4)),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_makes_no_sense_is_odd(name: str) -> None:
    assert one(lab.ETHERNET, DAMAGED[name])["quirks"] & ODD


def test_of_extension_headers_there_may_be_so_many() -> None:
    for count in range(16):
        inner, protocol = lab.udp(), UDP
        for _ in range(count):
            inner, protocol = lab.extension(protocol, inner), OPTIONS
        row = one(lab.ETHERNET, lab.ethernet(0x86DD, lab.ipv6(protocol, inner)))
        assert row["quirks"] == (ODD | EXTENDED if count > 12 else EXTENDED if count else 0)
        assert row["family"] == IPV6


def test_arp_of_other_hardware_with_the_same_addresses_is_arp() -> None:
    """Infiniband has longer ones; Fibre Channel, for one, has these: RFC 4338."""
    row = one(lab.ETHERNET, lab.ethernet(0x0806, lab.arp(hardware=18)))
    assert (row["family"], row["source"], row["destination"]) == (ARP, ["10.1.2.3"], ["10.1.2.4"])


PRIMITIVES: dict[str, Any] = {
    "ip": lambda row: row["ethertype"] == 0x0800,
    "ip6": lambda row: row["ethertype"] == 0x86DD,
    "arp": lambda row: row["ethertype"] == 0x0806,
    "rarp": lambda row: row["ethertype"] == 0x8035,
    "tcp": lambda row: row["family"] in (IPV4, IPV6) and row["protocol"] == TCP,
    "udp": lambda row: row["family"] in (IPV4, IPV6) and row["protocol"] == UDP,
    "icmp": lambda row: row["family"] == IPV4 and row["protocol"] == ICMP,
    "ip proto 47": lambda row: row["family"] == IPV4 and row["protocol"] == GRE,
    "host 10.1.2.3": lambda row: ["10.1.2.3"] in (row["source"], row["destination"]),
    "src net 10.0.0.0/8": lambda row: row["family"] in (IPV4, ARP) and row["source"][0].startswith("10."),
    "dst host fe80::ffff:1": lambda row: row["destination"] == ["fe80::ffff:1"],
    "src port 40000": lambda row: _ported(row) and row["source_port"] == 40000,
    "dst port 443 or dst port 9": lambda row: _ported(row) and row["destination_port"] in (443, 9),
    "ip and tcp[tcpflags] & tcp-syn != 0": lambda row: (
        row["family"] == IPV4 and row["protocol"] == TCP and row["tcp_flags"] & 2 != 0
    ),
    "icmp[icmptype] = icmp-echo": lambda row: (
        row["family"] == IPV4 and row["protocol"] == ICMP and _first(row) and row["source_port"] == 8
    ),
    "ip[6:2] & 0x3fff != 0": lambda row: row["family"] == IPV4 and row["quirks"] & FRAGMENTED != 0,
    "ip[6:2] & 0x1fff != 0": lambda row: row["family"] == IPV4 and not _first(row),
}


def _first(row: Row) -> bool:
    return not row["quirks"] & LATER_FRAGMENT


def _ported(row: Row) -> bool:
    return row["family"] in (IPV4, IPV6) and row["protocol"] in (TCP, UDP, 132) and _first(row)


def test_libpcap_finds_in_packets_what_the_index_says_of_them() -> None:
    """A filter that an index answers is then the same filter: for all that it is sure of, damaged packets included.

    libpcap itself does not follow extension headers, nor looks behind tags unless asked to.
    """
    kinds = list(mutations(4000))
    found = 0
    for link in {kind.link for kind in kinds}:
        packets = [Packet(lab.BEGIN, kind.packet.data, 9000) for kind in kinds if kind.link == link]
        sure = [
            (packet, row)
            for packet, row in zip(packets, read(link, packets), strict=True)
            if not row["quirks"] & (ODD | EXTENDED | ENCAPSULATED)
        ]
        assert len(sure) > len(packets) / 3
        for depth in range(4 if link == lab.ETHERNET else 1):
            for primitive, answer in PRIMITIVES.items():
                expression = "vlan and " * depth + f"({primitive})"
                for (packet, row), passed in zip(
                    sure, lab.passes(link, expression, [packet for packet, _ in sure]), strict=True
                ):
                    assert passed == (row["tags"] == depth and answer(row)), (link, expression, row, packet.data.hex())
                    found += passed
    assert found > 3000
