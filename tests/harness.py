"""A real agent for tests: its own prefix, its own process, told apart from the test's by nothing but that.

Nothing here sleeps and hopes: readiness is systemd's own protocol on a socket that the test holds, and everything
later is an event of the agent's own stream, a process ID that the kernel reports as gone, or a file's appearance.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from agent.control.client import Client
from agent.errors import NotRunning
from agent.linux.process import stat

SOURCE = Path(__file__).resolve().parent.parent
PATIENCE = 80.0 if "AGENT_MACHINE" in os.environ else 20.0
"""Seconds after which something that should have happened has not."""
TICK = 0.01


class Agent:
    """One prefix, on which an agent can be started, asked, killed and started again."""

    def __init__(self, prefix: Path, program: Path | None = None) -> None:
        self.prefix = prefix
        self.process: subprocess.Popen[bytes] | None = None
        self.output = prefix / "console.txt"
        self.source = SOURCE
        """Where the package is that is run; a link may be pointed at another version of it."""
        self.program = program
        """The built program, to be run in place of the package."""
        (prefix / "key").mkdir(parents=True, exist_ok=True)
        prefix.chmod(0o755)

    # -- the declaration ----------------------------------------------------------------------------------------

    def declare(self, text: str) -> None:
        """Write ``key/env.toml``."""
        (self.prefix / "key" / "env.toml").write_text(text)

    # -- life ---------------------------------------------------------------------------------------------------

    def start(
        self,
        *,
        wrapper: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
        wait: bool = True,
        patience: float = PATIENCE,
    ) -> None:
        """Start the agent; with ``wait``, until it has sent READY=1 as it would to systemd."""
        with notify_socket(self.prefix) as (listener, name):
            with self.output.open("ab") as output:
                self.process = subprocess.Popen(
                    [*wrapper, *self.command("run")],
                    env=self.environment({"NOTIFY_SOCKET": name, **(environ or {})}),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd="/",
                    start_new_session=True,
                )
            if wait:
                self._await_ready(listener, patience)

    def _await_ready(self, listener: socket.socket, patience: float) -> None:
        deadline = time.monotonic() + patience
        assert self.process is not None
        while time.monotonic() < deadline:
            readable, _, _ = select.select([listener], [], [], TICK * 5)
            if readable and b"READY=1" in listener.recv(65536).split(b"\n"):
                return
            assert self.process.poll() is None, f"the agent ended: {self.console()}"
        raise AssertionError(f"the agent did not get ready within {patience} s: {self.console()}")

    def stop(self, patience: float = PATIENCE) -> int:
        """SIGTERM, and the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(patience)

    def kill(self) -> None:
        """SIGKILL for the agent alone: its children live on."""
        assert self.process is not None
        pid = self.pid
        os.kill(pid, signal.SIGKILL)
        self.process.wait(PATIENCE)
        wait_gone(pid)

    @property
    def pid(self) -> int:
        """The agent's own PID (a wrapper may have another)."""
        return int((self.prefix / "run" / "agent.pid").read_text())

    # -- asking -------------------------------------------------------------------------------------------------

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TZ") if name in os.environ}
        return {**kept, "PREFIX": str(self.prefix), "PYTHONPATH": str(self.source), **(more or {})}

    def command(self, *arguments: str) -> list[str]:
        """How ``agentctl`` is started with these arguments."""
        return [*([str(self.program)] if self.program else [sys.executable, "-m", "agent"]), *arguments]

    def ctl(self, *arguments: str, patience: float = PATIENCE) -> subprocess.CompletedProcess[str]:
        """Run ``agentctl`` with these arguments."""
        return subprocess.run(
            self.command(*arguments),
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=patience,
            check=False,
            cwd="/",
        )

    @property
    def client(self) -> Client:
        return Client(self.prefix / "run" / "agent.sock")

    def status(self) -> dict[str, Any]:
        return self.client.request("GET", "/v1/status")

    def service(self, name: str) -> dict[str, Any]:
        """The report of one service."""
        found: dict[str, Any] = next(one for one in self.status()["services"] if one["name"] == name)
        return found

    def act(self, action: str, name: str) -> dict[str, Any]:
        """``start``, ``stop`` or ``restart``, and the outcome."""
        return self.client.request("POST", f"/v1/services/{name}/{action}")

    def events(self, **query: str) -> list[dict[str, Any]]:
        return list(self.client.stream("/v1/events", {"limit": "1000", **query}))

    def event(self, kind: str, service: str | None = None, after: int = 0) -> dict[str, Any]:
        """Wait for the first event of a kind after a cursor, on the agent's own stream."""
        deadline = time.monotonic() + PATIENCE
        client = Client(self.prefix / "run" / "agent.sock", timeout=PATIENCE)
        # Of all services: this one may not be declared yet.
        for found in client.stream("/v1/events", {"after": str(after), "follow": "true"}):
            if found.get("kind") == kind and service in (None, found["service"]):
                return found
            assert time.monotonic() < deadline, f"no event {kind} of {service}"
        raise AssertionError(f"the stream ended without {kind} of {service}")

    def event_when_up(self, kind: str, service: str | None = None) -> dict[str, Any]:
        """The same right after a start that was not waited for: first there has to be a control socket."""
        wait_until(self.answers)
        return self.event(kind, service)

    def answers(self) -> bool:
        """Whether somebody serves the control socket."""
        try:
            return bool(self.client.request("GET", "/v1/ping"))
        except NotRunning:
            return False

    def until(self, name: str, **wanted: Any) -> dict[str, Any]:
        """Wait until the report of a service has these values."""
        report: dict[str, Any] = {}

        def matches() -> bool:
            report.update(self.service(name))
            return all(report[key] == value for key, value in wanted.items())

        wait_until(matches, lambda: f"{name} is not {wanted} but {report}\n{self.console()}")
        return report

    def log(self, name: str) -> str:
        """The current log of a service, empty until it has one."""
        with suppress(FileNotFoundError):  # not there yet, or just being rotated
            return (self.prefix / "log" / f"{name}.log").read_text(errors="replace")
        return ""

    def console(self) -> str:
        return self.output.read_text(errors="replace") if self.output.exists() else ""

    def clean(self) -> None:
        """End whatever is left, whatever the test did."""
        if self.process is not None and self.process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                self.stop()
            self.process.kill()
            self.process.wait()
        for pid in marked(self.prefix):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@contextmanager
