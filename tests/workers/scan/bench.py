"""One scan service as the agent starts it, and known listeners for it to find: what many tests of scans begin with."""

from __future__ import annotations

import json
import os
import secrets
import select
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

import agent
from agent.declaration.model import Heartbeat, Profile, Scan, Scanning
from agent.workers.scan.found import Host
from agent.workers.scan.memory.reading import Memory

ROOT = Path(agent.__file__).parent.parent
ENTRY = "import sys; from agent.workers.main import main; sys.exit(main('scan'))"
NMAP = shutil.which("nmap")

PLENTY = Scanning(rate=1_000_000, network_rate=1_000_000, target_rate=1_000_000)


class Ended(NamedTuple):
    code: int
    stderr: str
    notes: list[dict[str, str]]

    @property
    def events(self) -> dict[str, dict[str, Any]]:
        found = [json.loads(note["X_EVENT"]) for note in self.notes if "X_EVENT" in note]
        return {event["kind"]: event for event in found}

    @property
    def figures(self) -> dict[str, Any]:
        """The last ones."""
        found: dict[str, Any] = json.loads([note["X_FIGURES"] for note in self.notes if "X_FIGURES" in note][-1])
        return found

    @property
    def last_status(self) -> str:
        return [note["STATUS"] for note in self.notes if "STATUS" in note][-1]


WHERE_XML_GOES = """XML=/dev/stdout
case "$*" in *"-oX /"*) XML=${*#*-oX }; XML=${XML%% *};; esac"""


class Bench:
    """One scan service below ``tmp_path``, started as often as a test likes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.data = directory / "spool"
        self.mark = secrets.token_hex(16)
        self.heartbeat = directory / "lan.heartbeat"
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(str(directory / "notify"))
        self._notify.settimeout(30)
        self._processes: list[subprocess.Popen[str]] = []
        self.notes: list[dict[str, str]] = []

    def start(
        self, scan: Scan, *, path: str | None = None, prefix: tuple[str, ...] = (), entry: str = ENTRY
    ) -> subprocess.Popen[str]:
        config = self.directory / "lan.json"
        config.write_bytes(msgspec.json.encode(scan))
        self.notes = []
        budget = os.open(self.directory / "scan.budget", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        process = subprocess.Popen(
            [*prefix, sys.executable, "-c", entry],
            env={
                "PATH": path or os.environ["PATH"],
                "PYTHONPATH": str(ROOT),
                "SERVICE_NAME": scan.name,
                "SERVICE_CONFIG": str(config),
                "SERVICE_DATA": str(self.data),
                "SERVICE_HEARTBEAT_FILE": str(self.heartbeat),
                "NOTIFY_SOCKET": str(self.directory / "notify"),
                "AGENT_MARK": self.mark,
                "SERVICE_BUDGET_FD": str(budget),
            },
            pass_fds=(budget,),
            stderr=subprocess.PIPE,
            text=True,
        )
        os.close(budget)
        self._processes.append(process)
        return process

    def finish(self, process: subprocess.Popen[str]) -> Ended:
        until = time.monotonic() + 50
        while process.poll() is None and time.monotonic() < until:  # who does not listen is not told: queues are short
            if select.select([self._notify], [], [], 0.1)[0]:
                self.receive()
        _, stderr = process.communicate(timeout=1)
        self._notify.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                self.receive()
        self._notify.settimeout(30)
        return Ended(process.returncode, stderr, self.notes)

    def run(self, scan: Scan, *, path: str | None = None, prefix: tuple[str, ...] = (), entry: str = ENTRY) -> Ended:
        return self.finish(self.start(scan, path=path, prefix=prefix, entry=entry))

    def fake(self, script: str) -> str:
        """A PATH on which nmap is this script; ``$NMAP`` in it is the real one, ``$HERE`` a directory for its notes,
        ``$XML`` the file to which it is to write."""
        here = self.directory / "fake"
        here.mkdir(exist_ok=True)
        program = here / "nmap"
        program.write_text(f"#!/bin/sh\nNMAP={NMAP}\nHERE={here}\n{WHERE_XML_GOES}\n{script}\n")
        program.chmod(0o755)
        return f"{here}:{os.environ['PATH']}"

    def rows(self, query: str) -> list[Any]:
        with closing(sqlite3.connect(self.data / "scan.db")) as connection:
            return connection.execute(query).fetchall()

    def found(self) -> list[Host]:
        """What the last run found."""
        with Memory(self.data / "scan.db") as memory:
            return list(memory.hosts(memory.runs(1)[0].id))

    def open(self) -> list[tuple[str, int]]:
        """The open ports of the last run."""
        return [(host.address, port.number) for host in self.found() for port in host.open_ports()]

    def everything(self, run: int) -> list[list[Any]]:
        """All that is stored about one run."""
        tables = {"runs": "id", "chunks": "run", "seen": "run", "coverage": "run", "raw": "run"}
        return [self.rows(f"SELECT * FROM {table} WHERE {key} = {run}") for table, key in tables.items()]

    def close(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
                process.communicate()
        self._notify.close()

    def receive(self) -> None:
        """Wait for one message of the worker."""
        fields = self._notify.recv(65536).decode().splitlines()
        self.notes.append(dict(field.split("=", 1) for field in fields))


LISTENERS = """
import contextlib, select, socket, sys, threading

