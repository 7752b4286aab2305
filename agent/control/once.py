"""``agentctl run-once NAME``: one run of one service in the foreground, judged by its exit code.

For cron, systemd timers and people. The run is the same as under the agent (environment, user, containment, timeout,
PID file) and takes the same lock, so a job never overlaps itself whoever starts it. It needs no running agent. Limits
are those of the unit that we run in; to a service manager that asked for it we tell how it goes, and how it went.
"""

from __future__ import annotations

import asyncio
import difflib
import os
import signal
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from agent.control.layout import lay_out
from agent.declaration.load import load
from agent.declaration.model import AgentSettings, AnyService, Limits, LogPolicy, Restart
from agent.errors import EXIT_CONFIGURATION, EXIT_INTERRUPTED, EXIT_OK, EXIT_RUNTIME, AlreadyRunning, RuntimeFailure
from agent.installation.timers import OWN_MEMORY, OWN_TASKS
from agent.linux import signals
from agent.linux.capabilities import withhold
from agent.linux.cgroup_place import limits_here
from agent.linux.files import PrefixLock
from agent.linux.notify import SystemdNotifier
from agent.linux.process import Identity, become_subreaper, reap_strangers
from agent.linux.sweep import everything, signal_all
from agent.paths import Paths
from agent.supervisor import lifecycle
from agent.supervisor.budget import Budget
from agent.supervisor.containment import Containment, Held, SweepContainment
from agent.supervisor.lifecycle import Phase
from agent.supervisor.report import NoSuchService
from agent.supervisor.unit import Unit, policy_of
from agent.telemetry.log_pump import READ, PumpState
from agent.telemetry.logs import LogState

ORDERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""What somebody who sends it wants: that the job ends, and we with it."""

STATUS_PER_SECOND = 2.0
STATUS_BURST = 5.0
"""How often a service manager is told what a job says of itself, however often it says something."""

CPUS_ROUNDED = 0.001
"""Processors by which a unit's CPUQuota=, a percentage, may be off."""


class OncePaths(Paths):
    """The same layout, but a notify socket of our own: the agent may be listening on the other."""

    def notify(self, service: str) -> Path:
        return self.run / f"{service}.once.notify"


class Passthrough:
    """A run's output goes to our standard output, or another descriptor, as it comes."""

    def __init__(self, fd: int, target: int) -> None:
        self._fd = fd
        self._target = target
        self.dropped_bytes = 0
        self.last_line = ""

    def freeze(self) -> PumpState:
        """No other program goes on with it."""
        return PumpState()

    def thaw(self, state: PumpState) -> None:
        """There is no earlier program."""

    def read_ready(self) -> bool:
        """Pass on what there is; ``False`` at the end of the output."""
        try:
            data = os.read(self._fd, READ)
        except BlockingIOError:
            return True
        self._pass(data)
        return bool(data)

    def drain(self, deadline: float) -> bool:
        """Everything that is in the pipe now. Nobody else holds it: the run is gone."""
        with suppress(BlockingIOError):
            while data := os.read(self._fd, READ):
                self._pass(data)
        return True

    def _pass(self, data: bytes) -> None:
        # A reader that is gone must not end the job.
        with suppress(OSError):
            while data:
                data = data[os.write(self._target, data) :]

    def close(self) -> None:
        os.close(self._fd)


class _Output:
    dropped_bytes = 0

    def __init__(self, target: int) -> None:
        self._target = target

    def pump(self, fd: int) -> Passthrough:
        return Passthrough(fd, self._target)

    def adjust(self, policy: LogPolicy) -> None:
        """There is no log."""

    def freeze(self) -> LogState:
        """No other program goes on with it."""
        return LogState()

    def thaw(self, state: LogState) -> None:
        """There is no earlier program."""

    def close(self) -> None:
        """Standard output stays open."""


class Foreground:
    """The surroundings of a single unit: no history, no siblings."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        paths: Paths,
        settings: AgentSettings,
        output: int,
        notifier: SystemdNotifier,
    ) -> None:
        self.loop = loop
        self._output = output
        self._notifier = notifier
        self._told = ""
        self._budget = Budget(STATUS_PER_SECOND, STATUS_BURST, loop.time())
        self.paths = paths
        self.settings = settings
        self.environ = dict(os.environ)
        # Killed with -9, we leave a child behind: it keeps the lock, and so the job still does not overlap itself.
        self.lock_follows_child = True
        self._instance = os.urandom(16).hex()

    def contain(self, service: AnyService, mark: str, held: Held | None = None) -> Containment:
        if missing := _not_in_force(service.limits, _limits_here()):
            told = f"{', '.join(missing)} of its limits: run-once does not put them in force"
            print(f"agentctl: {service.name}: {told}", file=sys.stderr)
        return SweepContainment(self.loop, mark)

    def mark(self, name: str) -> str:
        return f"{self._instance}:{name}"

    def sink(self, service: AnyService) -> _Output:
        return _Output(self._output)

    def record(self, name: str, kind: str, message: str, data: dict[str, Any]) -> None:
        if kind in ("killed", "unkillable", "restarting", "backoff"):  # how it ends is told at the end
            print(f"agentctl: {name}: {message}", file=sys.stderr)

    def spawned(self, name: str, identity: Identity, mark: str) -> None:
        """Nobody comes after us who would have to know."""

    def exited(self, name: str) -> None:
        """It has no siblings that would have to know it by its PID."""

    def changed(self, unit: Unit) -> None:
        """What the job says of itself, and why it is not running, is for the manager to show."""
        told = unit.state.reason or unit.status_text
        if told not in ("", self._told) and self._budget.spend(self.loop.time()):
            self._told = told
            self._notifier.status(told)

    def last_run(self, name: str) -> float | None:
        return None

    def ran(self, name: str, at: float) -> None:
        """The agent's calendar counts its own runs."""

    def served(self, name: str) -> float | None:
        return None

    def serve(self, name: str, at: float) -> None:
        """There is no calendar here."""


