"""Names that come and go in directories, told by the kernel: inotify(7). So a large directory is read once.

What happened between two looks is told in its order, so what was listed after the watch began becomes right in the end.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from agent.linux.libc import (
    IN_CREATE,
    IN_DELETE,
    IN_IGNORED,
    IN_MOVED_FROM,
    IN_MOVED_TO,
    IN_ONLYDIR,
    IN_Q_OVERFLOW,
    inotify_add_watch,
    inotify_init,
)

_EVENT = struct.Struct("=iIII")  # struct inotify_event, linux/inotify.h: watch, mask, cookie, length of the name
_READ = 1 << 16
_MASK = IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_ONLYDIR


class Change(NamedTuple):
    """``name`` is there now, or is not any more, in the directory that is watched by this number."""

    watch: int
    name: str
    there: bool


class Lost(Exception):
    """Not every change is known: everything is to be listed again."""


class Changes:
    """Where there is no inotify, or none left, ``watch`` says so, and whoever asks has to look for himself."""

    def __init__(self) -> None:
        self._fd = -1
        with suppress(OSError):
            self._fd = inotify_init()

    def watch(self, directory: Path) -> int | None:
        """Watch a directory from now on; ``None`` when that cannot be."""
        if self._fd >= 0:
            with suppress(OSError):
                return inotify_add_watch(self._fd, directory, _MASK)
        return None

    def read(self) -> list[Change]:
        """What has changed since, in its order. Raises ``Lost``."""
        found: list[Change] = []
        lost = False
        while self._fd >= 0:
            try:
                data = os.read(self._fd, _READ)
            except BlockingIOError:
                break
            for watch, mask, name in _events(data):
                if mask & (IN_Q_OVERFLOW | IN_IGNORED):  # too many, or a directory went and its number with it
                    lost = True
                found.append(Change(watch, name, bool(mask & (IN_CREATE | IN_MOVED_TO))))
        if lost:
            raise Lost
        return found

    def close(self) -> None:
        """Watch nothing any more. Twice does no harm."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _events(data: bytes) -> Iterator[tuple[int, int, str]]:
    place = 0
    while place < len(data):
        watch, mask, _, length = _EVENT.unpack_from(data, place)
        place += _EVENT.size + length
        yield watch, mask, os.fsdecode(data[place - length : place].rstrip(b"\0"))
