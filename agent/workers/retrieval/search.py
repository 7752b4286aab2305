"""Where in a store the packets are that an expression means, and these packets, a piece after the other.

::

    Source ── Stretch ── Piece ── Batch
    segment   a chunk    some     the packets in it
              of its     thousand that libpcap's
              index      packets  filter lets pass

Each but the last only promises the time that its packets lie in, and is opened when that time comes. Bytes that no
index tells about become pieces at once: where the packets in them are, and when they were captured, is found for all of
them together, and that is little beside filtering them.
"""

from __future__ import annotations

import itertools
import os
import struct
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from agent.errors import StorageFailure, UsageError
from agent.linux.files import why
from agent.workers.capture.savefile import (
    FILE_HEADER,
    LONGEST_CAPTURE,
    RECORD_HEADER,
    Format,
    file_header,
    link_type,
    parse_header,
)
from agent.workers.capture.timely import ALWAYS
from agent.workers.index import form, numbers
from agent.workers.index.model import Chunk
from agent.workers.index.records import find
from agent.workers.retrieval.expression import Expression
from agent.workers.retrieval.narrow import candidates
from agent.workers.retrieval.offline import Damaged, Filter, Packet
from agent.workers.retrieval.parse import parse
from agent.workers.retrieval.snapshot import Source

if TYPE_CHECKING:
    from numpy.typing import NDArray

DENSE = 16
"""When one packet of so many is a candidate, all are read in one go and judged by libpcap."""

_PIECE = 4096
"""Packets of a piece of what no index tells about."""

_CANDIDATES = 1024
"""The most of a piece of which only the candidates are read."""

_GUESS = 2048
"""Bytes read of a candidate at first: most are no longer."""

_WINDOW = 32 * 1024 * 1024
"""Bytes that are looked through at a time where no index tells about them."""

_LARGE = 8 * 1024 * 1024
"""Bytes: a piece is not longer, or it is cut once more."""

_MOST_OPEN = 64
"""Segments."""

_RECORD = struct.Struct("=IIII")
_ETHERNET = file_header(numbers.ETHERNET)
"""Of a file of Ethernet: what an expression is held against when there is no file."""

_NONE: NDArray[np.int64] = np.empty(0, np.int64)


class Batch(NamedTuple):
    """Packets of one piece, in order of time.

    ``records`` holds them as records in the byte order of this machine, with nanoseconds; ``places`` and ``times`` are
    where each begins, and when it was captured. ``straight``: in ``records`` they stand so, and nothing else does.
    """

    source: Source
    link_type: int
    records: bytes
    places: list[int]
    times: list[int]
    straight: bool

    def captured(self, number: int) -> int:
        """How many bytes of a packet there are."""
        return int(_RECORD.unpack_from(self.records, self.places[number])[2])

    def packet(self, number: int) -> Packet:
        """One of the packets."""
        place = self.places[number]
        _, _, captured, length = _RECORD.unpack_from(self.records, place)
        begin = place + RECORD_HEADER
        return Packet(self.times[number], length, self.records[begin : begin + captured])

    def stretch(self, begin: int, end: int) -> bytes:
        """The records of the packets ``begin`` up to ``end``, not included."""
        if self.straight:
            return self.records[self.places[begin] : self.places[end] if end < len(self.places) else None]
        places = self.places[begin:end]
        lengths = (RECORD_HEADER + self.captured(number) for number in range(begin, end))
        return b"".join(self.records[place : place + length] for place, length in zip(places, lengths, strict=True))


class Piece(NamedTuple):
    """Packets captured from ``first`` to ``last``: those at ``offsets``, or without any all in ``begin..end``."""

    first: int
    last: int
    source: Source
    begin: int
    end: int
    offsets: NDArray[np.int64]


class Stretch(NamedTuple):
    """Packets captured from ``first`` to ``last``, of which nothing more is known yet. ``pieces`` finds out."""

    first: int
    last: int
    source: Source
    pieces: Callable[[], list[Stretch | Piece]]


