"""``agentctl run-once NAME``: one run of one service in the foreground, judged by its exit code.

For cron, systemd timers and people. The run is the same as under the agent (environment, user, containment, timeout,
PID file) and takes the same lock, so a job never overlaps itself whoever starts it. It needs no running agent.
"""

from __future__ import annotations

import asyncio
import difflib
import os
import secrets
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from agent.control import lean  # noqa: F401  (before asyncio: see there)
from agent.declaration.load import load
from agent.declaration.model import AgentSettings, AnyService, LogPolicy
from agent.errors import EXIT_CONFIGURATION, EXIT_OK, EXIT_RUNTIME, RuntimeFailure, StorageFailure
from agent.linux.files import PrefixLock, make_directory
from agent.linux.process import Identity, become_subreaper, reap_strangers
from agent.paths import Paths
from agent.supervisor import lifecycle
from agent.supervisor.containment import Containment, SweepContainment
from agent.supervisor.lifecycle import Phase
from agent.supervisor.report import NoSuchService
from agent.supervisor.unit import Unit, policy_of
from agent.telemetry.logs import READ


class OncePaths(Paths):
    """The same layout, but a notify socket of our own: the agent may be listening on the other."""

    def notify(self, service: str) -> Path:
        return self.run / f"{service}.once.notify"


class Passthrough:
    """A run's output goes to our standard output, as it comes."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.dropped_bytes = 0
        self.last_line = ""

    def read_ready(self) -> bool:
        """Pass on what there is; ``False`` at the end of the output."""
        try:
            data = os.read(self._fd, READ)
        except BlockingIOError:
            return True
        with suppress(OSError):
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        return bool(data)

    def drain(self, deadline: float) -> bool:
        """Everything that is in the pipe now. Nobody else holds it: the run is gone."""
        with suppress(BlockingIOError):
            while data := os.read(self._fd, READ):
                with suppress(OSError):
                    sys.stdout.buffer.write(data)
        with suppress(OSError):
            sys.stdout.buffer.flush()
        return True

    def close(self) -> None:
        os.close(self._fd)


class _Output:
    def pump(self, fd: int) -> Passthrough:
        return Passthrough(fd)

    def adjust(self, policy: LogPolicy) -> None:
        """There is no log."""

    def close(self) -> None:
        """Standard output stays open."""


class Foreground:
    """The surroundings of a single unit: no history, no siblings."""

    def __init__(self, loop: asyncio.AbstractEventLoop, paths: Paths, settings: AgentSettings) -> None:
        self.loop = loop
        self.paths = paths
        self.settings = settings
        self.environ = dict(os.environ)
        # Killed with -9, we leave a child behind: it keeps the lock, and so the job still does not overlap itself.
        self.lock_follows_child = True
        self._instance = secrets.token_hex(16)

    def contain(self, service: AnyService, mark: str) -> Containment:
        if service.limits.declared:
            print(f"agentctl: {service.name}: run-once does not put its limits in force", file=sys.stderr)
        return SweepContainment(self.loop, mark)

    def mark(self, name: str) -> str:
        return f"{self._instance}:{name}"

    def sink(self, service: AnyService) -> _Output:
        return _Output()

    def record(self, name: str, kind: str, message: str, data: dict[str, Any]) -> None:
        if kind in ("spawn_failed", "run_timeout", "start_timeout", "hung", "killed", "unkillable"):
            print(f"agentctl: {name}: {message}", file=sys.stderr)

    def spawned(self, name: str, identity: Identity, mark: str) -> None:
        """Nobody comes after us who would have to know."""

    def changed(self, unit: Unit) -> None:
        """Nobody watches."""

    def last_run(self, name: str) -> float | None:
        return None

    def ran(self, name: str, at: float) -> None:
        """The agent's calendar counts its own runs."""


def run_once(paths: Paths, name: str) -> int:
    """Run service ``name`` to its end and return its exit code by the contract: 0, 1, or 2 for anything else.

    Raises ``DeclarationError``, ``NoSuchService``, and ``AlreadyRunning`` when it runs already.
    """
    declaration = load(paths, os.environ)
    service = declaration.services.get(name)
    if service is None:
        nearest = difflib.get_close_matches(name[:64], declaration.services, n=1)
        raise NoSuchService(name[:64], nearest[0] if nearest else None)
    own = OncePaths(paths.prefix, paths.declaration)
    try:
        for directory in (own.prefix, own.run, own.tmp, own.spool):
            make_directory(directory)
        lock = PrefixLock(own.service_lock(name))
        lock.acquire()
        lock.release()
    except OSError as error:
        raise StorageFailure(f"cannot set up {error.filename or own.prefix}: {error.strerror}") from error
    become_subreaper()
    return asyncio.run(_main(own, service, declaration.agent))


async def _main(paths: Paths, service: AnyService, settings: AgentSettings) -> int:
    loop = asyncio.get_running_loop()
    once = msgspec.structs.replace(service, restart="no", timer=None, enabled=True)
    policy = msgspec.structs.replace(policy_of(service), restart="no", job=False)
    unit = Unit(Foreground(loop, paths, settings), once, policy)
    interrupted: list[int] = []

    def interrupt(number: int) -> None:
        interrupted.append(number)
        unit.post(lifecycle.Stop(f"interrupted by {signal.Signals(number).name}"))

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, interrupt, number)
    loop.add_signal_handler(
        signal.SIGCHLD, lambda: reap_strangers(lambda pid: unit.run is not None and unit.run.pid == pid)
    )
    unit.post(lifecycle.Boot())
    while unit.phase not in (Phase.COMPLETED, Phase.FAILED, Phase.STOPPED):
        await unit.change(float("inf"))
    unit.close()
    if interrupted:
        raise RuntimeFailure(f"{service.name}: interrupted by {signal.Signals(interrupted[0]).name}")
    verdict = unit.state.verdict
    if verdict is None or verdict.cause:
        return EXIT_RUNTIME
    if verdict.code in (EXIT_OK, EXIT_CONFIGURATION):
        return verdict.code
    return EXIT_RUNTIME
