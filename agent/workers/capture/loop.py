"""The loop of a capturing process: packets are read as they come, and everything else by the clock."""

from __future__ import annotations

import asyncio
import signal
import time
from abc import ABC, abstractmethod

from agent.workers.capture.interfaces import Interfaces
from agent.workers.capture.source import Source
from agent.workers.runtime import Context

#: Seconds between two readings of the kernel's counters.
MEASURE = 1.0

#: What tells a capturing process to close the segments that it is writing.
ROTATE = signal.SIGUSR1


class CaptureLoop(ABC):
    """What all capturing processes do. ``self.sources`` is to be set by those that are made of it."""

    sources: Interfaces

    def __init__(self, context: Context) -> None:
        self.context = context
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._measure_at = 0.0
        asyncio.get_running_loop().add_signal_handler(ROTATE, self.rotate)

    async def run(self) -> None:
        """See to everything that is due by the clock; packets are read between, in the same loop.

        Ends by cancellation, or raises what a read raised.
        """
        while True:
            now = time.time_ns()
            self.sources.tend()
            for source in self.sources:
                source.tend(now)
            if time.monotonic() >= self._measure_at:
                for source in self.sources:
                    source.measure()
                self.measured()
                self._measure_at = time.monotonic() + MEASURE
            self.context.beat()
            await asyncio.wait([self._failed], timeout=self._next_duty())
            if self._failed.done():
                self._failed.result()

    @abstractmethod
    def measured(self) -> None:
        """The counters of the kernel have just been read."""

    def rotate(self) -> None:
        """Somebody wants what was captured so far in closed segments."""
        for source in self.sources:
            source.close_segment()

    def read(self, source: Source) -> None:
        """A ring has packets, or may have."""
        try:
            source.read()
        except Exception as error:
            if not self._failed.done():
                self._failed.set_exception(error)

    def _next_duty(self) -> float:
        """Seconds until something is due by the clock."""
        now = time.time_ns()
        return min(
            self.context.beat_interval,
            max(0.0, self._measure_at - time.monotonic()),
            self.sources.next_duty(now),
        )
