"""A process beside the capture that takes its share of the packets of the same interfaces (``fanout``).

It writes segments of its own into the same directories, and tells the capture of each that is closed. The capture
alone adopts, indexes and removes them; what is open here is lent to us out of its budget.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from agent.declaration.model import Capture
from agent.errors import ConfigurationError
from agent.linux.capabilities import NotGranted, confine
from agent.linux.capability_sets import NET_RAW, mask
from agent.workers.capture import fanout, report
from agent.workers.capture.account import Account
from agent.workers.capture.catalogue import ACCOUNT
from agent.workers.capture.finish import finish
from agent.workers.capture.interfaces import Interfaces
from agent.workers.capture.loop import CaptureLoop
from agent.workers.capture.retention import Limits
from agent.workers.capture.settings import settings
from agent.workers.capture.store import FULL, Report, Store
from agent.workers.runtime import Context

#: The event by which a member tells of a closed segment: not one for people.
SEGMENT = "segment_closed"

#: The one by which it tells that the disk would not take what there should be room for: the number of the error.
WANTING = "room_wanted"

#: What is to be told of a member's life. That of the interfaces the capture sees itself.
TOLD = frozenset({"packets_unaccounted", "ring_shrunk", "storage_error", "storage_resumed"})


class Loan(Store):
    """What a member may write: its open segments, within ``limits``. A closed one is the capture's, and ``told`` of.

    ``wanting`` is called with the number of an error when the disk would not take what there should be room for.
    """

    def __init__(
        self,
        directory: Path,
        limits: Limits,
        report: Report,
        told: Callable[[Path], None],
        wanting: Callable[[int], None],
    ) -> None:
        super().__init__(directory, limits, report)
        self._told = told
        self._wanting = wanting

    def tend(self) -> None:
        """What is due once a second: name what would not be named, and see whether the clock was set."""
        self._finish()
        for part in self._open:
            self._steps.opened(part)

    def squeeze(self, error: OSError, want: int) -> bool:
        """The disk would not take what it promised. Room is the capture's to make, and it is asked for that."""
        if error.errno in FULL:
            self._wanting(error.errno)
        return False

    def _name(self, part: Path, begin: int, size: int, record: Account | None) -> Path:
        done = finish(part, begin, record)
        self._ends.pop(part, None)
        if done.missing is not None and record is not None:
            self._store_account(done.path.with_suffix(ACCOUNT), record)
        self._told(done.path)
        return done.path


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
        self._store = Loan(context.data, limits, self._report, self._closed, self._wanting)
        self.sources = Interfaces(context.service.interfaces, made, self._store, self._report, self.read)

    async def start(self) -> None:
        """Open every interface that the capture has opened; a program of root's holds no more for that than others."""
        with suppress(NotGranted):  # in the shipped unit capset(2) is forbidden, and nothing else is held
            confine(mask([NET_RAW]))
        self.sources.start()

    async def stop(self) -> None:
        """Write what the kernel still holds, complete the segments, tell the final figures."""
        try:
            await self.sources.stop()
        finally:
            self.measured()
            self._groups.close()

    def measured(self) -> None:
        """Name what is left to be named, and tell what has been captured here."""
        self._store.tend()
        parts = self.sources.parts()
        flow = sum((part.flow for part in parts.values()), report.Flow())
        figures = report.figures(self.sources.counters, flow, store={"open_bytes": self._store.bytes}, rate=0.0)
        self.context.status("", figures, report.by_interface(parts, rates={}, cut={}))

    def _closed(self, path: Path) -> None:
        self.context.event(SEGMENT, f"{path.parent.name}/{path.name}")

    def _wanting(self, number: int) -> None:
        self.context.event(WANTING, str(number))

    def _report(self, kind: str, message: str) -> None:
        if kind in TOLD:
            self.context.event(kind, message)
