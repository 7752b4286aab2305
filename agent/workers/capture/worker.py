"""The capture worker: all interfaces of one service in one loop, one store for them all."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from agent.declaration.model import Capture
from agent.errors import ConfigurationError
from agent.workers.capture import report
from agent.workers.capture.counters import Counters
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
        self._store = Store(context.data, context.service.budget, self._report)
        self._sources = [
            Source(name, self._settings.options, self._settings.cut, self._store, self._report, self._readable)
            for name in context.service.interfaces
        ]
        self._ready: set[Source] = set()
        self._wake = asyncio.Event()
        self._measure_at = 0.0
        self._measured: tuple[float, int] | None = None

    async def start(self) -> None:
        """Adopt the store, open every interface."""
        self._store.adopt()
        self._store.make_room(self._settings.cut.headroom)
        for source in self._sources:
            source.start()

    async def run(self) -> None:
        """Read packets as they come, and see to everything that is due by the clock. Ends by cancellation."""
        while True:
            await self._wait()
            ready, self._ready = self._ready, set()
            self._wake.clear()
            for source in ready:
                if source.read():
                    self._readable(source)
            now = time.time_ns()
            for source in self._sources:
                source.tend(now)
            if time.monotonic() >= self._measure_at:
                self._measure()
            self._context.beat()

    async def stop(self) -> None:
        """Write what the kernel still holds, complete the segments, tell the final figures."""
        await asyncio.gather(*(source.stop() for source in self._sources))
        self._tell()

    async def _wait(self) -> None:
        """Until packets are ready or something is due; never without letting the loop turn once."""
        if self._wake.is_set():
            await asyncio.sleep(0)
            return
        now = time.time_ns()
        delays = [self._context.beat_interval, self._measure_at - time.monotonic()]
        delays += [due for source in self._sources if (due := source.next_duty(now)) is not None]
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, min(delays))):
                await self._wake.wait()

    def _readable(self, source: Source) -> None:
        self._ready.add(source)
        self._wake.set()

    def _measure(self) -> None:
        for source in self._sources:
            source.measure()
        self._measure_at = time.monotonic() + MEASURE
        self._tell()

    def _tell(self) -> None:
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
                storing=all(source.writer.storing for source in self._sources),
            ),
            report.figures(
                total,
                store_bytes=self._store.bytes,
                rate=(total.received - before[1]) / elapsed if elapsed > 0 else 0.0,
            ),
        )

    def _report(self, kind: str, message: str) -> None:
        self._context.log(message)
        self._context.event(kind, message)
