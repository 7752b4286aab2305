"""The inventory of one capture service, as the index process keeps it: packets and flows in, ``hosts.json`` out.

No threads, and nothing here waits. It is given each stretch of a segment when that is indexed. What it has no time
for it skips and counts: who is there tells of itself again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from agent.errors import StorageFailure, UsageError
from agent.workers.capture.savefile import FILE_HEADER
from agent.workers.index.model import Chunk
from agent.workers.inventory import aside, local, offered, snapshot
from agent.workers.inventory.control import FILTERS, frame, hasty_kind
from agent.workers.inventory.dissect import Crashed, TooLong, tell
from agent.workers.inventory.rate import Processor, Rate
from agent.workers.inventory.table import USUAL, Limits, Table
from agent.workers.retrieval.offline import Damaged, Filter, Packet, packets

#: ``report(kind, message)``: something happened that the operator should know.
Report = Callable[[str, str], None]

PACE = 5.0
"""Seconds from one writing of ``hosts.json`` to the next, at least."""

RATE = 64 * 1024
"""Bytes of it a second, in the long run: it is written whole, and there are disks that wear."""

_SPARING = 50
"""So many times as long as it took is waited until something is made anew that takes longer the more is known."""

_LOOK_AROUND = 60.0
"""Seconds from one look at this machine's own addresses to the next."""

_STRIDE = 16
"""Packets from one look at the time they took to the next."""

_MOST_INTERFACES = 256
_COUNTERS = ("dissected", "skipped", "cut", "crashed", "aside")


