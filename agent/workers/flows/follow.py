"""What has come into the open segments of a store since the last look, in bounded time: for a view that is refreshed.

New bytes of a segment are read and made into rows as the indexer does it. Where more came than can be read in the time,
what is too much is passed over, up to where the index of the open segment ends: a boundary of records is only known
there. ``Fresh.share`` says how much of it was read.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from agent.linux.files import open_regular
from agent.workers.capture.catalogue import Segment, segments
from agent.workers.capture.naming import OPEN
from agent.workers.capture.savefile import FILE_HEADER
from agent.workers.capture.timely import changes, settled
from agent.workers.flows import table
from agent.workers.flows.records import indexes
from agent.workers.flows.table import Table
from agent.workers.index.build import Kind, Reader, kind_of

MOST = 8 * 1024 * 1024
"""Bytes of one interface that are read at one look: some 100,000 small packets, a tenth of a second of CPU."""


@dataclass(slots=True)
class Fresh:
    """What is new of one interface. ``packets`` and ``octets`` (on the wire) are those of ``rows``; ``bytes`` is by how
    much its files grew, of which ``read`` were read; ``open`` is the size of what is open, or ``None``."""

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
        self._file = (status.st_dev, status.st_ino)
        self.size = 0 if new else status.st_size
        self._lost = False
        if not new:
            self.size = self._skip(status.st_size)

    def close(self) -> None:
        os.close(self._fd)

    def is_at(self, path: Path) -> bool:
        """Whether it is still there under this name. Raises ``OSError``."""
        status = path.stat(follow_symlinks=False)
        return (status.st_dev, status.st_ino) == self._file

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
        fresh.bytes += max(0, size - max(self.size, FILE_HEADER))
        self.size = max(self.size, size)
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
    """Follows one store. An interface may have several open segments, where several processes share it."""

    def __init__(self) -> None:
        self._open: dict[Path, _Open] = {}
        self._begun = False
        self._stamps: list[int] = []

    def look(self, directory: Path, origins: dict[tuple[str, str], int]) -> dict[str, Fresh]:
        """What is new since the last look, by interface. ``origins`` gives each service and interface its number.

        Raises ``StorageFailure``.
        """
        found = self._listed(directory)
        fresh: dict[str, Fresh] = {}
        for path, known in list(self._open.items()):
            of_it = fresh.setdefault(known.segment.interface, Fresh())
            with suppress(OSError):
                known.take(of_it, self._origin(directory, known.segment, origins))
                if known.is_at(path):
                    found.pop(path, None)
                    of_it.open = (of_it.open or 0) + known.size
                    continue
            self._open.pop(path).close()
        for path, segment in found.items():
            of_it = fresh.setdefault(segment.interface, Fresh())
            with suppress(OSError):  # closed or removed since, or not ours to read
                opened = self._open[path] = _Open(segment, new=self._begun)
                opened.take(of_it, self._origin(directory, segment, origins))
                of_it.open = (of_it.open or 0) + opened.size
                continue
            self._stamps = []  # it is looked for again
        self._begun = True
        return dict(sorted(fresh.items()))

    def _listed(self, directory: Path) -> dict[Path, Segment]:
        """The open segments, by their paths; none when no name can be there that was not at the last look."""
        stamps = changes(directory)
        if self._begun and stamps and stamps == self._stamps and settled(stamps):
            return {}
        self._stamps = stamps
        return {one.path: one for one in segments(directory, (OPEN,))}

    @staticmethod
    def _origin(directory: Path, segment: Segment, origins: dict[tuple[str, str], int]) -> int:
        return origins.setdefault((directory.name, segment.interface), len(origins))

    def close(self) -> None:
        """Let go of all files."""
        for one in self._open.values():
            one.close()
        self._open.clear()
