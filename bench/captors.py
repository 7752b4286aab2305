"""Who captures: the capture worker and its peers, each started, watched and ended the same way."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench import process
from bench.wire import NEAR, PATIENCE, Wire, ended
from tests.workers.capture import lab

ROOT = Path(__file__).resolve().parents[1]
MIB = 1024 * 1024
RING = 16 * MIB
"""Bytes of kernel memory that everybody is given: a quarter of a capture's default."""
US = "agent"
QUIET = 0.3
"""Seconds: who has used no processor for so long has nothing left to do. tcpdump asks for ring blocks that are full,
or a second old: it is given longer."""


class Captor(ABC):
    """Captures everything on the near end of a wire below ``directory`` with ``ring`` bytes of kernel memory.

    In a ``with`` block it runs; ``written`` and ``dropped`` are known after it.
    """

    name: str
    patience = QUIET

    def __init__(self, wire: Wire, directory: Path, ring: int) -> None:
        self.wire = wire
        self.directory = directory
        self.ring = ring
        self.written = self.dropped = 0
        directory.mkdir(parents=True)

    @property
    @abstractmethod
    def pid(self) -> int:
        """The process that captures."""

    @abstractmethod
    def __enter__(self) -> Captor: ...

    @abstractmethod
    def __exit__(self, *error: object) -> None: ...

    def beside(self) -> float:
        """Seconds of processor that its index process has used; 0 for who makes no index."""
        return 0.0

    def catch_up(self, arrived: int) -> None:  # noqa: B027  # who makes no index is not behind
        """Wait until so many packets are in its index."""

    def settle(self) -> None:
        """Wait until it has dealt with all that was sent."""
        before, since = processor(self.pid), time.monotonic()
        deadline = since + PATIENCE
        while (now := time.monotonic()) < deadline:
            time.sleep(0.05)
            used = processor(self.pid)
            if used - before > 0.02 * (now - since):  # more than it takes to look for packets in vain
                before, since = used, now
            elif now - since >= self.patience:
                return
        raise TimeoutError(f"{self.name} does not come to an end")


class Agent(Captor):
    """The capture worker as the agent starts it, with the segments that it makes by default."""

    name = US

    def __init__(self, wire: Wire, directory: Path, ring: int, **settings: Any) -> None:
        super().__init__(wire, directory, ring)
        self.settings = {"interfaces": [NEAR], "ring": ring, "budget": 64 * 1024 * MIB, **settings}
        self.worker: lab.Worker

    @property
    def pid(self) -> int:
        return self.worker.process.pid

    def __enter__(self) -> Agent:
        self.start()
        self._told(0)
        return self

    def start(self) -> None:
        """Begin, with what an earlier one has stored."""
        self.worker = lab.Worker(self.directory, self.settings, self.wire.near)
        self.worker.wait_ready()
        self._heard = threading.Event()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        """Take in what it says, as the agent does: to find that nobody listens would cost it time."""
        while not self._heard.wait(0.1):
            self.worker.drain()

    def close(self) -> None:
        """Nobody listens any more; end it if it runs."""
        self._heard.set()
        self._listener.join()
        self.worker.close()

    def beside(self) -> float:
        (index,) = process.children(self.pid)
        return processor(index)

    def catch_up(self, arrived: int) -> None:
        self._told(arrived)

    def _told(self, packets: int) -> None:
        """Wait until the index process has told that so many packets are in it: with 0, that it has started."""
        process.await_true(
            lambda: self._indexed() >= packets, f"an index of {packets} packets", within=PATIENCE, every=0.05
        )

    def _indexed(self) -> int:
        for fields in reversed(self.worker.messages):
            if "X_FIGURES" in fields:
                return int(json.loads(fields["X_FIGURES"]).get("index_packets", -1))
        return -1

    def __exit__(self, *error: object) -> None:
        try:
            if error[0] is None:
                self._heard.set()
                self._listener.join()
                self.worker.stop()
                figures = self.worker.figures()
                self.dropped = figures["dropped_kernel"]
                self.written = sum(packets(path) for path in lab.segments(self.worker.data, NEAR))
                if self.written != figures["written"]:
                    raise ValueError(f"{figures['written']} packets are told to be written, {self.written} are there")
        finally:
            self.close()


class Peer(Captor):
    """A program of somebody else."""

    interrupt = signal.SIGINT
    ready: str
    """What it says when it captures, as a regular expression."""
    drops: str
    """What it says of drops at its end."""

    @abstractmethod
    def command(self, file: Path) -> list[str]:
        """What captures into that file."""

    @property
    def pid(self) -> int:
        return self._running.pid

    def __enter__(self) -> Peer:
        self._file = self.directory / "packets"
        self._output = self.directory / "output"
        with self._output.open("wb") as output:
            self._running = subprocess.Popen(
                self.wire.near(*self.command(self._file)), stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        try:
            process.await_true(
                lambda: re.search(self.ready, self.said) is not None, f"the start of {self.name}", within=PATIENCE
            )
        except BaseException:
            self.__exit__(SystemExit)
            raise
        return self

    @property
    def said(self) -> str:
        return self._output.read_text(errors="replace")

    def __exit__(self, *error: object) -> None:
        with ended(self._running) as running:
            running.send_signal(self.interrupt)
            with suppress(subprocess.TimeoutExpired):
                running.wait(PATIENCE)
        if error[0] is None:
            found = re.findall(self.drops, self.said)
            if not found:
                raise ValueError(f"{self.name} does not tell of drops: {self.said}")
            self.dropped = int(found[-1])
            self.written = packets(self._file)


class Tcpdump(Peer):
    name = "tcpdump"
    patience = 1.5
    ready = "listening on"
    drops = r"(\d+) packets? dropped by kernel"

    def command(self, file: Path) -> list[str]:
        return ["tcpdump", "-Z", "root", "-n", "-i", NEAR, "-B", str(self.ring // 1024), "-w", str(file)]


class Dumpcap(Peer):
    name = "dumpcap"
    ready = "File: "
    drops = r"Packets received/dropped on interface .*: \d+/(\d+)"

    def command(self, file: Path) -> list[str]:
        return ["dumpcap", "-q", "-i", NEAR, "-B", str(self.ring // MIB), "-w", str(file)]


class Netsniff(Peer):
    name = "netsniff-ng"
    ready = "Running!"
    drops = r"(\d+)\s+packets failed filter \(out of space\)"

    def command(self, file: Path) -> list[str]:
        ring = f"{self.ring // MIB}MiB"
        return ["netsniff-ng", "--in", NEAR, "--out", str(file), "--silent", "--ring-size", ring]


PEERS: tuple[type[Peer], ...] = (Tcpdump, Dumpcap, Netsniff)
ALL: tuple[type[Captor], ...] = (Agent, *PEERS)


def processor(pid: int) -> float:
    """Seconds that a process and its threads have run, known to the nanosecond; the stat of proc(5) has 10 ms."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError):
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def packets(file: Path) -> int:
    """How many packets a savefile holds, by capinfos."""
    done = subprocess.run(
        ["capinfos", "-T", "-r", "-M", "-c", str(file)], check=True, capture_output=True, text=True, timeout=PATIENCE
    )
    return int(done.stdout.split()[-1])


def forget(directory: Path) -> None:
    """Remove what was captured: what is not on disk by then need not be written for the next one."""
    shutil.rmtree(directory)
