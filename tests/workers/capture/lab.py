"""What the tests of the capture worker share: a network of their own, a sender that counts, a worker as the agent
would start it, and a reader of what it wrote.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from agent.telemetry import breakdown

ROOT = Path(__file__).parents[3]
PATIENCE = 20.0
KIB = 1024

#: IEEE 802 local experimental ethertype: nothing but the sender uses it.
ETHERTYPE = 0x88B5

_SENDER = """
import socket, sys, time
interface, first, count, size, pace = sys.argv[1], *map(int, sys.argv[2:6])
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
raw.bind((interface, 0))
head = b"\\xff" * 6 + b"\\x02\\0\\0\\0\\0\\x01" + (0x88B5).to_bytes(2, "big")
pad = b"x" * (size - 18)
sent, began = 0, time.monotonic()
while sent < count:
    try:
        raw.send(head + (first + sent).to_bytes(4, "big") + pad)
    except OSError:
        time.sleep(0.001)
        continue
    sent += 1
    if pace and sent % 50 == 0:
        time.sleep(max(0.0, began + sent / pace - time.monotonic()))
"""

_WORKER = "import sys; from agent.workers.main import main; raise SystemExit(main(sys.argv[1]))"


def run(*command: str, given: str = "") -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE, input=given, encoding="utf-8")


class Network:
    """A namespace in which frames sent into ``near`` come out of ``far``, for as many pairs as are made."""

    def __init__(self, name: str) -> None:
        self.name = name

    def pair(self, near: str, far: str, *, up: bool = True) -> None:
        steps = [f"link add {near} type veth peer name {far}"]
        if up:  # at once: who looks in between sees an interface that is down
            steps += [f"link set {near} up", f"link set {far} up"]
        run("ip", "-n", self.name, "-batch", "-", given="\n".join(steps))

    def tunnel(self, name: str) -> None:
        """An interface that carries bare IP packets."""
        run("ip", "-n", self.name, "tuntap", "add", name, "mode", "tun")
        self.up(name)

    def up(self, interface: str) -> None:
        run("ip", "-n", self.name, "link", "set", interface, "up")

    def down(self, interface: str) -> None:
        run("ip", "-n", self.name, "link", "set", interface, "down")

    def arrived(self, interface: str) -> int:
        """How many packets the kernel took from an interface."""
        shown = subprocess.run(
            ["ip", "-n", self.name, "-json", "-statistics", "link", "show", interface],
            check=True,
            capture_output=True,
            timeout=PATIENCE,
        )
        (link,) = json.loads(shown.stdout)
        return int(link["stats64"]["rx"]["packets"])

    def delete(self, interface: str) -> None:
        run("ip", "-n", self.name, "link", "delete", interface)

    def inside(self, *command: str) -> list[str]:
        return ["ip", "netns", "exec", self.name, *command]

    def start_sending(
        self, interface: str, count: int, *, first: int = 0, size: int = 64, pace: int = 20_000
    ) -> subprocess.Popen[bytes]:
        """``count`` frames numbered from ``first``, at ``pace`` per second (0: as fast as it can)."""
        numbers = [str(number) for number in (first, count, size, pace)]
        return subprocess.Popen(self.inside(sys.executable, "-c", _SENDER, interface, *numbers))

    def send(self, interface: str, count: int, **how: int) -> None:
        with self.start_sending(interface, count, **how) as sender:
            assert sender.wait(PATIENCE) == 0


@contextmanager
def network() -> Iterator[Network]:
    name = f"capture-test-{os.getpid()}-{time.monotonic_ns()}"
    run("ip", "netns", "add", name)
    try:
        # Without it the kernel's own router and multicast messages would be among the packets.
        run("ip", "netns", "exec", name, sys.executable, "-c", _NO_IPV6)
        yield Network(name)
    finally:
        run("ip", "netns", "delete", name)


_NO_IPV6 = """
from pathlib import Path
for scope in ("all", "default"):
    Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6").write_text("1")