def _limits_here() -> Limits:
    memory, cpus, pids = limits_here()
    return Limits(memory, cpus, pids)


def _not_in_force(wanted: Limits, here: Limits) -> list[str]:
    """Which of the limits do not hold for the cgroup that we, and so the job, are in. A unit's hold for us too."""
    pairs = {
        "memory": (wanted.memory and wanted.memory + OWN_MEMORY, here.memory),
        "cpus": (wanted.cpus and wanted.cpus + CPUS_ROUNDED, here.cpus),
        "pids": (wanted.pids and wanted.pids + OWN_TASKS, here.pids),
    }
    return [name for name, (most, found) in pairs.items() if most is not None and (found is None or found > most)]


def run_once(paths: Paths, name: str, *, json: bool = False, retry: bool = False) -> int:
    """Run service ``name`` to its end and return its exit code by the contract: 0, 1, or 2 for anything else.

    It is 130 after Ctrl-C, as of any other command; a service manager, which knows only those three, gets 2.
    With ``json`` its output goes to stderr, and how it ended is a JSON document on stdout. With ``retry`` a run that
    fails is followed by others, as under the agent, if its ``restart`` says so.
    Raises ``DeclarationError``, ``NoSuchService``, and ``RuntimeFailure`` when it runs already.
    """
    withhold()
    notifier = SystemdNotifier()
    declaration = load(paths, os.environ)
    service = declaration.services.get(name)
    if service is None:
        nearest = difflib.get_close_matches(name[:64], declaration.services, n=1)
        raise NoSuchService(name[:64], nearest[0] if nearest else None)
    own = OncePaths(*paths)
    lay_out(own)
    lock = PrefixLock(own.service_lock(name))
    try:
        lock.acquire()
    except AlreadyRunning as error:
        told = f"{name} runs already, under process {error.pid}"
        notifier.status(told)
        raise RuntimeFailure(told) from error
    lock.release()
    become_subreaper()
    begun = time.monotonic()
    restart: Restart = "on-failure" if retry and service.restart != "no" else "no"
    once = msgspec.structs.replace(service, restart=restart, timer=None, enabled=True)
    policy = msgspec.structs.replace(policy_of(service), restart=restart, job=False)
    outcome = asyncio.run(_main(own, once, policy, declaration.agent, 2 if json else 1, notifier))
    notifier.status(outcome.told)
    if json:
        seconds = round(time.monotonic() - begun, 3)
        document = {"name": name, "exit_code": outcome.exit_code, "message": outcome.message, "seconds": seconds}
        print(msgspec.json.encode(document).decode())
    elif outcome.exit_code:
        print(f"agentctl: {name}: {outcome.told}", file=sys.stderr)
    return outcome.exit_code


class _Outcome(msgspec.Struct, frozen=True):
    exit_code: int
    message: str

    @property
    def told(self) -> str:
        """For people, to whom one exit code looks like another."""
        return f"{self.message}: its configuration is wrong" if self.exit_code == EXIT_CONFIGURATION else self.message


async def _main(
    paths: Paths,
    service: AnyService,
    policy: lifecycle.Policy,
    settings: AgentSettings,
    output: int,
    notifier: SystemdNotifier,
) -> _Outcome:
    loop = asyncio.get_running_loop()
    unit = Unit(Foreground(loop, paths, settings, output, notifier), service, policy)
    interrupted: list[int] = []

    def interrupt(number: int) -> None:
        interrupted.append(number)
        unit.post(lifecycle.Stop(f"interrupted by {signal.Signals(number).name}"))

    def reap() -> None:
        reap_strangers(lambda pid: pid == unit.pid)

    for number in ORDERS:
        signals.watch(loop, number, partial(interrupt, number))
    signals.watch(loop, signal.SIGCHLD, reap)
    unit.post(lifecycle.Boot())
    while unit.phase not in (Phase.COMPLETED, Phase.FAILED, Phase.STOPPED):
        await unit.change(float("inf"))
    unit.close()
    # From here on the loop is no more: an order, or the end of an orphan, must not find it closed.
    signal.pthread_sigmask(signal.SIG_BLOCK, ORDERS)
    signals.ignore(loop, signal.SIGCHLD)
    # Whoever shed every sign of the service is a descendant of ours all the same.
    signal_all(everything(), signal.SIGKILL)
    if interrupted:
        by_hand = interrupted[0] == signal.SIGINT and "NOTIFY_SOCKET" not in notifier.environment
        code = EXIT_INTERRUPTED if by_hand else EXIT_RUNTIME
        return _Outcome(code, f"interrupted by {signal.Signals(interrupted[0]).name}")
    verdict = unit.state.verdict
    code = EXIT_RUNTIME if verdict is None or verdict.cause or verdict.code is None else verdict.code
    return _Outcome(code if code in (EXIT_OK, EXIT_CONFIGURATION) else EXIT_RUNTIME, str(verdict or "did not start"))