def notify_socket(directory: Path) -> Iterator[tuple[socket.socket, str]]:
    """A socket that stands for systemd's; abstract, because a test's path is longer than a socket's may be."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("")
        listener.setblocking(False)
        yield listener, "@" + listener.getsockname()[1:].decode()


def wait_until(
    condition: Callable[[], bool], told: Callable[[], str] = lambda: "it did not happen", patience: float = PATIENCE
) -> None:
    """Wait for something that has no event of its own."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(told())
        time.sleep(TICK)


def wait_gone(pid: int, patience: float = PATIENCE) -> None:
    """Wait until a process is gone, or is a zombie that only its parent's attention keeps."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([pidfd], [], [], patience)[0], f"process {pid} does not end"
    finally:
        os.close(pidfd)


def alive(pid: int) -> bool:
    """Whether a process lives: it exists, and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][:1] not in (b"Z", b"X")
    except OSError:
        return False


def environment(pid: int) -> bytes:
    """What a process was executed with, entries ended by NUL. Raises ``OSError`` when it is gone.

    In the middle of execve(2), which comes for a moment after whoever started it was told, it shows none: that is
    waited for. One that was given no environment costs the whole wait.
    """
    until = time.monotonic() + 0.1
    while True:
        found = Path(f"/proc/{pid}/environ").read_bytes()
        known = stat(pid)
        if found or known is None or not known.alive or known.kernel_thread or time.monotonic() > until:
            return found
        time.sleep(0.001)


def marked(prefix: Path) -> list[int]:
    """Every live process with this prefix in its environment: agents, their workers, and what escaped from them."""
    sign = f"{prefix}/".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with suppress(OSError):
            if sign in environment(int(entry.name)) and alive(int(entry.name)):
                found.append(int(entry.name))
    return found


def commanded(words: str) -> list[int]:
    """Live processes by their whole command line, the program without its directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                line = (entry / "cmdline").read_bytes().rstrip(b"\0").decode(errors="replace").split("\0")
                if [Path(line[0]).name, *line[1:]] == words.split() and alive(int(entry.name)):
                    found.append(int(entry.name))
    return found
