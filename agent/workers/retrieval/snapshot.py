"""What a store holds at one instant, while it goes on being written: no packet twice, none left out.

A segment is renamed when it is closed. So the open ones are opened first, after which their names do not matter, and
then the store is looked at again: when it looks the same, nothing was renamed in between.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from agent.errors import StorageFailure
from agent.linux.files import open_regular, why
from agent.workers.capture.catalogue import Segment, segments
from agent.workers.capture.savefile import FILE_HEADER

_TRIES = 50
"""Looks at a store that looks different each time. It takes milliseconds, and segments are seldom closed as fast."""


class Source:
    """A segment to be read. ``size`` is up to where: what is written later came after the instant.

    An open one holds its files; a closed one opens them when they are needed.
    """

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self.interface = segment.interface
        self.service = segment.path.parent.parent.name
        self.header = b""
        self.size = 0
        self._index: int | None = None
        self._fd: int | None = None

    def fd(self) -> int:
        """The descriptor of the segment. Raises ``OSError``, when it was removed meanwhile, say."""
        if self._fd is None:
            self._fd = open_regular(self.segment.path, os.O_RDONLY)
            if not self.header:
                self.header = os.pread(self._fd, FILE_HEADER, 0)
                self.size = os.fstat(self._fd).st_size
        return self._fd

    def hold(self) -> None:
        """Open it and its index for good. Raises ``OSError``."""
        self.fd()
        with suppress(OSError):
            self._index = open_regular(self.segment.index, os.O_RDONLY)

    def index(self) -> int | None:
        """A descriptor of its index, to be closed by whoever asked; ``None`` when there is none."""
        if self._index is not None:
            return os.dup(self._index)
        if not self.segment.closed or not self.segment.indexed:
            return None
        try:
            return open_regular(self.segment.index, os.O_RDONLY)
        except OSError:
            return None

    def shut(self) -> None:
        """Close what can be opened again."""
        if self.segment.closed:
            self.close()

    def close(self) -> None:
        """Let go of everything."""
        for fd in (self._fd, self._index):
            if fd is not None:
                os.close(fd)
        self._fd = self._index = None


def snapshot(directory: Path) -> list[Source]:
    """What is in the store of one service now, oldest first. Raises ``StorageFailure``."""
    for _ in range(_TRIES):
        sources = [Source(segment) for segment in segments(directory)]
        try:
            for source in sources:
                if not source.segment.closed:
                    source.hold()
            if segments(directory) == [source.segment for source in sources]:
                return sources
        except FileNotFoundError:
            pass  # closed since: look again
        except OSError as error:
            raise StorageFailure(f"{error.filename or directory}: cannot be read: {why(error)}") from error
        for source in sources:
            source.close()
    raise StorageFailure(f"{directory}: its segments change faster than they can be listed")
