"""Who scans: our worker as the agent starts it, and nmap, each a whole process from its start to its end."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.declaration.model import Scan
from agent.workers.scan.memory.reading import Memory
from bench import process
from bench.scan_report import NMAP, US, Found, Outcome
from tests.workers.scan import lab

ROOT = Path(__file__).resolve().parents[1]
ENTRY = "import sys; from agent.workers.main import main; sys.exit(main('scan'))"
NAME = "bench"
RATE = 100_000
"""Packets per second that our scans may send: more than any of these paths carries."""
LIMIT = 400.0
"""Seconds after which a program is ended, as one that nobody would wait for."""
LOOK = 0.1
"""Seconds between two looks at memory."""

UNPRIVILEGED = ("setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw")
"""Takes away what raw packets need, and leaves what files in the lab need."""


@dataclass
class Ended:
    """A process that came to its end: seconds, of processor (it and all that it waited for) too."""

    code: int
    seconds: float
    processor: float


class Us:
    """The worker of a scan with its database below ``place``, which each ``run`` goes on with."""

    name = US

    def __init__(self, net: lab.Network, place: Path, *, privileged: bool = True, **settings: Any) -> None:
        self._place = place
        place.mkdir(parents=True)
        self._before = net.inside(*(() if privileged else UNPRIVILEGED))
        asked: dict[str, Any] = {"kind": "scan", "name": NAME, "rate": RATE, **settings}
        if "budget" in Scan.__struct_fields__:
            asked["budget"] = {"rate": RATE, "network_rate": RATE, "target_rate": RATE}
        self._config = place / "scan.json"
        self._config.write_text(json.dumps(asked))
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(str(place / "notify"))
        self._notify.settimeout(LOOK)
        self.figures: dict[str, Any] = {}
        """What the worker has said of itself last."""

    def run(self) -> Outcome:
        with self.running() as running:
            ended = waited(running, LIMIT)
        return Outcome(US, ended.seconds, ended.processor, ended.code == 0, frozenset(self.found()))

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """The worker; what it says is taken in as the agent does it."""
        with (self._place / "stderr").open("ab") as stderr, subprocess.Popen(
            [*self._before, sys.executable, "-c", ENTRY],
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(ROOT),
                "SERVICE_NAME": NAME,
                "SERVICE_CONFIG": str(self._config),
                "SERVICE_DATA": str(self._place / "data"),
                "SERVICE_HEARTBEAT_FILE": str(self._place / "heartbeat"),
                "NOTIFY_SOCKET": str(self._place / "notify"),
                "AGENT_MARK": "0123456789abcdef",
                "PREFIX": str(self._place),
            },
            stderr=stderr,
            start_new_session=True,
        ) as running:  # fmt: skip
            heard = threading.Event()
            listener = threading.Thread(target=self._listen, args=(heard,), daemon=True)
            listener.start()
            try:
                yield running
            finally:
                end(running)
                heard.set()
                listener.join()

    def _listen(self, until: threading.Event) -> None:
        while not until.is_set():
            with suppress(TimeoutError):
                for line in self._notify.recv(65536).decode().splitlines():
                    if line.startswith("X_FIGURES="):
                        self.figures = json.loads(line.partition("=")[2])

    def found(self) -> Iterator[Found]:
        """The open ports of the last run."""
        if not (database := self._place / "data" / "scan.db").exists():
            return  # it ended before it had one
        with Memory(database) as memory:
            for host in memory.hosts(memory.runs(1)[0].id):
                if host.state == "up" and not host.ports:
                    yield Found(host.address, 0, "")
                for port in host.open_ports():
                    yield Found(host.address, port.number, port.service if port.method == "probed" else "")

    def finished(self) -> bool:
        """Whether the last run has come to its end."""
        if not (database := self._place / "data" / "scan.db").exists():
            return False
        with Memory(database) as memory:
            return any(run.status == "finished" for run in memory.runs(1))

    def close(self) -> None:
        self._notify.close()


@dataclass
class Nmap:
    """nmap with these options, one process after the other where there are several commands."""

    net: lab.Network
    place: Path
    commands: Sequence[Sequence[str]]
    privileged: bool = True
    name: str = field(default=NMAP, init=False)

    def run(self) -> Outcome:
        total = Ended(0, 0.0, 0.0)
        found: set[Found] = set()
        for options in self.commands:
            answer = self.place / "nmap.xml"
            answer.unlink(missing_ok=True)
            before = () if self.privileged else UNPRIVILEGED
            command = self.net.inside(*before, "nmap", "-n", "-oX", str(answer), *options)
            with subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            ) as it:
                ended = waited(it, LIMIT)
            total.code |= ended.code
            total.seconds += ended.seconds
            total.processor += ended.processor
            found |= set(read(answer.read_text() if answer.exists() else ""))
        return Outcome(NMAP, total.seconds, total.processor, total.code == 0, frozenset(found))


_HOST = re.compile(r"<host[ >].*?</host>", re.DOTALL)
_ADDRESS = re.compile(r'<address addr="([^"]+)" addrtype="ipv[46]"')
_UP = re.compile(r'<status state="up"')
_PORT = re.compile(r'<port protocol="tcp" portid="(\d+)"><state state="open".*?</port>', re.DOTALL)
_SERVICE = re.compile(r'<service name="([^"]+)"[^>]*method="probed"')


def read(xml: str) -> Iterator[Found]:
    """What an XML of nmap tells, also of one that stops before its end: open ports, and hosts that have none."""
    for host in _HOST.findall(xml):
        address = _ADDRESS.search(host)
        if address is None or not _UP.search(host):
            continue
        ports = list(_PORT.finditer(host))
        if not ports:
            yield Found(address[1], 0, "")
        for port in ports:
            service = _SERVICE.search(port[0])
            yield Found(address[1], int(port[1]), service[1] if service else "")


def waited(running: subprocess.Popen[bytes], limit: float) -> Ended:
    """Wait for the end of a process, or end it after ``limit`` seconds, with its processor's time."""
    begun = time.monotonic()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    timer = threading.Timer(limit, lambda: os.kill(running.pid, signal.SIGKILL))
    timer.start()
    try:
        code = running.wait()
    finally:
        timer.cancel()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Ended(code, time.monotonic() - begun, used)


def end(running: subprocess.Popen[bytes]) -> None:
    """SIGKILL, as the agent does with the whole group, for one that still runs."""
    if running.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()


def heaviest(running: subprocess.Popen[bytes]) -> int:
    """The most memory (PSS) that a process and all below it have together until its end, in bytes."""
    most = 0
    while running.poll() is None:
        with suppress(OSError):
            most = max(most, process.proportional_memory([running.pid, *process.descendants(running.pid)]))
        time.sleep(LOOK)
    return most


def joined(ports: Iterable[int]) -> str:
    """Ports as nmap and a declaration take them: with ranges."""
    ranges: list[list[int]] = []
    for port in sorted(ports):
        if ranges and port == ranges[-1][1] + 1:
            ranges[-1][1] = port
        else:
            ranges.append([port, port])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in ranges)