class Search:
    """What an expression means in a store, between two instants, both included: nanoseconds since the epoch.

    ``notes`` are lines about what could not be read, ``read`` is how many bytes of segments were. Raises
    ``UsageError`` when libpcap refuses the expression.
    """

    def __init__(self, expression: str, within: tuple[int, int] = ALWAYS) -> None:
        self._text = expression
        self._wanted: Expression = parse(expression)
        self._begin, self._end = within
        self._filters: dict[bytes, Filter | None] = {}
        self._recent: list[Source] = []
        self._told: set[Source] = set()
        self.notes: list[str] = []
        self.read = 0

    def check(self, sources: list[Source]) -> None:
        """Raise ``UsageError`` now if the expression is wrong: for packets of the first source, or for Ethernet."""
        for source in sources:
            try:
                source.fd()
            except OSError:
                continue
            source.shut()
            if self.filter(source) is not None:
                return
        Filter(_ETHERNET, self._text)

    def stretches(self, source: Source) -> Iterator[Stretch | Piece]:
        """The stretches of a segment that have packets of the time that is asked for, as far as is known."""
        index = source.index()
        covered = FILE_HEADER
        if index is not None:
            try:
                for head, place, length in form.heads(index):
                    if head.begin != covered or head.end < head.begin:
                        break
                    covered = head.end
                    if head.packets and head.first <= self._end and head.last >= self._begin:
                        yield self._indexed(source, head, place, length)
            except (StorageFailure, OSError) as error:
                self.notes.append(f"{source.segment.index}: {error}; searched without it")
            finally:
                os.close(index)
        yield from self._scanned(source, covered)

    def _indexed(self, source: Source, head: form.Header, place: int, length: int) -> Stretch:
        def pieces() -> list[Stretch | Piece]:
            index = source.index()
            if index is not None:
                try:
                    (chunk,) = form.decode(os.pread(index, length, place))
                    if (chunk.begin, chunk.end) == (head.begin, head.end):
                        return list(self._narrowed(source, chunk))
                except (ValueError, StorageFailure, OSError) as error:
                    self.notes.append(f"{source.segment.index}: {error}; searched without it")
                finally:
                    os.close(index)
            return list(self._scanned(source, head.begin, head.end))

        return Stretch(head.first, head.last, source, pieces)

    def _narrowed(self, source: Source, chunk: Chunk) -> Iterator[Piece]:
        """The pieces of a chunk in which there are candidates."""
        flows = chunk.flows
        rows = candidates(flows, chunk.link_type, self._wanted)
        rows &= (flows.first <= np.uint64(self._end)) & (flows.last >= np.uint64(self._begin))
        offsets = chunk.offsets_of(rows).astype(np.int64)
        edges = np.append(chunk.marks.astype(np.int64), chunk.end - chunk.begin)
        at = np.searchsorted(offsets, edges)
        timely = (chunk.mark_first <= np.uint64(self._end)) & (chunk.mark_last >= np.uint64(self._begin))
        few: list[int] = []
        for mark in np.flatnonzero(timely & (np.diff(at) > 0)).tolist():
            count = int(at[mark + 1] - at[mark])
            if few and (count * DENSE >= _PIECE or int(at[few[-1] + 1] - at[few[0]]) + count > _CANDIDATES):
                yield _sparse(source, chunk, few, offsets, at)
                few = []
            if count * DENSE >= _PIECE:
                begin, end = chunk.begin + int(edges[mark]), chunk.begin + int(edges[mark + 1])
                if end - begin > _LARGE:
                    yield from self._scanned(source, begin, end)
                else:
                    first, last = int(chunk.mark_first[mark]), int(chunk.mark_last[mark])
                    yield Piece(first, last, source, begin, end, _NONE)
            else:
                few.append(mark)
        if few:
            yield _sparse(source, chunk, few, offsets, at)

    def _scanned(self, source: Source, begin: int, end: int | None = None) -> Iterator[Piece]:
        """The pieces of bytes that no index tells about, to the end of the segment when that is ``None``."""
        try:
            fd = self.opened(source)
            layout = parse_header(source.header)
            if layout is None:
                if source.size >= FILE_HEADER:
                    raise StorageFailure("no pcap file")
                return
            end = source.size if end is None else end
            while begin < end:
                data = bytearray(os.pread(fd, min(_WINDOW, end - begin), begin))
                self.read += len(data)
                places, length, damaged = find(data, len(data), layout.order)
                if len(places):
                    yield from self._cut(source, layout, data, begin, np.append(places, length))
                begin += length
                if damaged:
                    raise Damaged(begin, "what follows makes no sense")
                if not length:
                    return
        except (StorageFailure, OSError) as error:
            self._unreadable(source, error)

    def _cut(
        self, source: Source, layout: Format, data: bytearray, begin: int, places: NDArray[np.int64]
    ) -> Iterator[Piece]:
        """Cut bytes in which records begin at ``places``, the last of which is the end of all, into pieces."""
        words: NDArray[np.uint32] = np.ndarray((len(data) - 7, 2), layout.order + "u4", data, 0, (1, 4))
        stamps = words[places[:-1]].astype(np.uint64)
        times = stamps[:, 0] * np.uint64(1_000_000_000) + stamps[:, 1] * np.uint64(layout.unit)
        mean = int(places[-1]) // len(times)
        starts = np.arange(0, len(times), max(1, min(_PIECE, _LARGE // (2 * mean))))
        firsts, lasts = np.minimum.reduceat(times, starts), np.maximum.reduceat(times, starts)
        ends = np.append(starts[1:], len(times))
        timely = (firsts <= np.uint64(self._end)) & (lasts >= np.uint64(self._begin))
        for row in np.flatnonzero(timely).tolist():
            yield Piece(
                int(firsts[row]),
                int(lasts[row]),
                source,
                begin + int(places[starts[row]]),
                begin + int(places[ends[row]]),
                _NONE,
            )

    def batch(self, piece: Piece) -> Batch | None:
        """The packets of a piece; ``None`` when there are none."""
        source = piece.source
        try:
            fd = self.opened(source)
            judge = self.filter(source)
            layout = parse_header(source.header)
            if judge is None or layout is None:
                return None
            if len(piece.offsets):
                parts = _records(fd, piece, layout.order)
            else:
                parts = [os.pread(fd, piece.end - piece.begin, piece.begin)]
            self.read += sum(map(len, parts))
            return self._ordered(source, link_type(layout, source.header), bytes(judge.among(parts)))
        except (StorageFailure, OSError) as error:
            self._unreadable(source, error)
            return None

    def _ordered(self, source: Source, link_type: int, records: bytes) -> Batch | None:
        places, times = [], []
        place = count = 0
        while place < len(records):
            seconds, nanoseconds, captured, _ = _RECORD.unpack_from(records, place)
            count += 1
            time = seconds * 1_000_000_000 + nanoseconds
            if self._begin <= time <= self._end:
                places.append(place)
                times.append(time)
            place += RECORD_HEADER + captured
        if not places:
            return None
        straight = len(places) == count
        if not all(here <= there for here, there in itertools.pairwise(times)):
            order = sorted(range(len(times)), key=times.__getitem__)
            places, times = [places[number] for number in order], [times[number] for number in order]
            straight = False
        return Batch(source, link_type, records, places, times, straight)

    def filter(self, source: Source) -> Filter | None:
        """The filter for this segment; ``None`` when there is none for packets of its kind, or it is no pcap file.

        Raises ``UsageError`` when libpcap refuses the expression for packets of Ethernet too.
        """
        header = source.header
        if header not in self._filters:
            self._filters[header] = None
            try:
                self._filters[header] = Filter(header, self._text)
            except StorageFailure as error:
                self._unreadable(source, error)
            except UsageError as error:
                Filter(_ETHERNET, self._text)
                self.notes.append(f"{source.interface} is left out: {error}")
        return self._filters[header]

    def opened(self, source: Source) -> int:
        """The descriptor of a segment; of those that were asked for last it stays open. Raises ``OSError``."""
        if source not in self._recent:
            self._recent.append(source)
            if len(self._recent) > _MOST_OPEN:
                self._recent.pop(0).shut()
        return source.fd()

    def _unreadable(self, source: Source, error: Exception) -> None:
        if source in self._told:
            return
        self._told.add(source)
        told = why(error) if isinstance(error, OSError) else str(error)
        gone = isinstance(error, FileNotFoundError)
        self.notes.append(f"{source.segment.path}: " + ("removed while it was searched" if gone else told))


def _sparse(source: Source, chunk: Chunk, marks: list[int], offsets: NDArray[np.int64], at: NDArray[np.int64]) -> Piece:
    """The candidates of some marks as one piece."""
    wanted = np.concatenate([offsets[at[mark] : at[mark + 1]] for mark in marks])
    return Piece(
        int(chunk.mark_first[marks].min()),
        int(chunk.mark_last[marks].max()),
        source,
        chunk.begin,
        chunk.end,
        wanted + chunk.begin,
    )


def _records(fd: int, piece: Piece, order: str) -> list[bytes]:
    """The records at the offsets of a piece. Raises ``Damaged`` and ``OSError``."""
    captured = struct.Struct(order + "8xI4x")
    records = []
    for offset in piece.offsets.tolist():
        data = os.pread(fd, min(_GUESS, piece.end - offset), offset)
        length = RECORD_HEADER + captured.unpack_from(data)[0] if len(data) >= RECORD_HEADER else _GUESS
        if length > len(data) and length <= min(piece.end - offset, RECORD_HEADER + LONGEST_CAPTURE):
            data = os.pread(fd, length, offset)
        if length > len(data):
            raise Damaged(offset, "no packet, although the index says so")
        records.append(data[:length])
    return records
