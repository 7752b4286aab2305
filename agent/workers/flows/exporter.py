"""Flow records of each closed segment to a collector, as soon as there is an index of it: a thread of its own.

What was sent is written down after each segment, by interface. So a process that is killed sends the segment again that
it was at, and no other; none is left out but those that the budget removes before the collector can be reached. The
first time, it begins with what is closed from then on.

The store is listed once, at the start: who makes the indexes tells of each. Nothing waits for this thread. What goes
wrong is counted, and told once until it goes right again.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np

from agent.declaration.collector import Collector
from agent.errors import StorageFailure
from agent.linux.files import open_regular, write_atomic
from agent.workers.capture.catalogue import Segment, segments
from agent.workers.capture.savefile import FILE_HEADER
from agent.workers.flows import ended, ipfix, records, table
from agent.workers.flows.sender import CollectorFailure, Sender
from agent.workers.flows.sent import KEPT, Sent
from agent.workers.index.build import kind_of
from agent.workers.index.model import IPV4, IPV6

PROGRESS = "ipfix.json"
"""In the directory of the service."""

RETRY = (1.0, 60.0)
"""Seconds until the next try to reach a collector: at first, and at most."""

FAILED, RESUMED = "export_failed", "export_resumed"
"""Kinds of events."""


LONGEST_PROGRESS = 64 << 20
"""Bytes of that file that are read."""

_MANY = 4096
"""Segments may wait so many at a time before it is looked whether the first of them are still there."""


class Progress(msgspec.Struct):
    """What was sent, by interface, and how many records there have been (modulo 2^32): a collector may know us by our
    address alone, and so across a restart. ``sent``: ``Sent.upto``, which was all that the first programs wrote.
    """

    sent: dict[str, int] = {}
    beyond: dict[str, list[int]] = {}
    missing: dict[str, list[int]] = {}
    sequences: dict[str, int] = {}
    version: int = 1


class Exporter:
    """``report`` is given kind and text of events, in this thread; ``wake`` and ``stop`` are for others.

    ``rate`` is in messages a second.
    """

    def __init__(
        self,
        directory: Path,
        service: str,
        collector: Collector,
        report: Callable[[str, str], None],
        *,
        retry: tuple[float, float] = RETRY,
    ) -> None:
        self.records = 0
        self.failures = 0
        self.segments = 0
        self.lost = 0
        """Segments that were removed before they were sent."""
        self._directory = directory
        self._service = service
        self._collector = collector
        self._report = report
        self._retry = retry
        self._sender: Sender | None = None
        self._failing = False
        self._unwritten = False
        self._changed = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ipfix", daemon=True)
        self._sequences: dict[str, int] = {}
        self._sent: dict[str, Sent] = {}
        self._told: deque[Segment] = deque()  # by others; ``_waiting`` is this thread's
        self._waiting: deque[Segment] = deque()
        self._unfinished: Mapping[str, int] = {}

    def start(self) -> None:
        """Begin. Raises ``StorageFailure`` when the store cannot be read."""
        self._read()
        self._thread.start()

    def wake(self, segment: Segment) -> None:
        """There is an index more, of this closed segment."""
        self._told.append(segment)
        self._changed.set()

    def look(self, unfinished: Mapping[str, int]) -> None:
        """By interface, when the first segment began that is open or has no index yet."""
        self._unfinished = unfinished

    def stop(self, patience: float = 2.0) -> None:
        """End, in the middle of a segment if need be; wait for it for so many seconds."""
        self._stopping.set()
        self._changed.set()
        self._thread.join(patience)

    def figures(self) -> dict[str, int]:
        """Counts since the start."""
        return {
            "ipfix_records": self.records,
            "ipfix_segments": self.segments,
            "ipfix_failures": self.failures,
            "ipfix_lost": self.lost,
        }

    def _run(self) -> None:
        wait = self._retry[0]
        while not self._stopping.is_set():
            self._changed.clear()
            try:
                self._round()
            except (CollectorFailure, StorageFailure) as error:
                self._failed(str(error))
                self._forget_gone()
                self._stopping.wait(wait)
                wait = min(wait * 2, self._retry[1])
                continue
            except Exception as error:  # whatever it is, it must not end without a word
                self._failed(f"export of flows: {type(error).__name__}: {error}")
                self._stopping.wait(self._retry[1])
                continue
            wait = self._retry[0]
            self._changed.wait()
        self._heed()
        if self._sender is not None:
            self._sender.close()

    def _failed(self, text: str) -> None:
        self.failures += 1
        if self._sender is not None:
            self._sender.close()
            self._sender = None
        if not self._failing:
            self._failing = True
            self._report(FAILED, f"{text}; what is not sent yet is sent later")

    def _round(self) -> None:
        """Send all segments that have an index and were not sent."""
        self._heed()
        while self._waiting:
            segment = self._waiting[0]
            if self._stopping.is_set() or not self._send(segment):
                return
            self._waiting.popleft()
            self._done(segment)
            self._heed()

    def _heed(self) -> None:
        """Take up what others have told. What is the exception to what is written down is written down."""
        exceptions = False
        while self._told:
            segment = self._told.popleft()
            sent = self._sent.setdefault(segment.interface, Sent())
            exceptions |= sent.has(segment.begin)
            self.lost += sent.expect(segment.begin)
            self._waiting.append(segment)
        if exceptions:
            self._write()

    def _done(self, segment: Segment) -> None:
        sent = self._sent.setdefault(segment.interface, Sent())
        sent.add(segment.begin)
        if len(sent.beyond) > KEPT:
            waiting = [one.begin for one in self._waiting if one.interface == segment.interface]
            self.lost += sent.settle(self._unfinished.get(segment.interface), waiting)
        self._write()

    def _forget_gone(self) -> None:
        """What was removed while the collector was away is not waited for: the first of what waits went first."""
        self._heed()
        while len(self._waiting) > _MANY and not os.path.lexists(self._waiting[0].path):
            segment = self._waiting.popleft()
            self._sent.setdefault(segment.interface, Sent()).add(segment.begin)
            self.lost += 1

    def _send(self, segment: Segment) -> bool:
        """``False`` when it was told to stop."""
        found = self._flows(segment)
        if found is None:
            return True
        told, header = found
        interfaces = np.array([ipfix.interface_index(segment.interface)], np.uint32)
        headers = np.array([header], np.uint64)
        if self._sender is None:
            self._sender = Sender(self._collector, self._stopping.wait)
        of = ipfix.domain(self._service, segment.interface)
        of.sequence = self._sequences.get(segment.interface, 0)
        records = 0
        for family in (IPV4, IPV6):
            data = ipfix.encoded(told, family, interfaces, headers)
            if not self._sender.send(of, ipfix.messages(of, family, data, time.time)):
                return False
            records += len(data)
        self._sender.settle(0.0)
        self._sequences[segment.interface] = of.sequence
        self.records += records
        self.segments += 1
        if self._failing:
            self._failing = False
            self._report(RESUMED, f"collector {self._collector}: flows are sent again")
        return True

    def _flows(self, segment: Segment) -> tuple[ended.Records, int] | None:
        """The flows of a segment, and the length of its link header; ``None`` when it is gone, or no pcap file.

        None either when its index is empty: there is no packet in it, or one that no index could be made of.
        """
        with suppress(OSError):
            if not segment.index.stat(follow_symlinks=False).st_size:
                return None
        try:
            fd = open_regular(segment.path, os.O_RDONLY)
        except FileNotFoundError:
            self.lost += 1
            return None
        except OSError as error:
            raise StorageFailure(f"{segment.path}: cannot be read: {error.strerror}") from error
        try:
            kind = kind_of(os.pread(fd, FILE_HEADER, 0))
            if kind is None:
                return None
            chunks = list(records.chunks(segment, fd, kind, records.Effort()))
        finally:
            os.close(fd)
        if not chunks:
            return None
        flows = table.join(table.together([table.of(chunk.flows, 0) for chunk in chunks]))
        return ended.segment(flows, max(chunk.last for chunk in chunks)), ipfix.link_header(kind.link_type)

    def _read(self) -> None:
        """What was sent, and what is to be sent by that: once, at the start."""
        found = segments(self._directory)
        known = {one.interface for one in found}
        try:
            with os.fdopen(open_regular(self._directory / PROGRESS, os.O_RDONLY), "rb") as file:
                progress = msgspec.json.decode(file.read(LONGEST_PROGRESS), type=Progress)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            progress = None
        if progress is not None:
            self._sequences = {name: number for name, number in progress.sequences.items() if name in known}
            for name in known:
                self._sent[name] = Sent(
                    progress.sent.get(name, -1),
                    sorted(progress.beyond.get(name, ())),
                    sorted(progress.missing.get(name, ())),
                )
            self._waiting.extend(one for one in _indexed(found) if not self._sent[one.interface].has(one.begin))
            return
        for name in known:
            self._sent[name] = _anew([one for one in found if one.interface == name])
        self._write()

    def _write(self) -> None:
        progress = Progress(
            {name: sent.upto for name, sent in self._sent.items()},
            {name: sent.beyond for name, sent in self._sent.items()},
            {name: sent.missing for name, sent in self._sent.items() if sent.missing},
            self._sequences,
        )
        try:
            write_atomic(self._directory / PROGRESS, msgspec.json.encode(progress) + b"\n", mode=0o640)
        except StorageFailure as error:
            if not self._unwritten:
                self._unwritten = True
                self._report(FAILED, f"{error}; after a restart segments are sent again")
        else:
            self._unwritten = False


def _indexed(found: Iterable[Segment]) -> list[Segment]:
    return [one for one in found if one.closed and one.indexed]


def _anew(found: list[Segment]) -> Sent:
    """What there is, of one interface, counts as sent, but for what is not finished."""
    begins = sorted(one.begin for one in _indexed(found))
    unfinished = [one.begin for one in found if not (one.closed and one.indexed)]
    sent = Sent(-1, begins)
    sent.settle(min(unfinished, default=None), [])
    for one in found:
        if one.closed and not one.indexed:
            sent.expect(one.begin)
    return sent
