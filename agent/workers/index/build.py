"""Bytes of a segment to a chunk of its index."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.workers.capture import savefile
from agent.workers.index import headers, records
from agent.workers.index.group import MOST, group
from agent.workers.index.headers import MARGIN, Packets
from agent.workers.index.model import Chunk

if TYPE_CHECKING:
    from numpy.typing import NDArray

LONGEST = 16 * 1024 * 1024
"""Bytes of a segment that are read at a time: bounds what an index costs in memory."""

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
    packets = _joined(
        [
            headers.read(data, places[at : at + _BATCH], kind.form.order, kind.form.unit, kind.link_type)
            for at in range(0, len(places), _BATCH)
        ]
    )
    flows, offsets = group(packets)
    marks = np.arange(0, len(places), _MARK)
    return Chunk(
        begin=begin,
        end=begin + end,
        link_type=kind.link_type,
        first=int(packets.time.min()),
        last=int(packets.time.max()),
        packets=len(places),
        octets=int(packets.wire.sum(dtype=np.uint64)),
        cut=int(np.count_nonzero(packets.captured < packets.wire)),
        flows=flows,
        offsets=offsets,
        marks=places[marks].astype(np.uint32),
        mark_first=np.minimum.reduceat(packets.time, marks),
        mark_last=np.maximum.reduceat(packets.time, marks),
    )


def _joined(batches: list[Packets]) -> Packets:
    if len(batches) == 1:
        return batches[0]
    tall = any(batch.source_high is not None for batch in batches)
    columns: dict[str, Any] = {}
    for name in Packets.__slots__:
        parts: list[NDArray[Any] | None] = [getattr(batch, name) for batch in batches]
        if name.endswith("_high"):
            if not tall:
                columns[name] = None
                continue
            parts = [
                np.zeros(len(batch.place), np.uint64) if part is None else part
                for part, batch in zip(parts, batches, strict=True)
            ]
        columns[name] = np.concatenate([part for part in parts if part is not None])
    return Packets(**columns)


class Reader:
    """Reads a segment chunk by chunk, from ``begin`` on, into one ``buffer``. Raises ``OSError``.

    Bytes are read, not mapped: a file that is cut short meanwhile ends, instead of ending the process.
    """

    def __init__(self, fd: int, kind: Kind, begin: int = savefile.FILE_HEADER, buffer: bytearray | None = None) -> None:
        self._fd = fd
        self._kind = kind
        self._buffer = bytearray() if buffer is None else buffer
        #: Up to where the file has been told about.
        self.place = begin

    def chunks(self, end: int) -> Iterator[Chunk]:
        """The chunks up to ``end`` or to the last whole record before it."""
        while self.place < end and (made := self.chunk(end)) is not None:
            yield made

    def chunk(self, end: int) -> Chunk | None:
        """The next one; ``None`` when there is no whole record before ``end``."""
        length = max(0, min(end - self.place, LONGEST))
        if len(self._buffer) < length + MARGIN:
            self._buffer = bytearray(length + MARGIN)
        got = os.preadv(self._fd, [memoryview(self._buffer)[:length]], self.place)
        made = chunk(self._buffer, got, self.place, self._kind)
        if made is not None:
            self.place = made.end
        return made
