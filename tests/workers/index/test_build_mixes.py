"""On traffic as it is: the sums are those of nfdump and of tshark, and the index is small."""

from __future__ import annotations

import ipaddress
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from agent.workers.index import form
from agent.workers.index.model import SYN_ACK, Chunk
from tests.workers.index import lab, mixes
from tests.workers.index.mixes import heavy_tailed, mix
from tests.workers.index.tables import whole

_FLAGS = dict(zip("CEUAPRSF", (0x80, 0x40, 0x20, 0x10, 0x08, 0x04, 0x02, 0x01), strict=True))

_ETHERNET_HEADER = 14
"""Bytes that nfdump does not count."""

Tuple = tuple[str, str, int, int, int]
Totals = dict[Tuple, tuple[int, int, int]]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mixes") / "file.pcap"
    path.write_bytes(mix(4000, 0.3, heavy_tailed(40), mixes.imix))
    return path


def totals(chunk: Chunk) -> Totals:
    """Packets, octets and flags of TCP, by addresses, ports and protocol."""
    table = chunk.flows
    addresses = [ipaddress.ip_address(int(high) << 64 | int(low)) for high, low in table.addresses]
    found: Totals = {}
    for row in range(len(table)):
        ends = str(addresses[table.source[row]]), str(addresses[table.destination[row]])
        key = *ends, int(table.source_port[row]), int(table.destination_port[row]), int(table.protocol[row])
        assert key not in found
        flags = int(table.tcp_flags[row]) & ~SYN_ACK
        found[key] = int(table.packets[row]), int(table.octets[row]), flags
    return found


def test_totals_of_flows_are_those_of_nfdump(file: Path, tmp_path: Path) -> None:
    subprocess.run(["nfpcapd", "-r", str(file), "-l", str(tmp_path)], check=True, capture_output=True, timeout=30)
    done = subprocess.run(
        ["nfdump", "-R", str(tmp_path), "-o", "fmt:%sa %da %sp %dp %pr %pkt %byt %flg", "-N", "-q", "-6"],
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    )
    theirs: Totals = {}
    for line in done.stdout.splitlines():
        source, destination, *numbers, flags = line.split()
        source_port, destination_port, protocol, packets, octets = map(int, numbers)
        key = source, destination, source_port, destination_port, protocol
        before = theirs.get(key, (0, 0, 0))  # it begins another flow when one was silent for long
        seen = sum(_FLAGS[flag] for flag in flags if flag != ".")
        theirs[key] = before[0] + packets, before[1] + octets + packets * _ETHERNET_HEADER, before[2] | seen
    assert totals(whole(file.read_bytes())) == theirs
    assert len(theirs) > 150


def test_totals_of_flows_are_those_of_tshark(file: Path) -> None:
    network = (("ip.src", "ipv6.src"), ("ip.dst", "ipv6.dst"), ("ip.proto", "ipv6.nxt"))
    ports = (("tcp.srcport", "udp.srcport"), ("tcp.dstport", "udp.dstport"))
    counts: Counter[Tuple] = Counter()
    octets: Counter[Tuple] = Counter()
    for packet in lab.tshark(file, ["frame.len", *(field for pair in network + ports for field in pair)]):
        source, destination, protocol, *numbers = ([*packet[one], *packet[other]][0] for one, other in network + ports)
        key = source, destination, int(numbers[0]), int(numbers[1]), int(protocol)
        counts[key] += 1
        octets[key] += int(packet["frame.len"][0])
    mine = totals(whole(file.read_bytes()))
    assert {key: (packets, length) for key, (packets, length, _) in mine.items()} == {
        key: (counts[key], octets[key]) for key in counts
    }


MIXES = {
    "sizes of IMIX, 40 packets a flow": (0.3, heavy_tailed(40), mixes.imix),
    "sizes of IMIX, 20 packets a flow, every other a lookup": (0.5, heavy_tailed(20), mixes.imix),
    "downloads": (0.4, heavy_tailed(60), mixes.download),
    "short downloads and lookups": (0.6, heavy_tailed(15), mixes.download),
    "calls": (0.0, lambda rng: 2000, mixes.calls),
}


@pytest.mark.parametrize("name", MIXES)
def test_an_index_takes_less_than_a_twentieth_of_the_packets(name: str) -> None:
    data = mix(8000, *MIXES[name])
    assert len(form.encode(whole(data))) < len(data) / 20
