"""One version of this program following another in the agent's process, with every worker running on.

The PID stays the same, and so the workers stay our children, their exit statuses ours to collect, and their pipes,
locks and notify sockets open. In the order in which it happens::

    this version                                              the next
    ─────────────────────────────────────────────────────────────────────────────────────────────
    try out: selftest of what is installed, as a child of ours
    suspend: answers under way are finished, new clients wait
    freeze:  everything that is known, into a sealed file;
             a copy for systemd's descriptor store
    execve ──────────────────────────────────────────────────▶ thaw: units, runs, timers, sockets
                                                               serve, forget the stored copy
      ◀───────────────── execve, with the reason ───────────── whatever fails before that
    thaw, go on as if nothing had been

Should neither of them survive, systemd starts the agent anew and returns what was stored: see ``recover``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from typing import NoReturn

import msgspec

from agent import __version__
from agent.control import baton
from agent.control.baton import Outer, Received
from agent.control.console import Untold
from agent.errors import RuntimeFailure
from agent.linux.become import become
from agent.linux.environment import Program, fresh_environment, installed_program, running_program
from agent.linux.notify import SystemdNotifier
from agent.supervisor.engine import SupervisorState
from agent.supervisor.report import HandoverReport, ReloadReport
from agent.telemetry.events import History

STATE, OUTPUT = "handover", "output"
"""Names in the descriptor store: the baton, and each pipe that a worker writes to."""


def successor() -> Program | None:
    """What is installed, if that is another program than the one that runs."""
    found = installed_program()
    return None if found == running_program() else found


class Succession:
    """The last hand-over of this process, and the way into the next."""

    def __init__(self, words: list[str], environ: Mapping[str, str], notifier: SystemdNotifier) -> None:
        """``words`` are the arguments with which a program is the agent, ``environ`` is what the agent began with."""
        self.report = HandoverReport()
        self._words = words
        self._environ = dict(environ)
        self._notifier = notifier

    def begin(self, program: Program) -> HandoverReport:
        """It has been tried out and is to follow."""
        self.report = HandoverReport(id=os.urandom(8).hex(), state="begun", before=__version__, after=program.argv[0])
        return self.report

    def fail(self, why: str) -> None:
        """It came to nothing."""
        self.report = msgspec.structs.replace(self.report, state="failed", message=why)

    def pass_on(
        self,
        program: Program,
        *,
        since: float,
        lock: int,
        control: int,
        remove: str | None,
        supervisor: SupervisorState,
        history: History,
        console: Untold,
        credential: tuple[int, int, int] | None = None,
        reloading: bool = False,
    ) -> NoReturn:
        """Become ``program``. Raises ``RuntimeFailure`` and ``OSError``, and then everything is as it was."""
        descriptors = [lock, control, *held_by(supervisor)]
        outputs = {unit.run.output: unit.service.name for unit in supervisor.units if unit.run is not None}
        inner = baton.Inner(
            since=since,
            lock=lock,
            control=control,
            remove=remove,
            supervisor=supervisor,
            history=history,
            pipes={os.fstat(fd).st_ino: name for fd, name in outputs.items()},
            console=console,
            credential=credential,
            reloading=reloading,
        )
        outer = Outer(
            format=baton.FORMAT,
            id=self.report.id,
            version=__version__,
            program=running_program(),
            frozen_at=time.monotonic(),
            descriptors=descriptors,
            inner=msgspec.Raw(msgspec.json.encode(inner)),
        )
        fd = baton.seal(outer)
        try:
            if self._notifier.store(STATE, fd):
                # Whoever does not take one does not take the next: a manager that hangs costs a moment, not one each.
                all(self._notifier.store(OUTPUT, output) for output in outputs)
                # systemd 253 and newer end no reload before this, and, should nobody survive, restart nothing before.
                self._notifier.ready()
            environment = self._environment(program, {baton.VARIABLE: str(fd)})
            become([*program.argv, *self._words], environment, [fd, *descriptors])
        finally:  # it is still us
            self.forget()
            os.close(fd)

    def give_back(self, received: Received, why: str) -> NoReturn:
        """Let the program before have the process again. Raises ``RuntimeFailure`` when that cannot be."""
        if received.refused is not None:
            raise RuntimeFailure(f"{why}; and it was given back before: {received.refused}")
        program = received.outer.program
        handed = {baton.VARIABLE: str(received.fd), baton.REFUSED: why[:1000].replace("\0", " ")}
        environment = self._environment(program, handed)
        try:
            become([*program.argv, *self._words], environment, [received.fd, *received.outer.descriptors])
        except RuntimeFailure as error:
            raise RuntimeFailure(f"{why}; and there is no way back: {error}") from error

    def taken_over(self, received: Received) -> None:
        """We are the next program, or the one before again, and all is in our hands."""
        self.forget()
        os.close(received.fd)
        pause = round((time.monotonic() - received.outer.frozen_at) * 1000, 1)
        before = received.outer.version
        if received.refused is None:
            message = f"version {before} handed over to {__version__}; for {pause:g} ms nobody supervised"
        else:
            message = f"{before} runs on: the version to follow could not take over: {received.refused}"
        self.report = HandoverReport(
            id=received.outer.id,
            state="begun" if received.refused is None else "failed",
            before=before,
            after=__version__,
            message=message,
            pause_ms=pause,
        )

    def complete(self, reload: ReloadReport | None, refused: str | None) -> None:
        """The declaration has been read anew as well, and made true or refused."""
        self.report = msgspec.structs.replace(self.report, state="done", reload=reload, refused=refused)

    def crashed(self, outer: Outer) -> None:
        """We were started anew, because nobody had survived a hand-over."""
        self.forget()
        self.report = HandoverReport(
            id=outer.id,
            state="failed",
            before=outer.version,
            after=__version__,
            message=f"the agent died while version {outer.version} handed over; version {__version__} was started anew",
        )

    def forget(self) -> None:
        """Have systemd close its copies."""
        self._notifier.unstore(STATE)
        self._notifier.unstore(OUTPUT)

    def _environment(self, program: Program, handed: Mapping[str, str]) -> dict[str, str]:
        return {**fresh_environment(self._environ), **program.variables, **self._notifier.environment, **handed}


def held_by(supervisor: SupervisorState) -> Iterable[int]:
    """Every descriptor that a frozen supervisor refers to."""
    for unit in supervisor.units:
        if unit.tenancy.lock is not None:
            yield unit.tenancy.lock
        if unit.tenancy.ear is not None:
            yield unit.tenancy.ear.fd
        if unit.run is not None:
            yield unit.run.output
            if unit.run.pidfd is not None:
                yield unit.run.pidfd
