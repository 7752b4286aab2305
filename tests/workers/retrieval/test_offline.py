"""libpcap's filter over bytes of a file: what tcpdump lets pass, and nothing else."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import StorageFailure, UsageError
from agent.workers.capture.savefile import FILE_HEADER, RECORD_HEADER
from agent.workers.retrieval.offline import WINDOW, Damaged, Filter, Packet, packets

SECOND = 1_000_000_000


def header(order: str = "=", *, unit: int = 1, link_type: int = 1) -> bytes:
    return struct.pack(order + "IHHiIII", 0xA1B23C4D if unit == 1 else 0xA1B2C3D4, 2, 4, 0, 0, 262144, link_type)


def record(packet: Packet, order: str = "=", *, unit: int = 1) -> bytes:
    seconds, fraction = divmod(packet.time, SECOND)
    return struct.pack(order + "IIII", seconds, fraction // unit, len(packet.data), packet.length) + packet.data


def datagram(port: int, size: int = 60) -> bytes:
    udp = struct.pack("!4H", 4000, port, 8, 0)
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, size - 14, 0, 0, 64, 17, 0, b"\x0a\0\0\x01", b"\x0a\0\0\x02")
    return (bytes(12) + struct.pack("!H", 0x0800) + ip + udp).ljust(size, b"x")


def traffic(count: int, size: int = 60) -> list[Packet]:
    return [Packet(1_700_000_000 * SECOND + n * 1000, size, datagram(n % 7, size)) for n in range(count)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """More than two windows, which end in the midst of records."""
    path = tmp_path / "a.pcap"
    records = b"".join(map(record, traffic(2 * WINDOW // 1000 + 500, 1000)))
    assert len(records) > 2 * WINDOW
    path.write_bytes(header() + records)
    return path


@pytest.mark.parametrize(
    "expression", ["udp port 3", "not port 3", "", "udp dst portrange 2-4 and host 10.0.0.2", "tcp"]
)
def test_a_scan_finds_what_tcpdump_finds(file: Path, tmp_path: Path, expression: str) -> None:
    with file.open("rb") as opened:
        found = Filter(opened.read(FILE_HEADER), expression)
        mine = b"".join(bytes(taken) for taken in found.scan(opened.fileno(), FILE_HEADER, file.stat().st_size))
    out = tmp_path / "out"
    command = ["tcpdump", "--nano", "-r", str(file), "-w", str(out), expression]
    subprocess.run(command, check=True, capture_output=True, timeout=20)
    assert mine == out.read_bytes()[FILE_HEADER:]


def test_a_scan_keeps_to_its_bytes_and_leaves_out_what_is_not_whole_yet(file: Path) -> None:
    size = RECORD_HEADER + 1000
    with file.open("r+b") as opened:
        found = Filter(opened.read(FILE_HEADER), "")
        begin = FILE_HEADER + 5 * size
        kept = [bytes(taken) for taken in found.scan(opened.fileno(), begin, begin + 3 * size + 7)]
        opened.seek(begin)
        assert b"".join(kept) == opened.read(3 * size)
        opened.truncate(begin + 2 * size + 20)
        assert [len(taken) for taken in found.scan(opened.fileno(), begin, begin + 3 * size)] == [2 * size]
        assert not list(found.scan(opened.fileno(), begin + 100 * size, begin + 200 * size))


def test_what_makes_no_sense_is_told_after_what_came_before_it(file: Path) -> None:
    size = RECORD_HEADER + 1000
    place = FILE_HEADER + 2500 * size
    with file.open("r+b") as opened:
        os.pwrite(opened.fileno(), b"\xff" * 16, place)
        found = Filter(opened.read(FILE_HEADER), "port 3")
        pieces: list[Packet] = []
        with pytest.raises(Damaged, match="invalid packet capture length 4294967295") as damage:
            for taken in found.scan(opened.fileno(), FILE_HEADER, file.stat().st_size):
                pieces += packets(taken)
    assert damage.value.offset == place
    assert pieces == [packet for packet in traffic(2500, 1000) if packet.data == datagram(3, 1000)]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("unit", [1, 1000])
def test_every_form_of_a_savefile_comes_out_as_nanoseconds_of_this_machine(order: str, unit: int) -> None:
    sent = traffic(10)
    found = Filter(header(order, unit=unit), "port 3")
    passed = found.among([record(packet, order, unit=unit) for packet in sent])
    assert list(packets(passed)) == [sent[3]]


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.binary(max_size=80), st.integers(0, 2000)), max_size=20))
def test_without_a_filter_everything_passes_unchanged(given: list[tuple[int, bytes, int]]) -> None:
    sent = [Packet(seconds * SECOND + 7, len(data) + more, data) for seconds, data, more in given]
    assert list(packets(Filter(header(), "").among(map(record, sent)))) == sent


def test_records_that_are_none_are_told_with_their_place() -> None:
    found = Filter(header(), "port 3")
    first, second, third = map(record, traffic(3))
    with pytest.raises(Damaged, match="at byte 76: a packet that is cut off"):
        found.among([first, second[:-1]])
    with pytest.raises(Damaged, match="at byte 76: invalid packet capture length"):
        found.among([first, b"\xff" * 16, third])
    assert not found.among([first, second])


def test_what_passed_longer_than_a_window_is_whole() -> None:
    sent = traffic(WINDOW // 1000 + 2000, 1000)
    found = Filter(header(), "udp")
    assert not found.among([])
    assert len(found.among(map(record, sent))) == len(sent) * 1016
    assert len(found.among(map(record, sent[:5]))) == 5 * 1016


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("tcp and prot 80", r'filter "tcp and prot 80": syntax error at "prot" \(column 9\)'),
        ("port 99999", "illegal port number 99999 > 65535"),
        ("udp\0tcp", "a NUL character would cut it short"),
        ("udp or " * 1000 + "tcp", "7003 characters are too many"),
    ],
)
def test_what_is_wrong_with_an_expression_is_said_with_the_place(expression: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Filter(header(), expression)


def test_an_expression_means_what_tcpdump_takes_it_for() -> None:
    Filter(header(), "ip broadcast")  # needs a netmask, which tcpdump takes for 0 when it reads a file
    with pytest.raises(UsageError, match="supported only on"):
        Filter(header(link_type=101), "ether host 1:2:3:4:5:6")


def test_a_file_that_is_no_savefile_is_refused() -> None:
    with pytest.raises(StorageFailure, match="no pcap file"):
        Filter(bytes(24), "")
    with pytest.raises(StorageFailure, match=r"no savefile: .*version"):
        Filter(header()[:4] + b"\x09\0" + header()[6:], "")
