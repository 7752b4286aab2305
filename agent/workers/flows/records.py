"""The rows of a store within a span of time: out of the indexes, and out of the packets that no index tells of yet.

What comes out is exact: a row that goes beyond the span is counted anew from the headers of its packets' records.
Only its flags of TCP stay those of all its packets.

A segment may be closed, and so renamed, or removed at any moment. One that was renamed is found again and is never
counted twice; one that was removed is as if it had been so before.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from agent.errors import StorageFailure
from agent.linux.files import open_regular, why
from agent.workers.capture.catalogue import Segment
from agent.workers.capture.savefile import FILE_HEADER
from agent.workers.capture.timely import changes, settled, timely
from agent.workers.flows import recount, table
from agent.workers.flows.table import MOST_ORIGINS, Table
from agent.workers.index import form
from agent.workers.index.build import Kind, Reader, kind_of
from agent.workers.index.model import Chunk

if TYPE_CHECKING:
    from agent.workers.flows.choice import Choice

MOST_INDEX = 1 << 30
"""Bytes: no index is longer, and a file that is, is none."""

_ROUNDS = 3


class Within(NamedTuple):
    """From ``begin`` to ``end``, both included; nanoseconds since the epoch."""

    begin: int
    end: int


class Batch(NamedTuple):
    """Rows, and up to when all have been given: what comes later is of segments that begin at ``until`` or after."""

    rows: Table
    until: int


@dataclass(slots=True)
class Origins:
    """What the ``origin`` of a row stands for: ``names`` are service and interface, ``links`` link types."""

    names: list[tuple[str, str]] = field(default_factory=list)
    links: list[int] = field(default_factory=list)

    def number(self, service: str, interface: str, link_type: int) -> int:
        """The origin of this interface. Raises ``StorageFailure`` when there are more than can be told apart."""
        for number, known in enumerate(zip(self.names, self.links, strict=True)):
            if known == ((service, interface), link_type):
                return number
        if len(self.names) == MOST_ORIGINS:
            raise StorageFailure(f"more than {MOST_ORIGINS} interfaces in one question; name some with --interface")
        self.names.append((service, interface))
        self.links.append(link_type)
        return len(self.names) - 1


@dataclass(slots=True)
class Effort:
    """What it took. ``unindexed`` are bytes of packets that no index told of; ``unreadable`` are told to a person.

    Whoever has not come to an end by ``deadline``, on the clock of ``time.monotonic``, stops: ``stopped`` are services,
    and from when on their segments are left out, in nanoseconds since the epoch.
    """

    segments: int = 0
    unindexed: int = 0
    unreadable: list[str] = field(default_factory=list)
    deadline: float | None = None
    stopped: dict[str, int] = field(default_factory=dict)

    def late(self) -> bool:
        """Whether it is time to stop."""
        return self.deadline is not None and time.monotonic() > self.deadline


def collect(
    directory: Path,
    service: str,
    within: Within,
    origins: Origins,
    effort: Effort,
    *,
    interfaces: Collection[str] = (),
    gap: int | None = None,
    choice: Choice | None = None,
) -> Iterator[Batch]:
    """The rows of one store, segment by segment in the order of time; ``interfaces``: none means all.

    With ``gap`` (nanoseconds) a row that was silent for longer is cut in two. ``choice`` says which packets count.
    Raises ``StorageFailure``, and ``UsageError`` when that cannot be said of a segment.
    """
    tried: set[Path] = set()
    seen: set[tuple[int, int]] = set()
    for _ in range(_ROUNDS):
        before = changes(directory)
        concerned = (one.segment for one in timely(directory, within, interfaces))
        found = [one for one in concerned if one.path not in tried]
        if not found:
            return
        for place, segment in enumerate(found):
            if effort.late():
                effort.stopped[service] = max(segment.begin, within.begin)
                return
            tried.add(segment.path)
            opened = _open(segment, seen, effort)
            if opened is None:
                continue
            until = min(found[place + 1].begin if place + 1 < len(found) else within.end, within.end)
            try:
                effort.segments += 1
                rows = table.together(list(_rows(segment, opened, service, within, origins, effort, gap, choice)))
            finally:
                os.close(opened)
            yield Batch(rows, until)
        if settled(before) and changes(directory) == before:
            return


def _open(segment: Segment, seen: set[tuple[int, int]], effort: Effort) -> int | None:
    """``None``: it is gone, or was seen under another name."""
    try:
        fd = open_regular(segment.path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    except OSError as error:
        effort.unreadable.append(f"{segment.path}: cannot be read: {why(error)}")
        return None
    status = os.fstat(fd)
    if (status.st_dev, status.st_ino) in seen:
        os.close(fd)
        return None
    seen.add((status.st_dev, status.st_ino))
    return fd


def _rows(
    segment: Segment,
    fd: int,
    service: str,
    within: Within,
    origins: Origins,
    effort: Effort,
    gap: int | None,
    choice: Choice | None,
) -> Iterator[Table]:
    head = os.pread(fd, FILE_HEADER, 0)
    kind = kind_of(head)
    if kind is None:
        if len(head) == FILE_HEADER:  # a shorter one was opened just now
            effort.unreadable.append(f"{segment.path}: it is no pcap file")
        return
    for chunk in chunks(segment, fd, kind, effort):
        if chunk.last < within.begin or chunk.first > within.end:
            continue
        read = recount.stamps(fd, kind.form, chunk.begin)
        rows = table.of(chunk.flows, origins.number(service, segment.interface, kind.link_type))
        chosen = None
        if choice is not None and not choice.everything:
            touched = (rows.first <= np.uint64(within.end)) & (rows.last >= np.uint64(within.begin))
            try:
                chosen = choice.of(chunk, touched, fd, head, kind)
            except StorageFailure as error:
                effort.unreadable.append(f"{segment.path}: {error}")
                return
        yield recount.within(chunk, rows, read, within.begin, within.end, gap=gap, chosen=chosen)


def chunks(segment: Segment, fd: int, kind: Kind, effort: Effort) -> Iterator[Chunk]:
    """The chunks of a segment in the order of the file: those of its index, and between them what is made now."""
    size = os.fstat(fd).st_size
    reader = Reader(fd, kind)
    for indexed in indexes(segment, size, kind.link_type):
        yield from _made(reader, indexed.begin, effort)
        yield indexed
        reader.place = indexed.end
    yield from _made(reader, size, effort)


def _made(reader: Reader, end: int, effort: Effort) -> Iterator[Chunk]:
    begin = reader.place
    yield from reader.chunks(end)
    effort.unindexed += reader.place - begin


def indexes(segment: Segment, size: int, link_type: int) -> list[Chunk]:
    """The chunks of its index, as far as they make sense for a file of this size; none where there is no index."""
    try:
        fd = open_regular(segment.index, os.O_RDONLY)
        with os.fdopen(fd, "rb") as file:
            length = os.fstat(fd).st_size
            data = file.read(length) if length <= MOST_INDEX else b""
    except OSError:
        return []
    found: list[Chunk] = []
    place = FILE_HEADER
    try:
        for chunk in form.decode(data):
            if chunk.begin < place or chunk.end > size or chunk.link_type != link_type:
                break
            found.append(chunk)
            place = chunk.end
    except form.Unreadable:
        pass  # what it told of so far is whole; the rest is made anew
    return found
