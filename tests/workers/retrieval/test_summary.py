"""A packet in a few words: what tshark says of it too, and never a failure."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.workers.retrieval.summary import line, summary
from tests.workers.retrieval import traffic
from tests.workers.retrieval.stores import BEGIN, segment


@pytest.mark.parametrize("link_type", [traffic.ETHERNET, traffic.RAW, traffic.LINUX_SLL])
def test_addresses_and_ports_are_those_that_tshark_sees(tmp_path: Path, link_type: int) -> None:
    sent = [
        packet
        for packet in traffic.packets(Random(4), 2500, link_type, begin=BEGIN)
        if packet.length == len(packet.data)
    ]
    path = segment(tmp_path, "eth0", sent, link_type=link_type)
    ends = ["ip.src", "ip.dst", "ipv6.src", "ipv6.dst", "tcp.srcport", "tcp.dstport", "udp.srcport", "udp.dstport"]
    fields = [word for name in (*ends, "vlan.id") for word in ("-e", name)]
    # Of a fragment tshark shows ports when it has put it together, which is not asked for.
    options = ["-o", "ip.defragment:FALSE", "-o", "ipv6.defragment:FALSE", "-E", "occurrence=a"]
    command = ["tshark", "-n", "-r", str(path), "-T", "fields", *options, *fields]
    shown = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout
    compared = 0
    for packet, row in zip(sent, shown.splitlines(), strict=True):
        *cells, vlans = row.split("\t")
        v4_source, v4_target, v6_source, v6_target, *ports = (cell.split(",")[0] for cell in cells)
        told = summary(link_type, packet.data)
        whole = told["protocol"] in ("tcp", "udp") and "cut short" not in told.get("detail", "")
        if whole and (v4_source or v6_source) and told.get("source_port") is not None and any(ports):
            compared += 1
            assert (told["source"], told["destination"]) == (v4_source or v6_source, v4_target or v6_target)
            assert [str(told["source_port"]), str(told["destination_port"])] in (ports[:2], ports[2:])
            assert set(vlans.split(",")) - {""} <= set(map(str, told.get("vlans", [])))
    assert compared > 50


def frame(body: bytes, ethertype: int = 0x0800) -> bytes:
    return b"\2\0\0\0\0\2\2\0\0\0\0\1" + struct.pack("!H", ethertype) + body


def ipv4(protocol: int, body: bytes, fragment: int = 0) -> bytes:
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20, 0, fragment, 64, protocol, 0, b"\x0a\0\0\1", b"\x0a\0\0\2")
    return frame(head + body)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (ipv4(6, struct.pack("!HHIIBB", 4242, 443, 0, 0, 0x50, 0x12)), "10.0.0.1:4242 > 10.0.0.2:443 tcp SA"),
        (ipv4(17, struct.pack("!HH", 53, 53)), "10.0.0.1:53 > 10.0.0.2:53 udp"),
        (ipv4(17, b"", 0x2000 | 100), "10.0.0.1 > 10.0.0.2 udp fragment"),
        (ipv4(1, b"\x08\0"), "10.0.0.1 > 10.0.0.2 icmp echo request"),
        (ipv4(6, b"\x00"), "10.0.0.1 > 10.0.0.2 tcp cut short"),
        (ipv4(200, b""), "10.0.0.1 > 10.0.0.2 protocol 200"),
        (frame(struct.pack("!HH", 5, 0x88CC), 0x8100), "vlan 5 02:00:00:00:00:01 > 02:00:00:00:00:02 lldp"),
        (
            frame(bytes.fromhex("0001080006040002 020000000001 0a000001 000000000000 0a000002"), 0x0806),
            "10.0.0.1 > 10.0.0.2 arp is at 02:00:00:00:00:01",
        ),
        (b"", "? cut short"),
    ],
)
def test_a_packet_is_told_in_a_line(data: bytes, said: str) -> None:
    assert line(summary(1, data)) == said


@given(st.sampled_from([0, 1, 12, 101, 113, 276, 147]), st.integers(0, 2**32), st.binary(max_size=60))
def test_whatever_the_bytes_are_there_is_a_line(link_type: int, seed: int, junk: bytes) -> None:
    random = Random(seed)
    data = traffic.frame(random, link_type if link_type in (0, 1, 101, 113, 276) else 1)
    assert line(summary(link_type, data[: random.randrange(len(data) + 1)] + junk))


def test_it_goes_behind_the_headers_that_flows_go_behind_and_no_others() -> None:
    """Mobility (RFC 6275) and host identity (RFC 7401) are what a packet is about; loopback says what follows."""
    ends = bytes(15) + b"\x01" + bytes(15) + b"\x02"

    def packet(following: int, behind: bytes) -> bytes:
        return b"\x60\0\0\0" + len(behind).to_bytes(2, "big") + bytes((following, 64)) + ends + behind

    udp = bytes.fromhex("0035 1234 0008 0000")
    for protocol in (135, 139):
        assert summary(101, packet(protocol, bytes((17, 0)) + bytes(6) + udp))["protocol"] == f"protocol {protocol}"
    for extension in (0, 43, 60, 140):
        assert summary(101, packet(extension, bytes((17, 0)) + bytes(6) + udp))["source_port"] == 53
    for head in (b"\0\0\0\x1e", b"\x1e\0\0\0"):  # AF_INET6 of Darwin, in either byte order
        assert summary(0, head + packet(17, udp))["source_port"] == 53
    assert "source_port" not in summary(0, b"\x07\0\0\0" + packet(17, udp))
