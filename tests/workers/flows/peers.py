"""What other programs make of the same packets: tshark's fields, nfcapd as a collector."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from tests.harness import wait_until

PATIENCE = 20.0

Ends = tuple[str, int, str, int, str]
"""Source, its port, destination, its port, protocol."""


def tshark(path: Path, *arguments: str) -> list[list[str]]:
    """Fields, one list a packet."""
    fields = [part for name in arguments for part in ("-e", name)]
    done = subprocess.run(
        ["tshark", "-n", "-r", str(path), "-o", "ip.defragment:FALSE", "-T", "fields", "-E", "occurrence=f", *fields],
        check=True,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    return [line.split("\t") for line in done.stdout.splitlines()]


def conversations(path: Path) -> tuple[Counter[Ends], Counter[Ends]]:
    """Packets and bytes of TCP and UDP in each direction, counted from tshark's dissection."""
    packets: Counter[Ends] = Counter()
    octets: Counter[Ends] = Counter()
    names = ("ip.src", "ip.dst", "ipv6.src", "ipv6.dst", "tcp.srcport", "tcp.dstport", "udp.srcport", "udp.dstport")
    for four, to4, six, to6, tcp, to_tcp, udp, to_udp, length in tshark(path, *names, "frame.len"):
        if not (tcp or udp):
            continue
        ends = (four or six, int(tcp or udp), to4 or to6, int(to_tcp or to_udp), "tcp" if tcp else "udp")
        packets[ends] += 1
        octets[ends] += int(length)
    return packets, octets


class Flow(NamedTuple):
    """One record, as nfdump has it. Instants in milliseconds since the epoch."""

    ends: Ends
    first: int
    last: int
    packets: int
    octets: int


class Nfcapd:
    """A collector that listens on ``port``."""

    def __init__(self, directory: Path, port: int, process: subprocess.Popen[str]) -> None:
        self.directory = directory
        self.port = port
        self.process = process
        self.said = ""

    def flows(self) -> list[Flow]:
        """End it once it has taken all that was sent to it, and read what it has stored."""
        wait_until(lambda: not waiting(self.port))
        self.process.send_signal(signal.SIGTERM)
        out, _ = self.process.communicate(timeout=PATIENCE)
        self.said += out
        return [flow for file in sorted(self.directory.glob("nfcapd.2*")) for flow in stored(file)]


def waiting(port: int) -> int:
    """Bytes that wait in sockets with that UDP port: the second half of tx_queue:rx_queue in proc_net_udp(5)."""
    lines = [line for name in ("udp", "udp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    rows = [line.split() for line in lines]
    return sum(int(row[4].partition(":")[2], 16) for row in rows if int(row[1].rpartition(":")[2], 16) == port)


def stored(file: Path) -> list[Flow]:
    """The records in a file of nfcapd or nfpcapd."""
    done = subprocess.run(
        ["nfdump", "-r", str(file), "-q", "-o", "json"],
        check=True,
        capture_output=True,
        timeout=PATIENCE,
        env={**os.environ, "TZ": "UTC"},
    )
    flows = []
    rows = json.loads(b"[" + done.stdout + b"]")  # -q leaves the brackets out
    for row in rows:
        source, destination = (row.get(f"{end}4_addr") or row.get(f"{end}6_addr") for end in ("src", "dst"))
        ports = (row["src_port"], row["dst_port"]) if "src_port" in row else (row["icmp_type"], row["icmp_code"])
        ends = (source, ports[0], destination, ports[1], {6: "tcp", 17: "udp"}.get(row["proto"], str(row["proto"])))
        first, last = (_milliseconds(row[when]) for when in ("first", "last"))
        flows.append(Flow(ends, first, last, row["in_packets"], row["in_bytes"]))
    return flows


def _milliseconds(text: str) -> int:
    return round(datetime.fromisoformat(f"{text}+00:00").timestamp() * 1000)


@contextmanager
def nfcapd(directory: Path, port: int | None = None) -> Iterator[Nfcapd]:
    """A collector, once it listens."""
    directory.mkdir(exist_ok=True)
    port = free_port() if port is None else port
    process = subprocess.Popen(
        ["nfcapd", "-w", str(directory), "-b", "127.0.0.1", "-p", str(port), "-t", "3600"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TZ": "UTC"},
    )
    made = Nfcapd(directory, port, process)
    try:
        assert process.stdout is not None
        deadline = time.monotonic() + PATIENCE
        while "Startup" not in made.said:
            assert select.select([process.stdout], [], [], deadline - time.monotonic())[0], made.said
            read = os.read(process.stdout.fileno(), 65536)
            assert read, made.said
            made.said += read.decode()
        yield made
    finally:
        process.kill()
        process.communicate()


def free_port() -> int:
    """A port of UDP that nobody listens on."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
