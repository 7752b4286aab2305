"""The worker of the service ``watch``: duties that run beside one another, each in its own module.

A duty is told to start, run and stop as a worker is. It calls ``turn`` whenever its loop comes by, at least once in
``ALLOWANCE`` seconds: the watch beats as long as all of them do, so that one that hangs has all of it replaced.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

from agent.declaration.model import Watch
from agent.errors import ConfigurationError, first_failure
from agent.workers.runtime import Context
from agent.workers.watch.drift_duty import DriftDuty
from agent.workers.watch.duty import Duty
from agent.workers.watch.notify import NotifyDuty

ALLOWANCE = 120.0
"""Seconds within which each duty has to come by."""


def duties_of(context: Context, service: Watch) -> list[Duty]:
    """All of them, in the order in which they start."""
    return [
        DriftDuty(context, service, context.data, os.environ.get("SERVICE_SERVER", "")),
        NotifyDuty(context, service, context.data),
    ]


class WatchWorker:
    """Made with a ``Context`` whose service is a ``Watch``. ``make`` gives its duties."""

    def __init__(self, context: Context, make: Callable[[Context, Watch], list[Duty]] = duties_of) -> None:
        """Raises ``ConfigurationError`` for other settings."""
        if not isinstance(context.service, Watch):
            raise ConfigurationError(f"{context.name}: not the settings of a watch")
        self._context = context
        self._duties = make(context, context.service)
        self._turned = dict.fromkeys(range(len(self._duties)), 0.0)

    async def start(self) -> None:
        """Start each duty. Raises what one of them does."""
        for duty in self._duties:
            await duty.start()
            self._context.beat()
        self._tell()

    async def run(self) -> None:
        """Run all of them until one fails, whose failure is raised, or the watch is told to stop."""
        try:
            async with asyncio.TaskGroup() as group:
                for number, duty in enumerate(self._duties):
                    self._turned[number] = time.monotonic()
                    group.create_task(self._alone(number, duty))
                while True:
                    if all(time.monotonic() - turned < ALLOWANCE for turned in self._turned.values()):
                        self._context.beat()
                    self._tell()
                    await asyncio.sleep(self._context.beat_interval / 2)
        except BaseExceptionGroup as failures:
            raise first_failure(failures) from None

    async def stop(self) -> None:
        """Stop each of them, whatever becomes of the others; the first failure is raised."""
        done = await asyncio.gather(*(duty.stop() for duty in self._duties), return_exceptions=True)
        for failure in done:
            if isinstance(failure, BaseException):
                raise failure

    async def _alone(self, number: int, duty: Duty) -> None:
        def turn() -> None:
            self._turned[number] = time.monotonic()

        await duty.run(turn)

    def _tell(self) -> None:
        figures: dict[str, int | float | str | None] = {}
        for duty in self._duties:
            figures |= duty.figures()
        words = [words for duty in self._duties if (words := duty.status())]
        self._context.status("; ".join(words) or "watching", figures)
