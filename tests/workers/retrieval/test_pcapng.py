"""Wireshark's own tools read what is written here, and find in it what was put in."""

from __future__ import annotations

import subprocess
from pathlib import Path
from random import Random

from agent.workers.retrieval import pcapng
from agent.workers.retrieval.answer import Answer
from tests.workers.retrieval import traffic
from tests.workers.retrieval.stores import BEGIN, segment


def ran(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout


def test_a_file_says_what_was_asked_where_packets_are_from_and_what_was_dropped(tmp_path: Path) -> None:
    sent = traffic.packets(Random(1), 300, begin=BEGIN + 123)
    segment(tmp_path / "edge", "eth0", sent)
    answer = Answer([tmp_path / "edge"], "")
    parts = [
        pcapng.section("what was asked: 'host \N{GREEK SMALL LETTER ALPHA}'", "x86_64", "Linux 6.1", "agentctl 1"),
        pcapng.interface("eth0", "capture edge", 1, 262144, "not port 22"),
        pcapng.interface("tun0", "", 101, 96, ""),
        *(pcapng.packets(0, run.batch, run.begin, run.end) for run in answer.runs()),
        pcapng.statistics(0, pcapng.Statistics(BEGIN, BEGIN + 10**9, 1000, 7, 5), "of one segment"),
    ]
    path = tmp_path / "out.pcapng"
    path.write_bytes(b"".join(parts))
    told = ran("capinfos", "-M", str(path))
    for fact in (
        "Capture comment:     what was asked: 'host \N{GREEK SMALL LETTER ALPHA}'",
        "Capture application: agentctl 1",
        "Capture hardware:    x86_64",
        "Capture oper-sys:    Linux 6.1",
        "Number of packets:   300",
        "Number of interfaces in file: 2",
        "Name = eth0",
        "Description = capture edge",
        "Filter string = not port 22",
        "Time resolution = 0x09",
        "Encapsulation = Raw IP",
        "Number of stat entries = 1",
    ):
        assert fact in told, told
    read = ran(
        "tshark", "-r", str(path), "-T", "fields", "-e", "frame.time_epoch", "-e", "frame.len", "-e", "frame.cap_len"
    )
    rows = [line.split("\t") for line in read.splitlines()]
    assert [(round(float(length)), round(float(cut))) for _, length, cut in rows] == [
        (packet.length, len(packet.data)) for packet in sent
    ]
    assert [time.replace(".", "") for time, *_ in rows] == [str(packet.time) for packet in sent]
    blocks = ran("tshark", "-r", str(path), "-X", "read_format:MIME Files Format", "-V")
    for fact in (
        "[Timestamp: Nov 20, 2026 14:00:01.000000000 UTC]",
        "Option: Comment = of one segment",
        "Option: Number of Received Packets = 1000",
        "Option: Number of Dropped Packets = 5",
        "Option: Number of Packets Dropped by OS = 7",
        "Option: Number of Packets Delivered to the User = 993",
    ):
        assert fact in blocks


def test_every_length_of_packet_is_padded_right(tmp_path: Path) -> None:
    sent = [
        packet._replace(data=bytes(size), length=size + 9) for size, packet in enumerate(traffic.packets(Random(1), 70))
    ]
    segment(tmp_path / "edge", "eth0", [packet._replace(time=BEGIN + packet.time) for packet in sent])
    (run,) = Answer([tmp_path / "edge"], "").runs()
    head = pcapng.section("", "", "", "") + pcapng.interface("eth0", "", 1, 0, "")
    path = tmp_path / "out.pcapng"
    path.write_bytes(head + pcapng.packets(0, run.batch, run.begin, run.end))
    sizes = ran("tshark", "-r", str(path), "-T", "fields", "-e", "frame.cap_len").split()
    assert [int(size) for size in sizes] == list(range(70))
