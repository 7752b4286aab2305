"""The capture worker: all interfaces of one service in one loop, one store for them all."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

from agent.declaration.model import Capture
from agent.errors import ConfigurationError
from agent.workers.capture import fanout, handed, ownership, report
from agent.workers.capture.armed import Armed, effective
from agent.workers.capture.indexing import Indexing
from agent.workers.capture.interfaces import Interfaces
from agent.workers.capture.loop import CaptureLoop
from agent.workers.capture.members import Members
from agent.workers.capture.retention import Limits
from agent.workers.capture.settings import settings
from agent.workers.capture.source import TURN
from agent.workers.capture.store import Store
from agent.workers.runtime import Context

#: Seconds between two looks for segments that another process has closed, or left open, and did not tell of.
DISCOVER = 30.0

#: The part of ``stop_timeout`` in which a stop may move packets from memory to the disk. Who takes longer to stop than
#: all of it is killed, and could not tell what is lost.
MOVING = 0.5


class CaptureWorker(CaptureLoop):
    """Raises ``ConfigurationError`` when made for settings that cannot work."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        if not isinstance(context.service, Capture):
            raise ConfigurationError(f"service {context.name} is of kind {context.service.kind}, not capture")
        self._settings = settings(effective(context.service))
        self._indexing = Indexing(self._report, time.time_ns())
        self._disk = Store(context.data, self._limits(context.service), self._report, closed=self._closed)
        trigger = context.service.trigger
        self._armed = None if trigger is None else Armed(trigger, context.data, self._disk, self._report, _handed())
        self._store = self._disk if self._armed is None else self._armed.store
        self._groups: fanout.Groups | None = None
        self._members: Members | None = None
        if self._settings.processes > 1:
            self._groups = fanout.made()
            self._settings = replace(self._settings, options=replace(self._settings.options, groups=self._groups))
            self._members = Members(
                self._settings.processes - 1,
                self._groups,
                self._report,
                self._disk.welcome,
                self._member_ended,
                self._member_wanting,
            )
        self._discover_at, self._anew = 0.0, False
        self.sources = Interfaces(context.service.interfaces, self._settings, self._store, self._report, self.read)
        self._measured = time.monotonic()
        self._received: dict[str, int] = {}
        self._received_in_all = 0

    async def start(self) -> None:
        """Adopt the store, open every interface."""
        ownership.check(self.context.data)
        if self._armed is not None:
            self._armed.take_over()
        self._disk.adopt()
        if self._armed is not None:
            self._armed.adopt()
        self._store.make_room(self._settings.cut(1).headroom)
        self._lend()
        self.sources.start()
        if self._members is not None:
            self._members.start()
        self._indexing.start()

    async def stop(self) -> None:
        """Write what the kernel still holds, complete the segments, tell the final figures."""
        until = time.monotonic() + self.context.service.stop_timeout * MOVING
        try:
            if self._members is not None:
                await self._members.stop()
            await self.sources.stop()
        finally:
            if self._groups is not None:
                self._groups.close()
            if self._armed is not None:
                self._armed.close(max(0.0, until - time.monotonic()))
            await self._indexing.stop()
            self._disk.tend()
            self._tell(self.sources.parts())

    def measured(self) -> None:
        """Look after everything, and tell how it is."""
        parts = self.sources.parts()
        self._indexing.tend()
        if self._armed is not None:
            self._armed.tend(self.sources.counters, max((part.flow.lag for part in parts.values()), default=0))
        if self._members is not None:
            self._members.tend()
            self._lend()
            self._discover()
        self._disk.tend()
        self._tell(parts)

    def rotate(self) -> None:
        """Somebody wants what was captured so far in closed segments."""
        super().rotate()
        if self._members is not None:
            self._members.rotate()

    def _lend(self) -> None:
        """So much of the budget, and of the disk, is for what members write."""
        interfaces = len(list(self.sources))
        if self._members is not None and interfaces:
            self._disk.lent = (self._settings.processes - 1) * interfaces * self._settings.cut(interfaces).most
            self._disk.lent_used = self._members.open_bytes

    def _discover(self) -> None:
        now = time.monotonic()
        if now >= self._discover_at:
            anew, self._anew = self._anew, False
            if self._disk.discover(now + TURN, anew=anew):
                self._discover_at = now + DISCOVER

    def _member_ended(self) -> None:
        self._discover_at, self._anew = 0.0, True

    def _member_wanting(self, error: OSError) -> None:
        self._disk.squeeze(error, self._settings.cut(max(1, len(list(self.sources)))).headroom)

    def _tell(self, parts: dict[str, report.Part]) -> None:
        storing = self.sources.storing
        total, open_bytes = self.sources.counters, 0
        flow = sum((part.flow for part in parts.values()), report.Flow())
        if self._members is not None:
            total += self._members.counters
            flow += self._members.flow()
            open_bytes = self._members.open_bytes
            theirs = self._members.parts()
            parts = {name: part + theirs[name] if name in theirs else part for name, part in parts.items()}
        rate, rates = self._rates(total.received, {name: part.counters.received for name, part in parts.items()})
        self.context.status(
            report.summary(
                self.sources.names,
                self.sources.waiting,
                total,
                store=self._store.state if storing else "full",
            ),
            report.figures(
                total,
                flow,
                store={
                    "store_state": self._store.state if storing else "full",
                    "store_bytes": self._disk.bytes + open_bytes,
                    "store_oldest": self._disk.oldest and self._disk.oldest / 1e9,
                    "unindexed": self._disk.unindexed,
                    "pins": self._disk.pinned,
                    "interfaces": len(parts),
                    **({} if self._store is self._disk else {"memory_bytes": self._store.bytes}),
                },
                rate=rate,
            )
            | self._indexing.figures,
            report.by_interface(parts, rates=rates, cut=self._indexing.cut),
        )

    def _rates(self, in_all: int, received: dict[str, int]) -> tuple[float, dict[str, float]]:
        """Packets per second since this was asked last: in all, and by interface."""
        now = time.monotonic()
        elapsed = max(now - self._measured, 1e-3)
        rates = {name: (count - self._received.get(name, count)) / elapsed for name, count in received.items()}
        rate = (in_all - self._received_in_all) / elapsed
        self._measured, self._received, self._received_in_all = now, received, in_all
        return rate, rates

    def _limits(self, service: Capture) -> Limits:
        """What bounds the store on disk. What moves there from memory is pinned, and its age is nobody's concern."""
        armed = service.trigger is not None and service.trigger.keep == "memory"
        return settings(service).limits if armed else self._settings.limits

    def _closed(self) -> None:
        """A segment is complete: it can be indexed."""
        self._indexing.nudge()

    def _report(self, kind: str, message: str) -> None:
        self.context.log(message)
        self.context.event(kind, message)


def _handed() -> Path | None:
    """Where the agent leaves triggers for us."""
    config = os.environ.get("SERVICE_CONFIG")
    return handed.place(Path(config)) if config else None