"""


class Worker:
    """A capture worker, started as the agent starts it; what it says on its notify socket is kept in ``messages``."""

    def __init__(
        self,
        directory: Path,
        settings: Mapping[str, Any],
        inside: Callable[..., list[str]] = lambda *command: [*command],
    ) -> None:
        directory.mkdir(exist_ok=True)
        self.data = directory / "data"
        self.heartbeat = directory / "heartbeat"
        config = directory / "service.json"
        config.write_text(json.dumps({"kind": "capture", "name": "edge", **settings}))
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notify = directory / "notify"  # by path: an abstract name is known in one network namespace only
        notify.unlink(missing_ok=True)
        self._notify.bind(str(notify))
        self.messages: list[dict[str, str]] = []
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "SERVICE_NAME": "edge",
            "SERVICE_CONFIG": str(config),
            "SERVICE_DATA": str(self.data),
            "SERVICE_HEARTBEAT_FILE": str(self.heartbeat),
            "NOTIFY_SOCKET": str(notify),
        }
        self.process = subprocess.Popen(
            inside(sys.executable, "-c", _WORKER, "capture"), env=environment, stderr=subprocess.PIPE, text=True
        )

    def wait_for(self, condition: Callable[[dict[str, str]], bool], what: str) -> dict[str, str]:
        """The first message, from now on, for which ``condition`` holds."""
        until = time.monotonic() + PATIENCE
        while (left := until - time.monotonic()) > 0:
            if self._receive(min(left, 0.5)) and condition(self.messages[-1]):
                return self.messages[-1]
            if self.process.poll() is not None and not self._receive(0):
                break
        raise AssertionError(f"the worker (exit status {self.process.poll()}) never said {what}")

    def _receive(self, timeout: float) -> bool:
        if not select.select([self._notify], [], [], timeout)[0]:
            return False
        fields = dict(line.partition("=")[::2] for line in self._notify.recv(8192).decode().split("\n"))
        self.messages.append(fields)
        return True

    def wait_ready(self) -> None:
        self.wait_for(lambda fields: fields.get("READY") == "1", "READY=1")

    def wait_event(self, kind: str) -> dict[str, Any]:
        found = self.wait_for(lambda fields: json.loads(fields.get("X_EVENT", "{}")).get("kind") == kind, kind)
        event: dict[str, Any] = json.loads(found["X_EVENT"])
        return event

    def wait_figure(self, name: str, at_least: int) -> dict[str, Any]:
        """Figures of the first report in which the one named has come this far."""
        found = self.wait_for(
            lambda fields: json.loads(fields.get("X_FIGURES", "{}")).get(name, -1) >= at_least, f"{name} >= {at_least}"
        )
        figures: dict[str, Any] = json.loads(found["X_FIGURES"])
        return figures

    def listen(self, seconds: float) -> None:
        """Take in what it says. Whoever does not, for long, is no longer told: the queue of a socket is short."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._receive(left)

    def drain(self) -> None:
        while self._receive(0):
            pass

    def told(self) -> list[dict[str, Any]]:
        """All events so far."""
        self.drain()
        return [json.loads(fields["X_EVENT"]) for fields in self.messages if "X_EVENT" in fields]

    def events(self) -> list[str]:
        """Kinds of all events so far."""
        return [event["kind"] for event in self.told()]

    def figures(self) -> dict[str, Any]:
        """The latest figures."""
        self.drain()
        reports = [fields["X_FIGURES"] for fields in self.messages if "X_FIGURES" in fields]
        figures: dict[str, Any] = json.loads(reports[-1])
        return figures

    def status(self) -> str:
        self.drain()
        return [fields["STATUS"] for fields in self.messages if "STATUS" in fields][-1]

    def pause(self) -> None:
        """Let it read nothing, until ``resume``."""
        self.process.send_signal(signal.SIGSTOP)
        until = time.monotonic() + PATIENCE
        while "T (stopped)" not in Path(f"/proc/{self.process.pid}/status").read_text():
            assert time.monotonic() < until

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> float:
        """Stop it in an orderly way; returns how many seconds that took."""
        self.drain()
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE) == 0
        return time.monotonic() - began

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        self._notify.close()


@contextmanager
def worker(directory: Path, network: Network | None = None, **settings: Any) -> Iterator[Worker]:
    """A worker that said it is ready."""
    with unready(directory, network, **settings) as started:
        started.wait_ready()
        yield started


@contextmanager
def unready(directory: Path, network: Network | None = None, **settings: Any) -> Iterator[Worker]:
    started = Worker(directory, settings, network.inside) if network else Worker(directory, settings)
    try:
        yield started
    finally:
        started.close()


def refused(directory: Path, network: Network, **settings: Any) -> tuple[int, list[str]]:
    """Exit status and what stderr says, of a worker that cannot start."""
    with unready(directory, network, **settings) as started:
        _, errors = started.process.communicate(timeout=PATIENCE)
        return started.process.returncode, errors.splitlines()


def by_interface(fields: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The figures of each interface in what a worker said."""
    return breakdown.decode(fields.get(breakdown.FIELD)) or {}


class Packet(NamedTuple):
    time: int
    captured: int
    original: int
    data: bytes


def segments(data: Path, interface: str, suffix: str = ".pcap") -> list[Path]:
    """Segments of an interface, oldest first."""
    return sorted((data / interface).glob("[0-9]*" + suffix))


def packets(path: Path) -> list[Packet]:
    """Every packet of a pcap file with nanoseconds; an error when it is not whole."""
    content = path.read_bytes()
    assert struct.unpack_from("=I", content)[0] == 0xA1B23C4D
    found, offset = [], 24
    while offset < len(content):
        seconds, nanoseconds, captured, original = struct.unpack_from("=IIII", content, offset)
        offset += 16
        assert offset + captured <= len(content), f"{path} ends in the middle of a packet"
        found.append(Packet(seconds * 10**9 + nanoseconds, captured, original, content[offset : offset + captured]))
        offset += captured
    return found


def numbers(data: Path, interface: str) -> list[int]:
    """The numbers of the sender's frames over all closed segments, in order."""
    return [
        int.from_bytes(packet.data[14:18], "big")
        for path in segments(data, interface)
        for packet in packets(path)
        if packet.data[12:14] == ETHERTYPE.to_bytes(2, "big")
    ]


def tcpdump_count(path: Path) -> int:
    """How many packets tcpdump reads from a segment."""
    done = subprocess.run(
        ["tcpdump", "-n", "-r", str(path), "--count"], check=True, capture_output=True, text=True, timeout=PATIENCE
    )
    return int(re.findall(r"(\d+) packets?", done.stdout)[-1])
