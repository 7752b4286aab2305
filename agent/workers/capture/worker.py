"""The capture worker: all interfaces of one service in one loop, one store for them all."""

from __future__ import annotations

import asyncio
import signal
import time

from agent.declaration.model import Capture
from agent.errors import ConfigurationError
from agent.workers.capture import report
from agent.workers.capture.armed import Armed, effective
from agent.workers.capture.indexing import Indexing
from agent.workers.capture.interfaces import Interfaces
from agent.workers.capture.retention import Limits
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
        self._settings = settings(effective(context.service))
        self._indexing = Indexing(self._report)
        self._disk = Store(context.data, self._limits(context.service), self._report, closed=self._closed)
        trigger = context.service.trigger
        self._armed = None if trigger is None else Armed(trigger, context.data, self._disk, self._report)
        self._store = self._disk if self._armed is None else self._armed.store
        self._sources = Interfaces(context.service.interfaces, self._settings, self._store, self._report, self._read)
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._measure_at = 0.0
        self._measured: tuple[float, int] | None = None
        asyncio.get_running_loop().add_signal_handler(ROTATE, self._rotate)

    async def start(self) -> None:
        """Adopt the store, open every interface."""
        self._disk.adopt()
        if self._armed is not None:
            self._armed.adopt()
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
            if self._armed is not None:
                self._armed.close()
            await self._indexing.stop()
            self._disk.tend()
            self._tell(self._sources.flow())

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
        flow = self._sources.flow()
        self._indexing.tend()
        if self._armed is not None:
            self._armed.tend(self._sources.counters, flow.lag)
        self._disk.tend()
        self._measure_at = time.monotonic() + MEASURE
        self._tell(flow)

    def _tell(self, flow: report.Flow) -> None:
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
                flow,
                store={
                    "store_state": self._store.state if storing else "full",
                    "store_bytes": self._disk.bytes,
                    "store_oldest": self._disk.oldest and self._disk.oldest / 1e9,
                    "unindexed": self._disk.unindexed,
                    "pins": self._disk.pinned,
                    **({} if self._store is self._disk else {"memory_bytes": self._store.bytes}),
                },
                rate=(total.received - before[1]) / elapsed if elapsed > 0 else 0.0,
            )
            | self._indexing.figures,
        )

    def _limits(self, service: Capture) -> Limits:
        """What bounds the store on disk. What moves there from memory is pinned, and its age is nobody's concern."""
        armed = service.trigger is not None and service.trigger.keep == "memory"
        return settings(service).limits if armed else self._settings.limits

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
