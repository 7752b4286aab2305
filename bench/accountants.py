"""Who makes flows of a savefile: the index process's own code, and three that make flows and nothing else."""

from __future__ import annotations

import csv
import os
import random
import re
import resource
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

from bench import captors, process, traffic
from bench.captors import US
from bench.capture_report import FEW, MANY, SOME, Accounted
from bench.wire import PATIENCE, RECEIVING

CHUNK = 500_000
"""Packets that are made at a time."""
FILES = {MANY: (100_000, False), SOME: (20_000, True), FEW: (1000, False)}
"""How many flows there are in them, and whether sizes are mixed."""
SPAN = 60.0
"""Seconds that such a file tells about."""

_INDEX = """
import sys
from pathlib import Path
from agent.workers.index.growing import Growing
growing = Growing(Path(sys.argv[1]))
print(sum(chunk.packets for chunk in growing.advance()))
growing.finish(growing.path)
"""


class Accountant(ABC):
    """Makes flows of ``file`` below ``directory``, which is its own."""

    name: str

    def __init__(self, file: Path, directory: Path) -> None:
        self.file = file
        self.directory = directory
        self.said = ""

    @abstractmethod
    def command(self) -> list[str]:
        """What does it."""

    @abstractmethod
    def packets(self) -> int:
        """How many packets it has accounted for."""

    def run(self) -> float:
        """Seconds of processor that all of its processes took, from start to end."""
        before = _used()
        done = subprocess.run(
            ["taskset", "--cpu-list", str(RECEIVING), *self.command()],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
        )
        deadline = time.monotonic() + PATIENCE
        while (left := process.children(os.getpid())) and time.monotonic() < deadline:
            process.bury()
            time.sleep(0.01)
        if left:
            raise TimeoutError(f"{self.name} has left processes behind: {left}")
        self.said = done.stdout
        return _used() - before

    def number(self, pattern: str) -> int:
        """The last number that it says in this way."""
        found = re.findall(pattern, self.said)
        if not found:
            raise ValueError(f"{self.name} does not tell what it did: {self.said}")
        return int(found[-1])


class Index(Accountant):
    """What the index process does with a segment, which its file is: an index beside it, flows and all."""

    name = US

    def command(self) -> list[str]:
        return [sys.executable, "-P", "-c", _INDEX, str(self.file)]

    def packets(self) -> int:
        self.file.with_suffix(".idx").unlink()
        return self.number(r"^(\d+)$")


class Softflowd(Accountant):
    """Exports NetFlow 9, which knows IPv6, to a socket that nobody reads."""

    name = "softflowd"

    def command(self) -> list[str]:
        self._collector = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._collector.bind(("127.0.0.1", 0))
        port = self._collector.getsockname()[1]
        return ["softflowd", "-v", "9", "-r", str(self.file), "-d", "-n", f"127.0.0.1:{port}", "-m", "200000"]

    def packets(self) -> int:
        self._collector.close()
        return self.number(r"Packets processed: (\d+)")


class Nfpcapd(Accountant):
    name = "nfpcapd"

    def command(self) -> list[str]:
        return ["nfpcapd", "-r", str(self.file), "-w", str(self.directory)]

    def packets(self) -> int:
        return self.number(r"Processed: (\d+)")


class Pmacctd(Accountant):
    """Prints its flows into a file, at the end."""

    name = "pmacctd"

    def command(self) -> list[str]:
        configuration = self.directory / "pmacctd.conf"
        self._flows = self.directory / "flows.csv"
        keys = {
            "daemonize": "false",
            "pcap_savefile": self.file,
            "aggregate": "src_host,dst_host,src_port,dst_port,proto,tcpflags,vlan",
            "plugins": "print",
            "print_output_file": self._flows,
            "print_output": "csv",
            "print_refresh_time": 300,
            "print_cache_entries": 99_991,
            "plugin_pipe_size": 64 * 1024 * 1024,
            "plugin_buffer_size": 64 * 1024,
        }
        configuration.write_text("".join(f"{key}: {value}\n" for key, value in keys.items()))
        return ["pmacctd", "-f", str(configuration)]

    def packets(self) -> int:
        with self._flows.open(newline="") as file:
            return sum(int(row["PACKETS"]) for row in csv.DictReader(file))


EVERYBODY: tuple[type[Accountant], ...] = (Index, Softflowd, Nfpcapd, Pmacctd)


def accounts(place: Path, packets: int, rounds: int) -> Iterator[Accounted]:
    """Everybody over the same files, in turn, in random order."""
    for title, (flows, mixed) in FILES.items():
        file, single = place / "whole.pcap", place / "single.pcap"
        made = traffic.Flows(flows, mixed=mixed)
        written(file, made, packets, SPAN / packets * 1e9)
        traffic.write(single, made.packets(1, time.time_ns(), 1))
        for _ in range(rounds):
            for kind in random.sample(EVERYBODY, len(EVERYBODY)):
                start, _ = taken(kind, single, place / "work")
                processor, counted = taken(kind, file, place / "work")
                if counted != packets:
                    raise ValueError(f"{kind.name} accounts for {counted} packets of {packets}")
                yield Accounted(kind.name, title, packets, processor, start)
        file.unlink()
        single.unlink()


def taken(kind: type[Accountant], file: Path, directory: Path) -> tuple[float, int]:
    """Seconds of processor, and the packets accounted for."""
    directory.mkdir()
    accountant = kind(file, directory)
    used = accountant.run()
    counted = accountant.packets()
    captors.forget(directory)
    return used, counted


def written(file: Path, flows: traffic.Flows, packets: int, every: float) -> None:
    """A savefile of so many packets, ``every`` nanoseconds."""
    begin = time.time_ns()
    with file.open("wb") as out:
        out.write(traffic.HEADER)
        for first in range(0, packets, CHUNK):
            count = min(CHUNK, packets - first)
            out.write(flows.packets(count, begin + int(first * every), every).records.data)


def _used() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
