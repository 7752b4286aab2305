"""The index process of a capture service: segments as they grow, and those that have no index yet, oldest first.

It runs beside the capture worker and below it in priority, holds no capability, and can be killed at any time: what it
was about to write is made again. A segment that cannot be indexed gets an empty index, so that it is searched as it is
and does not stay in the store for ever.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agent.declaration.collector import parse_collector
from agent.declaration.model import Capture
from agent.errors import ConfigurationError, StorageFailure
from agent.linux.capabilities import NotGranted, confine
from agent.linux.files import why
from agent.linux.priority import stand_back
from agent.workers.capture.catalogue import Segment, segments
from agent.workers.index import turn
from agent.workers.index.build import Workspace
from agent.workers.index.growing import Growing, NotOurs
from agent.workers.index.lookout import Lookout
from agent.workers.index.tally import Tally
from agent.workers.runtime import Context

if TYPE_CHECKING:
    from agent.workers.flows.exporter import Exporter
    from agent.workers.inventory.inventory import Inventory

PACE = 0.5
"""Seconds from one look at what grew to the next."""

NICENESS = 10

FIRST_RETRY, LONGEST_RETRY = 1.0, 300.0
"""Seconds until what failed is tried again."""

LATE = 2_000_000_000
"""Nanoseconds from the first packet of a segment to its file, at the longest: it waits in the ring until then."""

MOST_KEPT = 32 * 1024 * 1024
"""Bytes of indexes that are not on disk yet, of all segments together."""

SEGMENT = "X_SEGMENT"
"""The field that says which segment is being looked into, by device and inode: its name changes. Empty: none is."""

SUSPECT = "SERVICE_SUSPECT"
"""The segment over which this process has died before, told by its parent: it is not looked into again."""

SINCE = "SERVICE_SINCE"
"""Since when the capture runs, told by our parent in nanoseconds since the epoch."""


class IndexWorker:
    """Raises ``ConfigurationError`` when made for a service that captures nothing."""

    def __init__(self, context: Context) -> None:
        if not isinstance(context.service, Capture):
            raise ConfigurationError(f"service {context.name} is of kind {context.service.kind}, not capture")
        self._context = context
        self._suspect = os.environ.get(SUSPECT)
        self._lookout = Lookout(context.data)
        self._growing: dict[tuple[int, int], Growing] = {}
        self._foreign: set[Path] = set()
        self._later: dict[Path, Attempt] = {}
        self._waiting = 0
        self._packets = 0
        self._tally = Tally(int(os.environ.get(SINCE, "0")))
        self._until = 0
        self._looked = time.time_ns()
        self._workspace = Workspace()
        self._inventory: Inventory | None = None
        self._exporter = _exporter(context.service.ipfix, context, self._report)

    async def start(self) -> None:
        """Stand back for the capture, and hold nothing: a program of root's holds what root does, and reads packets."""
        stand_back(NICENESS)
        with suppress(NotGranted):  # in the shipped unit capset(2) is forbidden, and nothing is held
            confine(0)
        await turn.awaited(self._context)
        self._tally.recount(segments(self._context.data))
        self._inventory = _inventory(self._context, self._report)
        if self._exporter is not None:
            self._exporter.start()

    async def run(self) -> None:
        """Index what there is, then what comes, until cancelled."""
        while True:
            began = time.monotonic()
            known = self._look()
            await self._open(known)
            await self._closed(known)
            if self._inventory is not None:
                self._inventory.save()
            self._tell()
            await self._pause(began + PACE)

    async def stop(self) -> None:
        """Finish what was closed last, for that is what is asked for next. What is open is begun anew another time."""
        with closing(self._lookout):
            await self._stop()

    async def _stop(self) -> None:
        try:
            looked = self._looked
            await self._closed([segment for segment in self._look() if self._held(segment) or _new(segment, looked)])
        finally:
            for growing in self._growing.values():
                growing.close()
            if self._inventory is not None:
                self._inventory.save(at_once=True)
            if self._exporter is not None:
                self._exporter.stop()

    async def _pause(self, until: float) -> None:
        """Wait for a nudge, until the monotonic clock says so at the longest."""
        # Not wait_for, which in Python 3.11 may take a cancellation for the end of what it waits for.
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, until - time.monotonic())):
                await self._context.nudged.wait()
        self._context.nudged.clear()

    def _look(self) -> list[Segment]:
        """The segments that have no whole index, oldest first. Raises ``StorageFailure``."""
        for growing in [growing for growing in self._growing.values() if growing.gone()]:
            self._tally.settle(growing.identity)
            self._forget(growing)
        self._looked = time.time_ns()
        found = self._lookout.unindexed()
        self._tell_unfinished(found)
        if self._foreign or self._later:
            paths = {segment.path for segment in found}
            self._foreign &= paths
            self._later = {path: attempt for path, attempt in self._later.items() if path in paths}
        return self._timely(found)

    def _tell_unfinished(self, found: list[Segment]) -> None:
        if self._exporter is not None:
            self._exporter.look({segment.interface: segment.begin for segment in sorted(found, reverse=True)})

    def _timely(self, found: list[Segment]) -> list[Segment]:
        """Those that are ours, as far as is known, and are not left for later."""
        if not self._foreign and not self._later:
            return found
        now = time.monotonic()
        return [
            segment
            for segment in found
            if segment.path not in self._foreign
            and not (segment.path in self._later and self._later[segment.path].at > now)
        ]

    async def _open(self, known: list[Segment]) -> None:
        """Index what was written to open segments since."""
        for segment in known:
            if not segment.closed and not self._is_suspect(segment) and (growing := self._hold(segment)):
                await self._advance(growing, segment)

    async def _closed(self, known: list[Segment]) -> None:
        """Finish the index of each closed segment."""
        waiting = [segment for segment in known if segment.closed]
        look_at = time.monotonic() + PACE
        for number, segment in enumerate(waiting):
            self._waiting = len(waiting) - number
            if self._is_suspect(segment):
                self._give_up(segment, "its index could not be made")
            elif (growing := self._hold(segment)) and await self._advance(growing, segment):
                self._finish(growing, segment)
            if number + 1 < len(waiting) and time.monotonic() >= look_at:  # what is open must not wait for the past
                opened = self._lookout.opened()
                self._tell_unfinished([*opened, *waiting[number + 1 :]])
                await self._open(self._timely(opened))
                look_at = time.monotonic() + PACE
        self._waiting = 0

    def _held(self, segment: Segment) -> bool:
        return _identity(segment) in self._growing

    def _is_suspect(self, segment: Segment) -> bool:
        return self._suspect is not None and _told(_identity(segment)) == self._suspect

    def _hold(self, segment: Segment) -> Growing | None:
        """The index of this segment as far as it is made; ``None`` when the segment is gone, or none."""
        try:
            status = segment.path.stat(follow_symlinks=False)
            held = self._growing.get((status.st_dev, status.st_ino))
            if held is None:
                held = Growing(segment.path, self._workspace)
                self._growing[held.identity] = held
            return held
        except FileNotFoundError:
            return None
        except NotOurs:  # an open one may be so young that its header is not written yet
            if segment.closed and segment.account.exists():  # a power failure left the name and not the packets
                self._give_up(segment, "not a pcap file, though a capture of ours wrote it")
            elif segment.closed:
                self._foreign.add(segment.path)
        except OSError as error:
            self._try_later(segment.path, f"{segment.path}: cannot be read: {why(error)}")
        return None

    async def _advance(self, growing: Growing, segment: Segment) -> bool:
        """Index what there is; returns whether that went well."""
        self._context.tell(**{SEGMENT: _told(growing.identity)})
        try:
            for chunk in growing.advance():
                self._packets += chunk.packets
                self._tally.add(growing.identity, segment, chunk.cut)
                self._until = max(self._until, chunk.last)
                if self._inventory is not None:
                    self._inventory.observe(growing.fd, segment.interface, chunk)
                self._context.beat()
                self._tell()
                await asyncio.sleep(0)
        except OSError as error:
            self._try_later(segment.path, f"{segment.path}: cannot be indexed: {why(error)}")
            self._forget(growing)
            return False
        finally:
            self._context.tell(**{SEGMENT: ""})
        self._bound()
        return growing.fd >= 0

    def _bound(self) -> None:
        """Write the largest of what is not written yet, until the rest fits."""
        while sum(growing.weight for growing in self._growing.values()) > MOST_KEPT:
            largest = max(self._growing.values(), key=lambda growing: growing.weight)
            try:
                largest.seal()
            except OSError as error:
                self._try_later(largest.path, f"{largest.path}: its index cannot be written: {why(error)}")
                self._forget(largest)

    def _finish(self, growing: Growing, segment: Segment) -> None:
        try:
            damaged = growing.damaged
            growing.finish(segment.path)
            self._tally.settle(growing.identity)
            self._later.pop(segment.path, None)
            if damaged:
                self._report("index_failed", f"{segment.path}: damaged from byte {growing.place} on: no index of that")
            if self._exporter is not None:
                self._exporter.wake(segment)
        except StorageFailure as error:
            self._try_later(segment.path, str(error))
        self._forget(growing)

    def _give_up(self, segment: Segment, reason: str) -> None:
        """An empty index: nothing is known, so all of it is searched."""
        try:
            segment.index.touch(0o640)
        except OSError as error:
            self._try_later(segment.path, f"{segment.index}: cannot be written: {why(error)}")
            return
        self._report("index_failed", f"{segment.path}: {reason}: it is searched without")

    def _try_later(self, path: Path, message: str) -> None:
        """What is wrong may pass, such as a full disk: told once, tried again ever more rarely."""
        attempt = self._later.setdefault(path, Attempt())
        attempt.failures += 1
        attempt.at = time.monotonic() + min(LONGEST_RETRY, FIRST_RETRY * 2.0 ** min(attempt.failures, 10))
        if attempt.failures == 1:
            self._report("index_failed", message)

    def _forget(self, growing: Growing) -> None:
        self._growing.pop(growing.identity, None)
        self._tally.forget(growing.identity)
        growing.close()

    def _tell(self) -> None:
        cut = self._tally.cut
        self._context.status(
            "indexing",
            {
                "index_waiting": self._waiting,
                "index_packets": self._packets,
                "cut": sum(cut.values()),
                "index_until": self._until / 1e9 if self._until else None,
                **(self._exporter.figures() if self._exporter is not None else {}),
            },
            {interface: {"cut": count} for interface, count in cut.items()},
        )

    def _report(self, kind: str, message: str) -> None:
        self._context.log(message)
        self._context.event(kind, message)


