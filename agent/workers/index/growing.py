"""The index of one segment while that is written, and until it is whole on disk.

::

    NAME.part ── chunks, merged as they come ── NAME.tail    what will not change any more, when it is much
                                             └─ NAME.idx     all of it, once the segment is closed

Chunks are merged two by two as they grow alike, so each row is merged a few times whatever the number of looks. One
that has become large is written to the tail and forgotten: that bounds the memory, and readers find it there.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from agent.errors import StorageFailure
from agent.workers.capture import savefile
from agent.workers.capture.catalogue import INDEX, TAIL
from agent.workers.index import form
from agent.workers.index.build import Kind, Reader, Workspace, kind_of
from agent.workers.index.group import merge
from agent.workers.index.model import Chunk

SEALED_BYTES = 64 * 1024 * 1024
SEALED_ROWS = 200_000
"""A chunk that tells about so many bytes is written and not merged any more, and so are those that have more rows
together.
"""

_MODE = 0o640


class Growing:
    """The index of the segment at ``path``, open or closed. Raises ``OSError``; ``NotOurs`` when it is no pcap file.

    ``workspace`` may be shared with others that do not read at the same time.
    """

    def __init__(self, path: Path, workspace: Workspace | None = None) -> None:
        self.path = path
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            #: The segment, open for reading; -1 once it is closed.
            self.fd = fd
            status = os.fstat(fd)
            #: Which file this is, whatever it is called by now.
            self.identity = status.st_dev, status.st_ino
            kind = kind_of(os.pread(fd, savefile.FILE_HEADER, 0))
            if kind is None:
                raise NotOurs(f"{path}: not a pcap file")
        except BaseException:
            os.close(fd)
            raise
        self.kind: Kind = kind
        self._reader = Reader(fd, kind, workspace=workspace)
        self._chunks: list[Chunk] = []  # none of them sealed, each about twice as large as the next
        self._tail = path.with_suffix(TAIL)
        self._sealed = False

    @property
    def place(self) -> int:
        """Up to which byte the segment is known."""
        return self._reader.place

    @property
    def weight(self) -> int:
        """Bytes that are kept in memory."""
        return sum(map(_weight, self._chunks))

    @property
    def damaged(self) -> bool:
        """Whether there is something behind what is known that makes no sense, of a segment that is closed."""
        return self.place < self.size()

    def gone(self) -> bool:
        """Whether the segment was removed."""
        return os.fstat(self.fd).st_nlink == 0

    def size(self) -> int:
        """Bytes of the segment now."""
        return os.fstat(self.fd).st_size

    def advance(self) -> Iterator[Chunk]:
        """Index what has been written since, chunk by chunk; yields each as it is made. Raises ``OSError``."""
        for chunk in self._reader.chunks(self.size()):
            yield chunk
            self._add(chunk)

    def finish(self, closed: Path) -> Path:
        """Write the index of the segment, which is closed and called ``closed`` now; returns where. Call ``advance``
        before. Raises ``StorageFailure``.
        """
        index = closed.with_suffix(INDEX)
        try:
            self.seal()
            self._tail.rename(index)
        except OSError as error:
            raise StorageFailure(f"{index}: cannot be written: {error.strerror}") from error
        return index

    def seal(self) -> None:
        """Write what is kept, which then is not merged any more. Raises ``OSError``."""
        if not self._sealed:
            self._begin()
        kept, self._chunks = self._chunks, []
        for chunk in merge(kept):
            self._seal(chunk)

    def close(self) -> None:
        """Let go of the segment. What is not finished is removed: whoever takes it up again begins anew."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        with suppress(OSError):
            self._tail.unlink()

    def _add(self, chunk: Chunk) -> None:
        self._chunks.append(chunk)
        while len(self._chunks) > 1 and len(self._chunks[-1].flows) * 2 > len(self._chunks[-2].flows):
            if self._rows(self._chunks[-2:]) > SEALED_ROWS:
                break
            last = self._chunks.pop()
            self._chunks[-1:] = merge([self._chunks[-1], last])
            if len(self._chunks) > 1 and self._chunks[-1] is last:
                break  # they do not fit together
        while self._chunks and (self._large(self._chunks[0]) or self._rows(self._chunks) > SEALED_ROWS):
            if not self._sealed:
                self._begin()
            self._seal(self._chunks.pop(0))

    @staticmethod
    def _rows(chunks: list[Chunk]) -> int:
        return sum(len(chunk.flows) for chunk in chunks)

    @staticmethod
    def _large(chunk: Chunk) -> bool:
        return len(chunk.flows) >= SEALED_ROWS or chunk.end - chunk.begin >= SEALED_BYTES

    def _begin(self) -> None:
        """Begin an empty tail, whatever an earlier process has left there."""
        with suppress(FileNotFoundError):
            self._tail.unlink()
        os.close(os.open(self._tail, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE))
        self._sealed = True

    def _seal(self, chunk: Chunk) -> None:
        fd = os.open(self._tail, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            data = memoryview(form.encode(chunk))
            while data:
                data = data[os.write(fd, data) :]
        finally:
            os.close(fd)


def _weight(chunk: Chunk) -> int:
    parts = (chunk.flows, chunk)
    return sum(getattr(getattr(part, field.name), "nbytes", 0) for part in parts for field in dataclasses.fields(part))


class NotOurs(StorageFailure):
    """What has the name of a segment is none."""
