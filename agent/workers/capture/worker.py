"""The capture worker: all interfaces of one service in one loop, one store for them all."""

from __future__ import annotations

import asyncio
import signal
import time

from agent.declaration.model import Capture
from agent.errors import ConfigurationError
from agent.workers.capture import report
from agent.workers.capture.indexing import Indexing
from agent.workers.capture.interfaces import Interfaces
from agent.workers.capture.settings import settings
from agent.workers.capture.source import Source
from agent.workers.capture.store import Store
from agent.workers.runtime import Context

#: Seconds between two readings of the kernel's counters.
MEASURE = 1.0

#: What tells the worker to close the segments that it is writing.
ROTATE = signal.SIGUSR1


class CaptureWorker:
    """Raises ``ConfigurationError`` when made for settings that cannot work."""

    def __init__(self, context: Context) -> None:
        if not isinstance(context.service, Capture):
            raise ConfigurationError(f"service {context.name} is of kind {context.service.kind}, not capture")
        self._context = context
        self._settings = settings(context.service)
        self._indexing = Indexing(self._report)
        self._store = Store(context.data, self._settings.limits, self._report, closed=self._closed)
        self._sources = Interfaces(context.service.interfaces, self._settings, self._store, self._report, self._read)
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._measure_at = 0.0
        self._measured: tuple[float, int] | None = None
        asyncio.get_running_loop().add_signal_handler(ROTATE, self._rotate)

    async def start(self) -> None:
        """Adopt the store, open every interface."""
        self._store.adopt()
        self._store.make_room(self._settings.cut(1).headroom)
        self._sources.start()
        self._indexing.start()

    async def run(self) -> None:
        """See to everything that is due by the clock; packets are read between, in the same loop.

        Ends by cancellation, or raises what a read raised.
        """
        while True:
            now = time.time_ns()
            self._sources.tend()
            for source in self._sources:
                source.tend(now)
            if time.monotonic() >= self._measure_at:
                self._measure()
            self._context.beat()
            await asyncio.wait([self._failed], timeout=self._next_duty())
            if self._failed.done():
                self._failed.result()

    async def stop(self) -> None:
        """Write what the kernel still holds, complete the segments, tell the final figures."""
        try:
            await self._sources.stop()
        finally:
            await self._indexing.stop()
            self._store.tend()
            self._tell()

    def _next_duty(self) -> float:
        """Seconds until something is due by the clock."""
        now = time.time_ns()
        return min(
            self._context.beat_interval,
            max(0.0, self._measure_at - time.monotonic()),
            self._sources.next_duty(now),
        )

    def _read(self, source: Source) -> None:
        """A ring has packets. Called again at the next turn of the loop while it still has."""
        try:
            source.read()
        except Exception as error:
            if not self._failed.done():
                self._failed.set_exception(error)

    def _measure(self) -> None:
        for source in self._sources:
            source.measure()
        self._indexing.tend()
        self._store.tend()
        self._measure_at = time.monotonic() + MEASURE
        self._tell()

    def _tell(self) -> None:
        storing = self._sources.storing
        total = self._sources.counters
        now = time.monotonic()
        before = self._measured or (now, total.received)
        self._measured = (now, total.received)
        elapsed = now - before[0]
        self._context.status(
            report.summary(
                self._sources.names,
                self._sources.waiting,
                total,
                store=self._store.state if storing else "full",
            ),
            report.figures(
                total,
                self._sources.flow(),
                store={
                    "store_state": self._store.state if storing else "full",
                    "store_bytes": self._store.bytes,
                    "store_oldest": self._store.oldest and self._store.oldest / 1e9,
                    "unindexed": self._store.unindexed,
                    "pins": self._store.pinned,
                },
                rate=(total.received - before[1]) / elapsed if elapsed > 0 else 0.0,
            )
            | self._indexing.figures,
        )

    def _rotate(self) -> None:
        """Somebody wants what was captured so far in closed segments."""
        for source in self._sources:
            source.close_segment()

    def _closed(self) -> None:
        """A segment is complete: it can be indexed."""
        self._indexing.nudge()

    def _report(self, kind: str, message: str) -> None:
        self._context.log(message)
        self._context.event(kind, message)
