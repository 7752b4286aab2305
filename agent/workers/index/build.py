"""Bytes of a segment to a chunk of its index."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from agent.workers.capture import savefile
from agent.workers.capture.savefile import LONGEST_CAPTURE, RECORD_HEADER
from agent.workers.index import headers, records
from agent.workers.index.group import MOST, group
from agent.workers.index.headers import MARGIN, Packets
from agent.workers.index.model import Chunk

if TYPE_CHECKING:
    from numpy.typing import NDArray

LONGEST = 64 * 1024 * 1024
PACKETS = MOST // 4
"""A chunk that is read from a file tells about no more bytes, and no more packets: that bounds the memory it takes."""

_PIECE = 8 * 1024 * 1024
"""Bytes of a segment that are read at a time; longer than any packet."""

_ROOM = 8
"""There is no room for more when less than such a part of it is left."""

_BATCH = 16384
"""Packets that are decoded at a time: what is gathered from their bytes stays in the cache of a processor."""

_MARK = 4096
"""Packets from one mark to the next."""


@dataclasses.dataclass(frozen=True, slots=True)
class Kind:
    """What the header of a pcap file says: see ``savefile.Format``, and pcap-linktype(7)."""

    form: savefile.Format
    link_type: int


def kind_of(head: bytes) -> Kind | None:
    """The kind of a file that begins with these bytes; ``None`` when it is no pcap file."""
    form = savefile.parse_header(head)
    if form is None:
        return None
    return Kind(form, int.from_bytes(head[20:24], "little" if form.order == "<" else "big"))


def chunk(data: bytes | bytearray, length: int, begin: int, kind: Kind) -> Chunk | None:
    """The index of the whole records in the first ``length`` bytes of ``data``, which are the file's from ``begin`` on.

    ``data`` must be longer by ``headers.MARGIN`` bytes of anything. Of more than ``MOST`` packets only so many
    are taken; ``Chunk.end`` says how far it got. ``None`` when not even one record is whole.
    """
    found = records.find(data, length, kind.form.order)
    places, end = found.places, found.end
    if len(places) > MOST:
        places, end = places[:MOST], int(places[MOST])
    if not len(places):
        return None
    packets = headers.room(len(places))
    tall = _decode(data, places, 0, kind, packets, 0, tall=False)
    return _chunk(packets if tall else headers.short(packets), begin, begin + end, kind)


def _decode(
    data: bytes | bytearray,
    places: NDArray[np.int64],
    shift: int,
    kind: Kind,
    packets: Packets,
    count: int,
    *,
    tall: bool,
) -> bool:
    """Decode what is at ``places``, ``shift`` further on in the chunk, behind ``count`` packets that there are.

    ``tall``: whether there is IPv6 among these; returns whether there is now.
    """
    for at in range(0, len(places), _BATCH):
        batch = places[at : at + _BATCH]
        begin, count = count, count + len(batch)
        into = headers.part(packets, begin, count)
        has_high = headers.decode(data, batch, kind.form.order, kind.form.unit, kind.link_type, into)
        into.place[:] += shift
        if has_high and not tall:
            headers.lower(headers.part(packets, 0, begin))
        elif tall and not has_high:
            headers.lower(into)
        tall |= has_high
    return tall


def _chunk(packets: Packets, begin: int, end: int, kind: Kind) -> Chunk:
    """Of these packets, of which there is at least one."""
    flows, offsets = group(packets)
    marks = np.arange(0, len(packets.place), _MARK)
    return Chunk(
        begin=begin,
        end=end,
        link_type=kind.link_type,
        first=int(packets.time.min()),
        last=int(packets.time.max()),
        packets=len(packets.place),
        octets=int(packets.wire.sum(dtype=np.uint64)),
        cut=int(np.count_nonzero(packets.captured < packets.wire)),
        flows=flows,
        offsets=offsets,
        marks=packets.place[marks].astype(np.uint32),
        mark_first=np.minimum.reduceat(packets.time, marks),
        mark_last=np.maximum.reduceat(packets.time, marks),
    )


class Workspace:
    """Memory that is used again for each chunk; those who do not read at the same time may share it."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._packets: Packets | None = None

    def buffer(self, length: int) -> bytearray:
        """So many bytes, or more."""
        if len(self._buffer) < length:
            self._buffer = bytearray(length)
        return self._buffer

    def packets(self, count: int) -> Packets:
        """Room for so many, or more."""
        if self._packets is None or len(self._packets.place) < count:
            self._packets = headers.room(count)
        return self._packets


class Reader:
    """Reads a segment chunk by chunk, from ``begin`` on. Raises ``OSError``.

    Bytes are read, not mapped: a file that is cut short meanwhile ends, instead of ending the process.
    """

    def __init__(
        self, fd: int, kind: Kind, begin: int = savefile.FILE_HEADER, workspace: Workspace | None = None
    ) -> None:
        self._fd = fd
        self._kind = kind
        self._workspace = Workspace() if workspace is None else workspace
        #: Up to where the file has been told about.
        self.place = begin

    def chunks(self, end: int) -> Iterator[Chunk]:
        """The chunks up to ``end`` or to the last whole record before it."""
        while self.place < end and (made := self.chunk(end)) is not None:
            yield made

    def chunk(self, end: int) -> Chunk | None:
        """The next one; ``None`` when there is no whole record before ``end``."""
        begin, place, count, tall = self.place, self.place, 0, False
        end = min(end, begin + LONGEST)
        # A record of pcap-savefile(5) has 16 bytes at least; what is small costs no more room than that.
        packets = self._workspace.packets(min(PACKETS, 1024 + max(0, end - begin) // RECORD_HEADER))
        while place < end and count < PACKETS:
            length = min(end - place, _PIECE)
            if count:  # what there is no room for would be looked for twice
                if (PACKETS - count) * _ROOM < PACKETS:
                    break
                length = min(length, LONGEST_CAPTURE + RECORD_HEADER + (PACKETS - count) * (place - begin) // count)
            buffer = self._workspace.buffer(length + MARGIN)
            got = os.preadv(self._fd, [memoryview(buffer)[:length]], place)
            found = records.find(buffer, got, self._kind.form.order)
            places, stop = found.places, found.end
            if len(places) > PACKETS - count:
                places, stop = places[: PACKETS - count], int(places[PACKETS - count])
            if not len(places):
                break
            tall = _decode(buffer, places, place - begin, self._kind, packets, count, tall=tall)
            count += len(places)
            place += stop
        if not count:
            return None
        self.place = place
        packets = headers.part(packets, 0, count)
        return _chunk(packets if tall else headers.short(packets), begin, place, self._kind)
