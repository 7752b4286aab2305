"""A process beside the capture that takes its share of the packets of the same interfaces (``fanout``).

It writes segments of its own into the same directories, and tells the capture of each that is closed. The capture
alone adopts, indexes and removes them; what is open here is lent to us out of its budget.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from agent.declaration.model import Capture
from agent.errors import ConfigurationError
from agent.workers.capture import fanout, report
from agent.workers.capture.account import Account
from agent.workers.capture.finish import finish
from agent.workers.capture.interfaces import Interfaces
from agent.workers.capture.loop import CaptureLoop
from agent.workers.capture.retention import Limits
from agent.workers.capture.settings import settings
from agent.workers.capture.store import Report, Store
from agent.workers.runtime import Context

#: The event by which a member tells of a closed segment: not one for people.
SEGMENT = "segment_closed"

#: What is to be told of a member's life. That of the interfaces the capture sees itself.
TOLD = frozenset({"packets_unaccounted", "ring_shrunk", "storage_error", "storage_resumed"})


class Loan(Store):
    """What a member may write: its open segments, within ``limits``. A closed one is the capture's, and told of."""

    def __init__(self, directory: Path, limits: Limits, report: Report, told: Callable[[Path], None]) -> None:
        super().__init__(directory, limits, report)
        self._told = told

    def _name(self, part: Path, begin: int, size: int, record: Account | None) -> Path:
        path = finish(part, begin, record).path
        self._told(path)
        return path


class MemberWorker(CaptureLoop):
    """Raises ``ConfigurationError`` when made for settings that cannot work."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        if not isinstance(context.service, Capture):
            raise ConfigurationError(f"service {context.name} is of kind {context.service.kind}, not capture")
        made = settings(context.service)
        self._groups = fanout.inherited(os.environ)
        made = replace(made, options=replace(made.options, groups=self._groups))
        limits = made.limits._replace(budget=made.limits.budget // (2 * made.processes), max_age=None)
        self._store = Loan(context.data, limits, self._report, self._closed)
        self.sources = Interfaces(context.service.interfaces, made, self._store, self._report, self.read)

    async def start(self) -> None:
        """Open every interface that the capture has opened."""
        self.sources.start()

    async def stop(self) -> None:
        """Write what the kernel still holds, complete the segments, tell the final figures."""
        try:
            await self.sources.stop()
        finally:
            self.measured()
            self._groups.close()

    def measured(self) -> None:
        """Tell what has been captured here."""
        parts = self.sources.parts()
        flow = sum((part.flow for part in parts.values()), report.Flow())
        figures = report.figures(self.sources.counters, flow, store={"open_bytes": self._store.bytes}, rate=0.0)
        self.context.status("", figures, report.by_interface(parts, rates={}, cut={}))

    def _closed(self, path: Path) -> None:
        self.context.event(SEGMENT, f"{path.parent.name}/{path.name}")

    def _report(self, kind: str, message: str) -> None:
        if kind in TOLD:
            self.context.event(kind, message)
