"""Flow records of each closed segment to a collector, as soon as there is an index of it: a thread of its own.

How far it has come is written down after each segment, by interface. So a process that is killed sends the segment
again that it was at, and no other; none is left out but those that the budget removes before the collector can be
reached. The first time, it begins with what is closed from then on.

Nothing waits for this thread. What goes wrong is counted, and told once until it goes right again.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
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
from agent.workers.index.build import kind_of
from agent.workers.index.model import IPV4, IPV6

PROGRESS = "ipfix.json"
"""In the directory of the service."""

RETRY = (1.0, 60.0)
"""Seconds until the next try to reach a collector: at first, and at most."""

FAILED, RESUMED = "export_failed", "export_resumed"
"""Kinds of events."""


class Progress(msgspec.Struct):
    """What was sent: by interface the instant in the name of the last segment (nanoseconds since the epoch), and how
    many records there have been (modulo 2^32): a collector may know us by our address alone, and so across a restart.
    """

    sent: dict[str, int] = {}
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
        self._progress = Progress()

    def start(self) -> None:
        """Begin. Raises ``StorageFailure`` when the store cannot be read."""
        self._progress = self._read()
        self._thread.start()

    def wake(self) -> None:
        """There is an index more."""
        self._changed.set()

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
                self._stopping.wait(wait)
                wait = min(wait * 2, self._retry[1])
                continue
            except Exception as error:  # whatever it is, it must not end without a word
                self._failed(f"export of flows: {type(error).__name__}: {error}")
                self._stopping.wait(self._retry[1])
                continue
            wait = self._retry[0]
            self._changed.wait()
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
        sent = self._progress.sent
        for segment in _closed(self._directory):
            if self._stopping.is_set():
                return
            if segment.indexed and segment.begin > sent.get(segment.interface, -1):
                if not self._send(segment):
                    return
                sent[segment.interface] = segment.begin
                self._write()

    def _send(self, segment: Segment) -> bool:
        """``False`` when it was told to stop."""
        found = self._told(segment)
        if found is None:
            return True
        told, header = found
        interfaces = np.array([ipfix.interface_index(segment.interface)], np.uint32)
        headers = np.array([header], np.uint64)
        if self._sender is None:
            self._sender = Sender(self._collector, self._stopping.wait)
        of = ipfix.domain(self._service, segment.interface)
        of.sequence = self._progress.sequences.get(segment.interface, 0)
        records = 0
        for family in (IPV4, IPV6):
            data = ipfix.encoded(told, family, interfaces, headers)
            if not self._sender.send(of, ipfix.messages(of, family, data, time.time)):
                return False
            records += len(data)
        self._sender.settle(0.0)
        self._progress.sequences[segment.interface] = of.sequence
        self.records += records
        self.segments += 1
        if self._failing:
            self._failing = False
            self._report(RESUMED, f"collector {self._collector}: flows are sent again")
        return True

    def _told(self, segment: Segment) -> tuple[ended.Records, int] | None:
        """The flows of a segment, and the length of its link header; ``None`` when it is gone, or no pcap file."""
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

    def _read(self) -> Progress:
        path = self._directory / PROGRESS
        try:
            with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
                return msgspec.json.decode(file.read(1 << 20), type=Progress)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            progress = Progress({one.interface: one.begin for one in _closed(self._directory) if one.indexed})
        self._progress = progress
        self._write()
        return progress

    def _write(self) -> None:
        try:
            write_atomic(self._directory / PROGRESS, msgspec.json.encode(self._progress) + b"\n", mode=0o640)
        except StorageFailure as error:
            if not self._unwritten:
                self._unwritten = True
                self._report(FAILED, f"{error}; after a restart segments are sent again")
        else:
            self._unwritten = False


def _closed(directory: Path) -> list[Segment]:
    return [segment for segment in segments(directory) if segment.closed]
