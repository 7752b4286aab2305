"""What has come into the open segments of a store since the last look, in bounded time: for a view that is refreshed.

New bytes of a segment are read and made into rows as the indexer does it. Where more came than can be read in the time,
what is too much is passed over, up to where the index of the open segment ends: a boundary of records is only known
there. ``Fresh.share`` says how much of it was read.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from agent.linux.files import open_regular
from agent.workers.capture.catalogue import Segment, segments
from agent.workers.capture.savefile import FILE_HEADER
from agent.workers.flows import table
from agent.workers.flows.records import indexes
from agent.workers.flows.table import Table
from agent.workers.index.build import Kind, Reader, kind_of

MOST = 8 * 1024 * 1024
"""Bytes of one interface that are read at one look: some 100,000 small packets, a tenth of a second of CPU."""


@dataclass(slots=True)
class Fresh:
    """What is new of one interface. ``packets`` and ``octets`` (on the wire) are those of ``rows``; ``bytes`` is by how
    much its files grew, of which ``read`` were read; ``open`` is the size of the open segment, or ``None``."""

    rows: Table = field(default_factory=table.empty)
    packets: int = 0
    octets: int = 0
    bytes: int = 0
    read: int = 0
    open: int | None = None

    @property
    def share(self) -> float:
        """How much of the new bytes was read, 0..1."""
        return 1.0 if self.read >= self.bytes else self.read / self.bytes


class _Open:
    """One segment that is being written, or was until just now."""

    def __init__(self, segment: Segment, *, new: bool) -> None:
        """``new``: all of it is; else what is in it is old, except what its index does not tell of yet."""
        self.segment = segment
        self._fd = open_regular(segment.path, os.O_RDONLY)
        self._kind: Kind | None = None
        self._reader: Reader | None = None
        status = os.fstat(self._fd)
        self.inode = (status.st_dev, status.st_ino)
        self._size = 0 if new else status.st_size
        self._lost = False
        if not new:
            self._size = self._skip(status.st_size)

    def close(self) -> None:
        os.close(self._fd)

    def _read(self) -> Reader | None:
        if self._reader is None and (kind := kind_of(os.pread(self._fd, FILE_HEADER, 0))):
            self._kind, self._reader = kind, Reader(self._fd, kind)
        return self._reader

    def _skip(self, size: int) -> int:
        """On to the last boundary that is known; without one that is near enough, nothing is read. Returns where to."""
        reader = self._read()
        if reader is None or self._kind is None:
            return size
        chunks = indexes(self.segment, size, self._kind.link_type)
        if chunks:
            reader.place = max(reader.place, chunks[-1].end)
        self._lost = size - reader.place > MOST
        return size if self._lost else reader.place

    def take(self, fresh: Fresh, origin: int) -> None:
        """Add what is new to ``fresh``."""
        size = os.fstat(self._fd).st_size
        fresh.bytes += max(0, size - max(self._size, FILE_HEADER))
        self._size = max(self._size, size)
        reader = self._read()
        if reader is None:
            return
        if self._lost or size - reader.place > MOST:
            self._skip(size)
            if self._lost:
                return
        begin = reader.place
        for chunk in reader.chunks(size):
            fresh.rows = table.together([fresh.rows, table.of(chunk.flows, origin)])
            fresh.packets += chunk.packets
            fresh.octets += chunk.octets
        fresh.read += reader.place - begin


class Follower:
    """Follows one store. ``numbers`` gives each (service, interface) the origin of its rows."""

    def __init__(self) -> None:
        self._open: dict[str, _Open] = {}
        self._begun = False

    def look(self, directory: Path, origins: dict[tuple[str, str], int]) -> dict[str, Fresh]:
        """What is new since the last look, by interface. Raises ``StorageFailure``."""
        found = {one.interface: one for one in segments(directory) if not one.closed}
        fresh: dict[str, Fresh] = {}
        for name in sorted({*found, *self._open}):
            fresh[name] = Fresh()
            origin = origins.setdefault((directory.name, name), len(origins))
            try:
                self._follow(name, found.get(name), fresh[name], origin)
            except OSError:  # removed since, or not ours to read
                continue
        self._begun = True
        return fresh

    def _follow(self, name: str, segment: Segment | None, fresh: Fresh, origin: int) -> None:
        known = self._open.get(name)
        if known is not None:
            known.take(fresh, origin)
        if segment is None:
            if known is not None:
                self._open.pop(name).close()
            return
        status = segment.path.stat(follow_symlinks=False)
        fresh.open = status.st_size
        if known is not None and known.inode == (status.st_dev, status.st_ino):
            known.segment = segment
            return
        if known is not None:
            self._open.pop(name).close()
        opened = self._open[name] = _Open(segment, new=self._begun)
        opened.take(fresh, origin)

    def close(self) -> None:
        """Let go of all files."""
        for one in self._open.values():
            one.close()
        self._open.clear()