def serve(listener, banner):
    while True:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):  # a port scan hangs up before the banner
            if banner is None:
                if select.select([connection], [], [], 5)[0] and connection.recv(4096).startswith(b"GET"):
                    connection.sendall(b"HTTP/1.0 200 OK\\r\\nServer: nginx/1.22.1\\r\\nContent-Length: 0\\r\\n\\r\\n")
            else:
                connection.sendall(banner)

for address, port, banner in [
    ("10.77.0.2", 22, b"SSH-2.0-OpenSSH_9.2p1 Debian-2\\r\\n"),
    ("10.77.0.2", 8080, None),
    ("10.77.0.3", 25, b"220 mail ESMTP Postfix\\r\\n"),
    ("fd00:77::2", 22, b"SSH-2.0-OpenSSH_9.2p1 Debian-2\\r\\n"),
]:
    listener = socket.create_server((address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET)
    threading.Thread(target=serve, args=(listener, banner), daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def known_listeners() -> Iterator[tuple[str, ...]]:
    """Two namespaces on one wire: the prefix of a command in the first, with known listeners in the second.

    The first is 10.77.0.1 and fd00:77::1; the second 10.77.0.2, 10.77.0.3 and fd00:77::2; 10.77.0.4 to .7 are nobody.
    """
    here, there = f"scan-a-{os.getpid()}", f"scan-b-{os.getpid()}"
    commands = [
        f"netns add {here}",
        f"netns add {there}",
        f"-n {here} link add wire type veth peer name wire netns {there}",
        f"-n {here} addr add 10.77.0.1/24 dev wire",
        f"-n {here} addr add fd00:77::1/64 dev wire nodad",
        f"-n {there} addr add 10.77.0.2/24 dev wire",
        f"-n {there} addr add 10.77.0.3/24 dev wire",
        f"-n {there} addr add fd00:77::2/64 dev wire nodad",
    ]
    commands += [f"-n {name} link set {device} up" for name in (here, there) for device in ("lo", "wire")]
    try:
        for command in commands:
            subprocess.run(["ip", *command.split()], check=True)
        with subprocess.Popen(
            ["ip", "netns", "exec", there, sys.executable, "-c", LISTENERS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as listeners:
            assert listeners.stdout is not None
            assert listeners.stdout.readline() == "ready\n"
            yield ("ip", "netns", "exec", here)
            listeners.communicate("")
    finally:
        for name in (here, there):
            subprocess.run(["ip", "netns", "del", name], check=False)


def lan(*targets: str, ports: str = "1-100,8080", profile: Profile = "ports", rate: int = 5000) -> Scan:
    return Scan(name="lan", targets=targets, ports=ports, profile=profile, rate=rate)


def loopback(*targets: str) -> Scan:
    scan = lan(*(targets or ("127.0.0.1",)), ports="1-3")
    return msgspec.structs.replace(scan, heartbeat=Heartbeat(interval=0.4, timeout=30.0))


def until(condition: Any, seconds: float = 20.0) -> float:
    """Seconds until it was so."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds
        time.sleep(0.01)
    return time.monotonic() - began
