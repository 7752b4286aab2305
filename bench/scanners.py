"""Our worker as the agent starts it, a whole process from its start to its end; and what processes took."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from agent.workers.scan.memory.reading import Memory, Run
from bench import process
from bench.scan_report import US, Ended, Found, Outcome, Place
from tests.workers.scan import lab

ROOT = Path(__file__).resolve().parents[1]
ENTRY = "import sys; from agent.workers.main import main; sys.exit(main('scan'))"
NAME = "bench"
RATE = 100_000
"""Packets per second that our scans may send: more than any of these paths carries."""
BUDGET = {"rate": RATE, "network_rate": RATE, "target_rate": RATE}
LIMIT = 300.0
"""Seconds after which a program is ended, as one that nobody would wait for."""
PATIENCE = 2.0
"""Seconds after a Ctrl-C until the next."""
LOOK = 0.1
"""Seconds between two looks at memory."""

UNPRIVILEGED = ("setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw")
"""Takes away what raw packets need, and leaves what files in the lab need."""


class Us:
    """The worker of a scan with its database below ``place``, which each ``run`` goes on with."""

    name = US

    def __init__(self, net: lab.Network, place: Path, *, privileged: bool = True, **settings: Any) -> None:
        self._place = place
        place.mkdir(parents=True)
        self._before = net.inside(*(() if privileged else UNPRIVILEGED))
        asked: dict[str, Any] = {"kind": "scan", "name": NAME, "rate": RATE, "budget": BUDGET, **settings}
        self._config = place / "scan.json"
        self._config.write_text(json.dumps(asked))
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(str(place / "notify"))
        self._notify.settimeout(LOOK)
        self.events: list[dict[str, Any]] = []
        """What the worker has told: ``kind``, ``message`` and ``data`` each."""

    def run(self) -> Outcome:
        with self.running() as running:
            ended = waited(running, LIMIT)
        found, silent = frozenset(self.found()), frozenset(self.quarantined())
        return Outcome(US, ended.seconds, ended.processor, ended.code == 0, found, silent)

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
        while True:
            try:
                said = self._notify.recv(65536).decode()
            except TimeoutError:
                if until.is_set():
                    return
                continue
            for line in said.splitlines():
                if line.startswith("X_EVENT="):
                    self.events.append(json.loads(line.partition("=")[2]))

    def found(self) -> Iterator[Found]:
        """The open ports of the last run."""
        with self._memory() as memory:
            for host in memory.hosts(memory.runs(1)[0].id) if memory else ():
                if host.state == "up" and not host.ports:
                    yield Found(host.address, 0)
                for port in host.open_ports():
                    names = (port.service, port.product, port.version) if port.method == "probed" else ()
                    yield Found(host.address, port.number, *names)

    def quarantined(self) -> Iterator[Place]:
        """The ports that are known to be silent."""
        with self._memory() as memory:
            yield from ((each.address, each.number) for each in memory.quarantine()) if memory else ()

    def runs(self) -> list[Run]:
        """All runs, the newest first."""
        with self._memory() as memory:
            return memory.runs() if memory else []

    @contextmanager
    def _memory(self) -> Iterator[Memory | None]:
        """``None`` of a worker that ended before it had one."""
        if not (database := self._place / "data" / "scan.db").exists():
            yield None
            return
        with Memory(database) as memory:
            yield memory

    def close(self) -> None:
        self._notify.close()


def waited(running: subprocess.Popen[bytes], limit: float) -> Ended:
    """Wait for the end of a process, or end it after ``limit`` seconds, with its processor's time."""
    begun = time.monotonic()
    over = threading.Event()
    ending = threading.Thread(target=_end_after, args=(limit, running.pid, over))
    ending.start()
    try:
        os.waitid(os.P_PID, running.pid, os.WEXITED | os.WNOWAIT)
        seconds = time.monotonic() - begun
    finally:
        over.set()  # its number is still its own
        ending.join()
    _, status, usage = os.wait4(running.pid, 0)
    running.returncode = os.waitstatus_to_exitcode(status)
    code = running.returncode or (-signal.SIGINT if seconds >= limit else 0)
    return Ended(code, seconds, usage.ru_utime + usage.ru_stime)


def _end_after(limit: float, pid: int, over: threading.Event) -> None:
    """As a person would: Ctrl-C, so that it can write down what it has, once more, and then for good."""
    wait = limit
    for number in (signal.SIGINT, signal.SIGINT, signal.SIGKILL):
        if over.wait(wait):
            return
        os.kill(pid, number)
        wait = PATIENCE


def end(running: subprocess.Popen[bytes]) -> None:
    """SIGKILL, for one that still runs and all below it: as the agent does with whatever bears a service's mark."""
    if running.poll() is None:
        below = [*process.descendants(running.pid)]
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        process.end_all(below)


def heaviest(running: subprocess.Popen[bytes]) -> tuple[int, int]:
    """The most memory (PSS, in bytes) that a process and all below it have together until its end, and it alone."""
    together, alone = 0, 0
    while running.poll() is None:
        with suppress(OSError):
            alone = max(alone, process.proportional_memory([running.pid]))
            together = max(together, process.proportional_memory([running.pid, *process.descendants(running.pid)]))
        time.sleep(LOOK)
    return together, alone


def joined(ports: Iterable[int]) -> str:
    """Ports as nmap and a declaration take them: with ranges."""
    ranges: list[list[int]] = []
    for port in sorted(ports):
        if ranges and port == ranges[-1][1] + 1:
            ranges[-1][1] = port
        else:
            ranges.append([port, port])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in ranges)
