"""``agentctl capture stream``: what a real capture takes from the wire, a moment later on standard output."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from tests.workers.capture.lab import PATIENCE, Network, network, worker
from tests.workers.retrieval import traffic
from tests.workers.retrieval.stores import BEGIN, segment

GOAL = 2.0
"""Seconds from the wire to standard output, at most."""


@contextmanager
def streaming(prefix: Path, *words: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """The command; its standard output begins with the header of a pcap file, which is taken."""
    command = [sys.executable, "-m", "agent", "--prefix", str(prefix), "capture", "stream", *words]
    alone = {name: value for name, value in os.environ.items() if name != "SSH_CONNECTION"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**alone, **environment}
    ) as process:
        try:
            assert read(process, 24)[:4] == struct.pack("=I", 0xA1B23C4D)
            yield process
        finally:
            process.kill()


def read(process: subprocess.Popen[bytes], length: int) -> bytes:
    """So many bytes of what it writes, each within the time that is allowed."""
    assert process.stdout
    data = b""
    while len(data) < length:
        ready = select.select([process.stdout], [], [], PATIENCE)[0]
        assert ready, (
            f"nothing more after {len(data)} bytes: {process.stderr and os.read(process.stderr.fileno(), 1000)!r}"
        )
        got = os.read(process.stdout.fileno(), length - len(data))
        assert got, process.stderr and process.stderr.read()
        data += got
    return data


def packet(process: subprocess.Popen[bytes]) -> tuple[float, bytes]:
    """When the next packet was captured, and its bytes."""
    seconds, nanoseconds, captured, _ = struct.unpack("=IIII", read(process, 16))
    return seconds + nanoseconds / 1e9, read(process, captured)


def number(data: bytes) -> int:
    return int.from_bytes(data[14:18], "big")


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    with network() as made:
        made.pair("near", "far")
        yield made


def test_what_is_on_the_wire_is_shown_at_once_over_any_number_of_segments(net: Network, tmp_path: Path) -> None:
    with worker(tmp_path / "spool", net, interfaces=["far"], rotate={"size": 1 << 20, "every": 0.2}) as capture:
        net.send("near", 1)
        capture.wait_figure("written", 1)
        with streaming(tmp_path, "data", "ether proto 0x88b5") as stream:
            delays = []
            for sent in range(100, 106):
                net.send("near", 1, first=sent)
                captured, data = packet(stream)
                delays.append(time.time() - captured)
                assert number(data) == sent
            assert max(delays) < GOAL, delays
            with net.start_sending("near", 3000, first=1000, pace=2500) as sender:
                assert [number(packet(stream)[1]) for _ in range(3000)] == list(range(1000, 4000))
                sender.wait(PATIENCE)
        capture.stop()
        assert len(list((tmp_path / "spool" / "data" / "far").glob("*.pcap"))) > 4
    print(f"from the wire to standard output: {min(delays):.3f} s to {max(delays):.3f} s")


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """A store with an open segment."""
    sent = traffic.packets(Random(1), 10, begin=BEGIN)
    segment(tmp_path / "spool" / "edge", "eth0", sent, closed=False)
    return tmp_path


def part(prefix: Path) -> Path:
    (path,) = (prefix / "spool" / "edge" / "eth0").glob("*.part")
    return path


def datagram(source: bytes, target: bytes, ports: tuple[int, int]) -> bytes:
    tcp = struct.pack("!HHIIBBHHH", *ports, 0, 0, 0x50, 0x10, 0, 0, 0)
    return bytes(12) + struct.pack("!HBBHHHBBH", 0x0800, 0x45, 0, 40, 0, 0, 64, 6, 0) + source + target + tcp


def test_the_ssh_connection_that_it_runs_in_is_left_out(prefix: Path) -> None:
    us, them = b"\x0a\0\0\1", b"\x0a\0\0\2"
    own = [datagram(them, us, (50_000, 22)), datagram(us, them, (22, 50_000))]
    other = [datagram(them, us, (50_001, 22)), datagram(us, them, (80, 50_000))]
    with streaming(prefix, "edge", "tcp", SSH_CONNECTION="10.0.0.2 50000 10.0.0.1 22") as stream:
        frame = traffic.packets(Random(1), 1, begin=BEGIN)[0]
        with part(prefix).open("ab") as file:
            for data in (*own, *other):
                file.write(traffic.record(frame._replace(data=data, length=len(data))))
        assert [packet(stream)[1] for _ in range(2)] == other


def test_machines_get_a_line_for_each_packet(prefix: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "agent",
        "--prefix",
        str(prefix),
        "--json",
        "capture",
        "stream",
        "edge",
        "tcp",
        "or",
        "udp",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as stream, part(prefix).open("ab", buffering=0) as file:
        assert stream.stdout
        one = traffic.packets(Random(1), 1, begin=BEGIN)[0]
        data = datagram(b"\x0a\0\0\1", b"\x0a\0\0\2", (80, 8080))
        while not select.select([stream.stdout], [], [], 0.2)[0]:  # it shows what comes once it has begun
            file.write(traffic.record(one._replace(data=data, length=99)))
        told = json.loads(stream.stdout.readline())
        stream.stdout.close()
        assert stream.wait(PATIENCE) == 141
    assert (told["service"], told["interface"], told["length"]) == ("edge", "eth0", 99)
    assert (told["source"], told["destination_port"], told["protocol"]) == ("10.0.0.1", 8080, "tcp")


def test_wireshark_can_read_it_as_it_comes(prefix: Path) -> None:
    frame = datagram(b"\x0a\0\0\1", b"\x0a\0\0\2", (80, 8080))
    command = [sys.executable, "-m", "agent", "--prefix", str(prefix), "capture", "stream", "edge"]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as stream,
        subprocess.Popen(
            ["tshark", "-l", "-n", "-i", "-", "-c", "2", "-T", "fields", "-e", "tcp.dstport"],
            stdin=stream.stdout,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as shark,
    ):
        assert stream.stdout
        stream.stdout.close()
        assert shark.stderr
        while "Capturing on" not in (line := shark.stderr.readline()):
            assert line
        with part(prefix).open("ab") as file:
            for second in (1, 2):
                one = traffic.packets(Random(1), 1, begin=BEGIN + second)[0]
                file.write(traffic.record(one._replace(data=frame, length=len(frame))))
        assert shark.communicate(timeout=PATIENCE)[0].split() == ["8080", "8080"]
        assert stream.wait(PATIENCE) == 141


def test_it_ends_at_once_when_nobody_reads_any_more(prefix: Path) -> None:
    with streaming(prefix, "edge") as stream:
        assert stream.stdout
        assert stream.stderr
        stream.stdout.close()
        assert stream.wait(PATIENCE) == 141
        assert stream.stderr.read() == b""


def test_ctrl_c_ends_it_without_a_word(prefix: Path) -> None:
    with streaming(prefix, "edge") as stream:
        stream.send_signal(signal.SIGINT)
        assert stream.wait(PATIENCE) == 130
        assert stream.communicate() == (b"", b"")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing"], "no capture is named 'nothing'"),
        (["edge", "tcp port"], 'filter "tcp port": syntax error at its end'),
        (["edge", "--interface", "eth1"], "no interface is named 'eth1'; did you mean eth0?"),
        (["edge"], "tun0 has packets of another link type than eth0; name an --interface"),
    ],
)
def test_what_cannot_be_streamed_is_said_in_one_line(prefix: Path, words: list[str], said: str) -> None:
    if said.startswith("tun0"):
        sent = traffic.packets(Random(1), 1, traffic.RAW, begin=BEGIN + 1)
        segment(prefix / "spool" / "edge", "tun0", sent, link_type=traffic.RAW)
    command = [sys.executable, "-m", "agent", "--prefix", str(prefix), "capture", "stream", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"agentctl: {said}")


def test_packets_do_not_go_to_a_terminal(prefix: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "agent", "--prefix", str(prefix), "capture", "stream", "edge"]
    done = subprocess.run(command, stdout=theirs, stderr=subprocess.PIPE, timeout=PATIENCE)
    os.close(ours)
    os.close(theirs)
    assert done.returncode == 1
    assert b"packets are not for a terminal" in done.stderr
