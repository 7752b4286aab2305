"""The capture worker: all interfaces of one service in one loop, one store for them all."""

from __future__ import annotations

import asyncio
import time

from agent.declaration.model import Capture
from agent.errors import ConfigurationError
from agent.workers.capture import report
from agent.workers.capture.counters import Counters
from agent.workers.capture.indexing import Indexing
from agent.workers.capture.settings import settings
from agent.workers.capture.source import Source
from agent.workers.capture.store import Store
from agent.workers.runtime import Context

#: Seconds between two readings of the kernel's counters.
MEASURE = 1.0


class CaptureWorker:
    """Raises ``ConfigurationError`` when made for settings that cannot work."""

    def __init__(self, context: Context) -> None:
        if not isinstance(context.service, Capture):
            raise ConfigurationError(f"service {context.name} is of kind {context.service.kind}, not capture")
        self._context = context
        self._settings = settings(context.service)
        self._indexing = Indexing(self._report)
        self._store = Store(context.data, self._settings.limits, self._report, closed=self._closed)
        self._sources = [
            Source(name, self._settings.options, self._settings.cut, self._store, self._report, self._read)
            for name in context.service.interfaces
        ]
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._measure_at = 0.0
        self._measured: tuple[float, int] | None = None

    async def start(self) -> None:
        """Adopt the store, open every interface."""
        self._store.adopt()
        self._store.make_room(self._settings.cut.headroom)
        for source in self._sources:
            source.start()
        self._indexing.start()

    async def run(self) -> None:
        """See to everything that is due by the clock; packets are read between, in the same loop.

        Ends by cancellation, or raises what a read raised.
        """
        while True:
            now = time.time_ns()
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
        ends = await asyncio.gather(*(source.stop() for source in self._sources), return_exceptions=True)
        await self._indexing.stop()
        self._store.tend()
        self._tell()
        for end in ends:
            if end is not None:
                raise end

    def _next_duty(self) -> float:
        """Seconds until something is due by the clock."""
        now = time.time_ns()
        return min(
            self._context.beat_interval,
            max(0.0, self._measure_at - time.monotonic()),
            *(source.next_duty(now) for source in self._sources),
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
        storing = all(source.writer.storing for source in self._sources)
        total = sum((source.counters for source in self._sources), Counters())
        now = time.monotonic()
        before = self._measured or (now, total.received)
        self._measured = (now, total.received)
        elapsed = now - before[0]
        self._context.status(
            report.summary(
                [source.interface for source in self._sources],
                [source.interface for source in self._sources if source.waiting],
                total,
                store=self._store.state if storing else "full",
            ),
            report.figures(
                total,
                sum((source.flow() for source in self._sources), report.Flow()),
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

    def _closed(self) -> None:
        """A segment is complete: it can be indexed."""
        self._indexing.nudge()

    def _report(self, kind: str, message: str) -> None:
        self._context.log(message)
        self._context.event(kind, message)
