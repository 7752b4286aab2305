"""What an expression means of flows: held against tcpdump, packet for packet."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from agent.errors import UsageError
from agent.workers.flows.choice import Choice
from agent.workers.flows.records import Effort, Within
from tests.workers.flows import traffic
from tests.workers.flows.test_records import ALL, flows
from tests.workers.flows.traffic import NOON, SECOND, Packet

EXPRESSIONS = [
    "tcp",
    "host 192.0.2.1",
    "src net 10.0.1.0/24 and dst port 443",
    "ip6 and not icmp6",
    "arp or udp port 53",
    "vlan 7",
    "vlan and host 2001:db8::35",
    "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0",
    "greater 400",
    "udp and less 90",
    "icmp[icmptype] = icmp-echo or (tcp port 80 and greater 200)",
    "not tcp",
    "ether broadcast",
    "host 203.0.113.1",
]


def tcpdump(path: Path, expression: str) -> int:
    """How many packets match."""
    done = subprocess.run(
        ["tcpdump", "-n", "-r", str(path), "-w", "-", expression], check=True, capture_output=True, timeout=20
    )
    return len(records_of(done.stdout))


def records_of(data: bytes) -> list[int]:
    """Where records begin."""
    import struct

    places, place = [], 24
    while place < len(data):
        places.append(place)
        place += 16 + struct.unpack_from("=I", data, place + 8)[0]
    return places


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A store, half of it without an index, and one file of all its packets."""
    place = tmp_path_factory.mktemp("choice")
    packets = traffic.mixed(50, 150)
    half = len(packets) // 2
    traffic.store(place / "edge", "eth0", [packets[:half]])
    traffic.store(place / "edge", "eth0", [packets[half:]], indexed=False)
    whole = place / "whole.pcap"
    whole.write_bytes(traffic.savefile(packets))
    return place / "edge", whole


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_as_many_packets_count_as_tcpdump_finds(stored: tuple[Path, Path], expression: str) -> None:
    store, whole = stored
    found = flows(store, choice=Choice(expression))
    assert sum(line.packets for line in found) == tcpdump(whole, expression)


def test_a_span_and_an_expression_cut_at_the_same_packets(stored: tuple[Path, Path]) -> None:
    store, _ = stored
    every = traffic.mixed(50, 150)
    within = Within(every[100].time, every[300].time)
    wanted = [packet for packet in every[100:301] if len(packet.frame) >= 200]
    found = flows(store, within, choice=Choice("greater 200"))
    assert sum(line.packets for line in found) == len(wanted)
    assert sum(line.bytes for line in found) == sum(len(packet.frame) for packet in wanted)
    assert (min(line.start_ns for line in found), max(line.end_ns for line in found)) == (
        wanted[0].time,
        wanted[-1].time,
    )


def test_where_the_index_is_certain_no_packet_is_read(tmp_path: Path) -> None:
    packets = traffic.mixed(51, 60)
    (path,) = traffic.store(tmp_path, "eth0", [packets])
    expected = flows(tmp_path, choice=Choice("host 192.0.2.53 and udp port 53"))
    path.write_bytes(path.read_bytes()[:24].ljust(path.stat().st_size, b"\0"))
    assert expected == flows(tmp_path, choice=Choice("host 192.0.2.53 and udp port 53")) != []


@pytest.mark.parametrize("magic", [b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\xc3\xd4"], ids=["little", "big"])
def test_other_byte_orders_and_microseconds_make_no_difference(tmp_path: Path, magic: bytes) -> None:
    import struct

    packets = [
        Packet(NOON + number * SECOND, traffic.udp("10.0.0.1", 1, "10.0.0.2", 2, number * 100)) for number in range(9)
    ]
    (path,) = traffic.store(tmp_path, "eth0", [packets], indexed=False)
    order = "<" if magic[0] == 0xD4 else ">"
    data = magic + struct.pack(order + "HHiIII", 2, 4, 0, 0, 65535, 1)
    for time, frame in packets:
        data += struct.pack(order + "IIII", time // SECOND, time % SECOND // 1000, len(frame), len(frame)) + frame
    path.write_bytes(data)
    (line,) = flows(tmp_path, choice=Choice("greater 400"))
    assert (line.packets, line.start_ns) == (5, NOON + 4 * SECOND)


def test_what_libpcap_refuses_is_refused_with_its_words() -> None:
    with pytest.raises(UsageError, match=r'^filter "tcp prot 443": syntax error at "prot" \(column 5\)$'):
        Choice("tcp prot 443").check()
    with pytest.raises(UsageError, match="protochain follows the headers"):
        Choice("ip6 protochain 6")


def test_a_file_that_is_cut_short_meanwhile_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from agent.workers.flows import records

    frame = traffic.udp("10.0.0.1", 1, "10.0.0.2", 2, 100)
    packets = [Packet(NOON + second * SECOND, frame) for second in range(100)]
    (path,) = traffic.store(tmp_path, "eth0", [packets])
    real = records.indexes

    def cut_after(*given: Any) -> object:
        found = real(*given)
        os.truncate(path, 24 + 50 * (16 + len(frame)) + 7)
        return found

    monkeypatch.setattr(records, "indexes", cut_after)
    (line,) = flows(tmp_path, choice=Choice("greater 60"))
    assert line.packets == 50


def test_a_record_that_makes_no_sense_any_more_is_named(tmp_path: Path) -> None:
    packets = [Packet(NOON + number, traffic.udp("10.0.0.1", 1, "10.0.0.2", 2)) for number in range(9)]
    (path,) = traffic.store(tmp_path, "eth0", [packets])
    data = bytearray(path.read_bytes())
    place = records_of(bytes(data))[4]
    data[place + 8 : place + 12] = b"\x10\x00\x00\x00"  # shorter: what follows is in the middle of a packet
    path.write_bytes(data)
    effort = Effort()
    found = flows(tmp_path, ALL, effort, choice=Choice("greater 1"))
    assert sum(line.packets for line in found) <= 9
    data[place + 8 : place + 12] = b"\xff\xff\xff\x7f"
    path.write_bytes(data)
    assert sum(line.packets for line in flows(tmp_path, ALL, effort, choice=Choice("greater 1"))) == 8
