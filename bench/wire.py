"""A veth pair between two network namespaces: who sends is in ``far``, who captures is in ``near``."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

NEAR, FAR = "near", "far"
PATIENCE = 60.0
SENDING, RECEIVING = 0, 1
"""The processors that the two are pinned to."""

_NO_IPV6 = """
from pathlib import Path
for scope in ("all", "default"):
    Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6").write_text("1")
"""


@dataclass(frozen=True)
class Sent:
    """How many packets went out, in what time, and how many of these arrived at the other end."""

    packets: int
    seconds: float
    arrived: int

    @property
    def rate(self) -> float:
        return self.packets / self.seconds


class Wire:
    """Both interfaces are up, and nobody but us sends anything."""

    def __init__(self, name: str) -> None:
        self._namespaces = {NEAR: f"{name}-near", FAR: f"{name}-far"}

    def inside(self, end: str, *command: str) -> list[str]:
        """A command in one of the namespaces, on the processor of that side."""
        processor = SENDING if end == FAR else RECEIVING
        return ["ip", "netns", "exec", self._namespaces[end], "taskset", "--cpu-list", str(processor), *command]

    def near(self, *command: str) -> list[str]:
        return self.inside(NEAR, *command)

    def arrived(self) -> int:
        """How many packets have come out of the wire so far."""
        said = _run("ip", "-n", self._namespaces[NEAR], "-json", "-statistics", "link", "show", NEAR)
        return int(json.loads(said)[0]["stats64"]["rx"]["packets"])

    def replay(self, file: Path, loops: int) -> Sent:
        """Send a savefile that often, as fast as tcpreplay can."""
        before = self.arrived()
        options = ("--intf1", FAR, "--preload-pcap", "--topspeed", "--loop", str(loops))
        said = _run(*self.inside(FAR, "tcpreplay", *options, str(file)))
        actual = re.search(r"^Actual: (\d+) packets .* sent in ([\d.]+) seconds", said, re.MULTILINE)
        failed = re.search(r"^\s*Failed packets:\s*(\d+)", said, re.MULTILINE)
        if actual is None or failed is None:
            raise ValueError(f"tcpreplay: {said}")
        return Sent(int(actual[1]) - int(failed[1]), float(actual[2]), self.arrived() - before)

    def send(self, file: Path, *, rate: float, limit: int, numbered: bool = False) -> Sent:
        """Send so many frames of a savefile at that rate, numbered or not."""
        before = self.arrived()
        with self.sending(file, rate=rate, limit=limit, numbered=numbered) as running:
            assert running.stdout
            said = json.loads(running.stdout.readline())
        return Sent(said["sent"], said["seconds"], self.arrived() - before)

    @contextmanager
    def sending(
        self, file: Path, *, rate: float = 0, limit: int = 0, numbered: bool = False, count_in: Path | None = None
    ) -> Iterator[subprocess.Popen[bytes]]:
        """``bench.replay`` while it sends: until this ends, if there is no limit. ``count_in`` gets the count."""
        options = ["--rate", str(rate)] + ["--numbered"] * numbered
        if limit:
            options += ["--limit", str(limit)]
        if count_in is not None:
            count_in.write_bytes(bytes(8))
            options += ["--count-in", str(count_in)]
        command = self.inside(FAR, sys.executable, "-m", "bench.replay", FAR, str(file), *options)
        with ended(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)) as running:
            assert running.stdout
            if running.stdout.readline() != b"begun\n":
                raise ValueError("bench.replay does not send")
            yield running
            running.communicate(timeout=PATIENCE)


@contextmanager
def wire() -> Iterator[Wire]:
    made = Wire(f"bench-{os.getpid()}")
    near, far = made._namespaces.values()
    try:
        for name in (near, far):
            _run("ip", "netns", "add", name)
            # Without it the kernel's own multicast messages would be among the packets.
            _run("ip", "netns", "exec", name, sys.executable, "-c", _NO_IPV6)
        _run("ip", "-n", near, "link", "add", NEAR, "type", "veth", "peer", "name", FAR, "netns", far)
        _run("ip", "-n", near, "link", "set", NEAR, "up")
        _run("ip", "-n", far, "link", "set", FAR, "up")
        yield made
    finally:
        for name in (near, far):
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


@contextmanager
def ended(running: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that does not outlive this."""
    try:
        yield running
    finally:
        if running.poll() is None:
            running.send_signal(signal.SIGKILL)
        running.communicate()


def _run(*command: str) -> str:
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE)
    return done.stdout