class Inventory:
    """Who was seen by the capture whose store is ``directory``.

    Goes on where ``hosts.json`` ends; one that is damaged is told and begun anew. Raises ``StorageFailure`` for one
    that a newer version of this program wrote, or that cannot be read.
    """

    def __init__(self, directory: Path, report: Report, limits: Limits = USUAL) -> None:
        self._directory = directory
        self._report = report
        self._rate = Rate()
        self._processor = Processor()
        self._filters: dict[bytes, Filter | None] = {}
        self._counters = dict.fromkeys(_COUNTERS, 0)
        self._progress: dict[str, int] = {}
        self._resumed: dict[str, int] = {}
        self._own: list[str] = []
        self._known: dict[str, offered.Known] = {}
        self._known_edition = -1
        self._known_again = self._write_again = self._looked = float("-inf")
        self._changed = False
        self._told: set[str] = set()
        self.table = self._resume(limits)

    def _resume(self, limits: Limits) -> Table:
        try:
            found = snapshot.read(self._directory / snapshot.NAME)
        except snapshot.Damaged as error:
            self._report("inventory_lost", str(error))
            found = None
        if found is None:
            return Table(limits)
        table = snapshot.restore(found, limits)
        counted = found.counters
        self._counters.update({name: counted.get(name, 0) for name in _COUNTERS})
        table.evicted, table.trimmed = counted.get("evicted", 0), counted.get("trimmed", 0)
        self._progress = dict(sorted(found.progress.items(), key=lambda item: -item[1])[:_MOST_INTERFACES])
        now = time.time_ns()
        # One that lies ahead is from before the clock was set back: nothing would be taken in until it is reached.
        self._resumed = {interface: at for interface, at in self._progress.items() if at <= now}
        return table

    @property
    def counters(self) -> dict[str, int]:
        """Packets ``dissected``, ``skipped`` for want of time, ``cut`` by the snaplen or in fragments so that they make
        no sense, and ``crashed``, of which ``aside`` are kept; rows ``evicted``, facts ``trimmed``.
        """
        return {**self._counters, "evicted": self.table.evicted, "trimmed": self.table.trimmed}

    def observe(self, fd: int, interface: str, chunk: Chunk) -> None:
        """Take in the stretch of a segment that ``chunk`` tells about; ``fd`` is the segment, open for reading.

        What was taken in before ``hosts.json`` was written is left out. Raises ``OSError``.
        """
        if not chunk.packets:
            return
        if chunk.last <= self._resumed.get(interface, -1):
            return
        self._resumed.pop(interface, None)
        link_filter = self._filter(fd, chunk.link_type)
        if link_filter is not None:
            try:
                for piece in link_filter.scan(fd, chunk.begin, chunk.end):
                    self._packets(piece, interface, chunk.link_type)
            except Damaged:
                pass  # somebody has written into the segment since; the next stretch may be whole
        self._flows(interface, chunk)
        if interface in self._progress or len(self._progress) < _MOST_INTERFACES:
            self._progress[interface] = max(chunk.last, 0)
        self._changed = True

    def _flows(self, interface: str, chunk: Chunk) -> None:
        """What flows tell, unless what there is of a processor is used up: the next ones tell the same."""
        if not self._processor.allows(time.monotonic()):
            return
        began = time.thread_time()
        self.table.fold(offered.services(chunk.flows), interface)
        somebody = self._somebody(interface)
        if somebody is not None:
            self.table.fold(offered.activity(chunk.flows, somebody), interface)
        self._processor.spend(time.thread_time() - began)

    def _somebody(self, interface: str) -> offered.Known | None:
        """Who has an address on this interface, as of a while ago; ``None``: nobody. Who is new was seen just now."""
        now = time.monotonic()
        if self.table.edition != self._known_edition and now >= self._known_again:
            self._known_edition = self.table.edition
            self._known = {name: offered.known(found) for name, found in self.table.known().items()}
            after = time.monotonic()
            self._known_again = after + _SPARING * (after - now)
        return self._known.get(interface)

    def save(self, *, at_once: bool = False) -> None:
        """Write ``hosts.json`` if there is anything new and the last time is a while ago. Failures are told once."""
        now = time.monotonic()
        if not self._changed or (now < self._write_again and not at_once):
            return
        if now - self._looked >= _LOOK_AROUND:
            self._looked, self._own = now, local.own()[: snapshot.MOST_OWN]
        self._write_again = now + PACE
        try:
            size = snapshot.write(
                self._directory / snapshot.NAME,
                snapshot.Snapshot(
                    written=time.time_ns(),
                    counters=self.counters,
                    progress=self._progress,
                    own=self._own,
                    stations=snapshot.entries(self.table.stations),
                    addresses=snapshot.entries(self.table.addresses),
                    heard=snapshot.entries(self.table.heard),
                ),
            )
        except StorageFailure as error:
            self._once("inventory_not_written", str(error))
        else:
            self._changed = False
            after = time.monotonic()
            self._write_again = after + max(PACE, size / RATE, _SPARING * (after - now))
            self._told.discard("inventory_not_written")

    def _filter(self, fd: int, link_type: int) -> Filter | None:
        """The filter for this file; ``None`` where its link type has no control packets that are known here."""
        header = os.pread(fd, FILE_HEADER, 0)
        if header not in self._filters:
            if len(self._filters) >= 16:  # they differ by byte order, snaplen and link type
                self._filters.clear()
            expression = FILTERS.get(link_type)
            try:
                self._filters[header] = Filter(header, expression) if expression else None
            except (StorageFailure, UsageError) as error:
                self._filters[header] = None
                self._once("inventory_blind", f"packets of link type {link_type} are not looked into: {error}")
        return self._filters[header]

    def _packets(self, piece: memoryview, interface: str, link_type: int) -> None:
        began = time.thread_time()
        for number, packet in enumerate(packets(piece)):
            if number % _STRIDE == 0:
                self._processor.spend(time.thread_time() - began)
                began = time.thread_time()
                if not self._processor.allows(time.monotonic()):
                    self._counters["skipped"] += sum(1 for _ in packets(piece)) - number
                    return
            self._packet(packet, interface, link_type)
        self._processor.spend(time.thread_time() - began)

    def _packet(self, packet: Packet, interface: str, link_type: int) -> None:
        kind = hasty_kind(link_type, packet.data)
        taken = kind is not None and self._rate.take(interface, kind, packet.time)
        found = frame(link_type, packet.data) if taken or kind is None else None
        if found is not None and not taken:
            taken = self._rate.take(interface, found.kind, packet.time)
        if not taken:
            self._counters["skipped"] += kind is not None or found is not None
        if not taken or found is None:
            return
        try:
            told = tell(found, packet.time)
        except TooLong:
            self._counters["skipped"] += 1
        except Crashed as error:
            if found.fragment or len(packet.data) < packet.length:
                self._counters["cut"] += 1
            else:
                self._crashed(interface, link_type, packet, error)
        else:
            self._counters["dissected"] += 1
            self.table.fold(told, interface)

    def _crashed(self, interface: str, link_type: int, packet: Packet, error: Crashed) -> None:
        self._counters["crashed"] += 1
        place = self._directory / interface
        try:
            kept = aside.keep(place, link_type, packet.time, packet.length, packet.data)
        except StorageFailure as failure:
            self._once("inventory_not_written", str(failure))
            return
        if kept:
            self._counters["aside"] += 1
            self._once("packet_aside", f"{place / aside.NAME}: a packet that could not be dissected is kept ({error})")

    def _once(self, kind: str, message: str) -> None:
        if kind not in self._told:
            self._told.add(kind)
            self._report(kind, message)
