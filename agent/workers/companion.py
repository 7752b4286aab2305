"""A process that a worker keeps beside itself, of this very program, for what must not hold up its own loop.

It is a worker as well (``agent.workers.runtime``), of another kind and with the same settings: it beats, tells figures
and events, ends when its parent does, and leaves its last words in the service's log. What it says it says over a
channel to the worker, which starts it again, later and later, when it ends, and ends it when it hangs. It ends when
the worker says so there: the signals by which the agent stops all processes of a service leave it to finish its part.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any

from agent.errors import AgentError
from agent.linux.environment import own_program
from agent.linux.files import why
from agent.linux.spawn import Child, SpawnRequest, spawn
from agent.workers.channel import VARIABLE, Receiver

FIRST_RETRY, LONGEST_RETRY = 0.25, 60.0
"""Seconds until a companion that ended is started again."""

SETTLED = 60.0
"""Seconds after which one that ran is not counted as failing at once."""

STOPPING = 5.0
"""Seconds from asking a companion to end until it is killed."""

SILENCE = 60.0
"""Seconds without a word after which one is taken to hang."""

Report = Callable[[str, str], None]


class Companion:
    """One companion of ``kind``. ``variables`` are added to its environment, asked for at each start.

    ``figures`` is what it told last, ``said`` the latest of each field. ``report(kind, message)`` is for events, those
    of its own and those about it. ``capabilities`` and ``pass_fds`` as in ``SpawnRequest``; ``silence`` in seconds.
    """

    def __init__(
        self,
        kind: str,
        report: Report,
        *,
        variables: Callable[[], Mapping[str, str]] = dict,
        capabilities: Collection[str] = (),
        pass_fds: Collection[int] = (),
        silence: float = SILENCE,
    ) -> None:
        self.kind = kind
        self.figures: dict[str, Any] = {}
        self.said: dict[str, str] = {}
        self.failures = 0
        self._report = report
        self._variables = variables
        self._capabilities = capabilities
        self._pass_fds = tuple(pass_fds)
        self._silence = silence
        self._child: Child | None = None
        self._receiver: Receiver | None = None
        self._began = 0.0
        self._heard_at = 0.0
        self._spoken = False
        self._start_at: float | None = None

    @property
    def running(self) -> bool:
        """Whether there is such a process."""
        return self._child is not None

    def start(self) -> None:
        """Start it now. A failure is reported, and tried again later."""
        loop = asyncio.get_running_loop()
        try:
            receiver = Receiver()
        except OSError as error:
            self._fail(f"{self.kind}: cannot be started: {why(error)}")
            return
        try:
            self._child = spawn(
                SpawnRequest(
                    argv=(*own_program(), "worker", self.kind),
                    environment={**os.environ, **self._variables(), VARIABLE: str(receiver.theirs)},
                    stdout=2,
                    stderr=2,
                    pass_fds=(receiver.theirs, *self._pass_fds),
                    capabilities=self._capabilities,
                    own_program=True,
                    process_group_only=True,
                )
            )
        except (AgentError, OSError) as error:  # the latter for what is read on the way, when no descriptor is left
            receiver.close()
            self._fail(str(error) if isinstance(error, AgentError) else f"{self.kind}: cannot be started: {why(error)}")
            return
        receiver.close_theirs()
        self._receiver = receiver
        self._start_at = None
        self._spoken = False
        self._began = self._heard_at = time.monotonic()
        loop.add_reader(receiver.fd, self._listen)
        loop.add_reader(self._child.pidfd.fd, self._ended)

    def tend(self) -> None:
        """Do what is due: start it again, or end one that says nothing any more. Call once a second or so."""
        now = time.monotonic()
        if self._child is None:
            if self._start_at is not None and now >= self._start_at:
                self.start()
        elif now - self._heard_at > self._silence:
            self._heard_at = now
            self._report("companion_hung", f"{self.kind}: said nothing for {self._silence:.0f} s: ended")
            self._signal(signal.SIGKILL)

    def nudge(self) -> None:
        """Tell it that there is something to do."""
        if self._receiver is not None:
            self._receiver.nudge()

    def signal(self, number: int) -> None:
        """Send it a signal, if it is there and has said something: before that it would be ended by most of them."""
        if self._spoken:
            self._signal(number)

    async def stop(self) -> None:
        """End it, and wait until it is gone."""
        self._start_at = None
        if self._child is None:
            return
        child = self._child
        asyncio.get_running_loop().remove_reader(child.pidfd.fd)
        if self._receiver is not None:
            self._receiver.hang_up()
        if not await _gone(child.pidfd.fd, STOPPING):
            self._signal(signal.SIGKILL)
            await _gone(child.pidfd.fd, STOPPING)
        self._listen()
        self._release(child)

    def _listen(self) -> None:
        if self._receiver is None:
            return
        for fields in self._receiver.receive():
            self._heard_at = time.monotonic()
            self._spoken = True
            self.said |= fields
            if (figures := _decoded(fields.get("X_FIGURES"))) is not None:
                self.figures = figures
            event = _decoded(fields.get("X_EVENT"))
            if event is not None:
                self._report(str(event.get("kind", "")), str(event.get("message", "")))

    def _ended(self) -> None:
        child = self._child
        if child is None:
            return
        self._listen()
        status = child.pidfd.wait()
        asyncio.get_running_loop().remove_reader(child.pidfd.fd)
        self._release(child, waited=True)
        if time.monotonic() - self._began > SETTLED:
            self.failures = 0
        self._fail(f"{self.kind}: ended with {status}")

    def _fail(self, message: str) -> None:
        self.failures += 1
        delay = min(LONGEST_RETRY, FIRST_RETRY * 2.0 ** min(self.failures - 1, 10))
        self._start_at = time.monotonic() + delay
        self._report("companion_ended", f"{message}; started again in {delay:g} s")

    def _release(self, child: Child, *, waited: bool = False) -> None:
        if not waited:
            child.pidfd.wait()
        child.pidfd.close()
        self._child = None
        if self._receiver is not None:
            asyncio.get_running_loop().remove_reader(self._receiver.fd)
            self._receiver.close()
            self._receiver = None

    def _signal(self, number: int) -> None:
        if self._child is not None:
            self._child.pidfd.signal(number)


def _decoded(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    with suppress(ValueError, RecursionError):
        value = json.loads(text)
        return value if isinstance(value, dict) else None
    return None


async def _gone(pidfd: int, timeout: float) -> bool:
    """Whether a process ended within so many seconds."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def note() -> None:
        if not ended.done():
            ended.set_result(None)

    loop.add_reader(pidfd, note)
    try:
        await asyncio.wait({ended}, timeout=timeout)
    finally:
        loop.remove_reader(pidfd)
    return ended.done()