def _inventory(context: Context, report: Callable[[str, str], None]) -> Inventory | None:
    """Who is there; ``None`` when what is known of that cannot be gone on with, and that has been told."""
    from agent.workers.inventory.inventory import Inventory

    try:
        return Inventory(context.data, report)
    except StorageFailure as error:
        report("inventory_lost", str(error))
        return None


def _exporter(collector: str | None, context: Context, report: Callable[[str, str], None]) -> Exporter | None:
    """Who sends the flows of each segment to a collector, if there is one. It reports by the loop."""
    if collector is None:
        return None
    from agent.workers.flows.exporter import Exporter

    loop = asyncio.get_running_loop()

    def reported(kind: str, message: str) -> None:
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(report, kind, message)

    return Exporter(context.data, context.name, parse_collector(collector), reported)


def _new(segment: Segment, looked: int) -> bool:
    """Whether it may have begun after that look, in nanoseconds since the epoch: nobody has had time to open it."""
    return segment.begin >= looked - LATE


def _identity(segment: Segment) -> tuple[int, int] | None:
    """Which file a segment is; ``None`` when it is gone."""
    with suppress(OSError):
        status = segment.path.stat(follow_symlinks=False)
        return status.st_dev, status.st_ino
    return None


def _told(identity: tuple[int, int] | None) -> str:
    return "" if identity is None else f"{identity[0]}:{identity[1]}"


@dataclass(slots=True)
class Attempt:
    """How often something failed, and when it is tried again by the monotonic clock."""

    failures: int = 0
    at: float = 0.0
