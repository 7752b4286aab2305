"""Traffic that is made up: the same each time, what it claims to be, and numbered so that nothing can be missed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from bench import replay, traffic

COUNT, FLOWS = 20_000, 300
BEGIN = 1_795_183_200_000_000_000


def made(*, mixed: bool) -> traffic.Packets:
    return traffic.Flows(FLOWS, mixed=mixed).packets(COUNT, BEGIN, 1500.0)


def counted(file: Path, expression: str) -> int:
    """How many packets tcpdump finds."""
    done = subprocess.run(
        ["tcpdump", "-n", "-r", str(file), "--count", expression], check=True, capture_output=True, text=True
    )
    return int(re.findall(r"(\d+) packet", done.stdout)[-1])


@pytest.mark.parametrize("mixed", [False, True])
def test_tcpdump_reads_every_packet_as_what_it_is(tmp_path: Path, mixed: bool) -> None:
    file = tmp_path / "made.pcap"
    assert traffic.write(file, made(mixed=mixed)) == file.stat().st_size
    assert counted(file, "") == COUNT
    untagged, tagged = counted(file, "ip or ip6"), counted(file, f"vlan {traffic.VLAN} and (ip or ip6)")
    assert untagged + tagged == COUNT
    assert COUNT * 0.03 < tagged < COUNT * 0.2
    assert COUNT * 0.05 < counted(file, "ip6") < COUNT * 0.3
    # What the lengths in the headers say ends where the frame does.
    fits = "ip[2:2] = len - 14" if mixed else "ip[2:2] = 50"
    assert counted(file, f"ip and {fits}") == counted(file, "ip")
    assert counted(file, "ip6 and ip6[4:2] = len - 54") == counted(file, "ip6")
    assert counted(file, "udp and udp[4:2] = len - 34") == counted(file, "ip and udp")
    assert counted(file, "tcp or udp") == untagged
    assert (counted(file, "greater 1400") > 0) == mixed
    assert counted(file, "less 64") == (COUNT if not mixed else counted(file, "len = 64"))


@pytest.mark.parametrize("mixed", [False, True])
def test_it_is_the_same_each_time_and_read_back_as_it_was_written(tmp_path: Path, mixed: bool) -> None:
    one, other = made(mixed=mixed), made(mixed=mixed)
    assert np.array_equal(one.records, other.records)
    traffic.write(tmp_path / "made.pcap", one)
    read = traffic.read(tmp_path / "made.pcap")
    assert np.array_equal(read.starts, one.starts)
    assert np.array_equal(read.lengths, one.lengths)


def test_a_flow_is_found_by_its_host_and_port(tmp_path: Path) -> None:
    flows = traffic.Flows(FLOWS, mixed=True)
    traffic.write(tmp_path / "made.pcap", flows.packets(COUNT, BEGIN, 1500.0))
    for row in flows.table[(flows.table[:, traffic.IPV6] == 0) & (flows.table[:, traffic.TAGGED] == 0)][:5]:
        host, port = traffic.host(int(row[traffic.DESTINATION])), int(row[traffic.PORT])
        assert counted(tmp_path / "made.pcap", f"host {host} and port {port}") > COUNT / FLOWS / 3


def test_numbers_are_read_back_and_a_torn_frame_is_left_out(tmp_path: Path) -> None:
    packets = traffic.numbered(100)
    frames = replay.Frames(packets)
    frames.number(0x01020300, 100, 0)
    file = tmp_path / "numbered.pcap"
    traffic.write(file, traffic.Packets(frames.records, packets.starts, packets.lengths))
    assert np.array_equal(traffic.numbers(file), np.arange(0x01020300, 0x01020300 + 100))
    with file.open("r+b") as torn:
        torn.truncate(file.stat().st_size - 1)
    assert len(traffic.numbers(file)) == 99
    traffic.write(file, made(mixed=True))
    with pytest.raises(ValueError, match="not only frames of 64 bytes"):
        traffic.numbers(file)


def test_a_datagram_is_found_by_its_port(tmp_path: Path) -> None:
    traffic.write(tmp_path / "one.pcap", traffic.datagram(20_007))
    assert counted(tmp_path / "one.pcap", "udp dst port 20007") == 1
