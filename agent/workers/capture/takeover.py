"""What a capture that was killed left in memory: taken over by the next one, with nothing of it stored twice.

It may have died while a segment was being copied to the disk, or after that and before it was removed from memory. Such
a copy bears the name of its segment, or one later by microseconds where there was a file already, and begins as the
segment does. Call this before the store on disk is adopted, which would complete an unfinished one.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from agent.linux.files import open_regular
from agent.workers.capture import savefile
from agent.workers.capture.catalogue import ACCOUNT, INDEX, TAIL
from agent.workers.capture.hold import claim
from agent.workers.capture.naming import CLOSED, MICROSECOND, OPEN, parse_name, segment_name, valid_interface

_NEAR = 1000 * MICROSECOND
"""How far the instant in the name of a copy may be from that of its segment, in nanoseconds."""

_CHUNK = 1024 * 1024


def take_over(left: Path, memory: Path, data: Path) -> None:
    """Move segments from the directory ``left`` to ``memory``, which is on the same file system.

    A segment that the store at ``data`` has is not taken, and where there is but a part of it there that is removed.
    What stays in ``left`` is of no use to anybody. Raises ``OSError``.
    """
    for place in sorted(left.iterdir()):
        if not valid_interface(place.name) or not stat.S_ISDIR(place.lstat().st_mode):
            continue
        for file in sorted(place.iterdir()):
            parsed = parse_name(file.name)
            if parsed is None or not stat.S_ISREG(file.lstat().st_mode):
                continue
            if parsed[1] == CLOSED and _has(data / place.name, file, parsed[0]):
                continue
            _take(file, memory / place.name, *parsed)


def _take(file: Path, place: Path, begin: int, suffix: str) -> None:
    """Move one, and its account, to where nothing has its name."""
    place.mkdir(mode=0o750, exist_ok=True)
    while any(os.path.lexists(place / segment_name(begin, taken)) for taken in (CLOSED, OPEN, ACCOUNT)):
        begin += MICROSECOND
    target = place / segment_name(begin, suffix)
    file.rename(target)
    if suffix == CLOSED:
        with suppress(FileNotFoundError):
            file.with_suffix(ACCOUNT).rename(target.with_suffix(ACCOUNT))


def _has(place: Path, file: Path, begin: int) -> bool:
    """Whether the disk has all of a segment, closed, in this directory. A part of it is removed from there."""
    whole = False
    for copy in _near(place, begin):
        with suppress(OSError):
            size = _begins(file, copy)
            if size is None:
                continue
            if copy.suffix == CLOSED and size == file.stat().st_size:
                whole = True
            elif copy.suffix == CLOSED:
                if size > savefile.FILE_HEADER:
                    _remove(copy, INDEX, ACCOUNT)
            elif (hold := claim(copy, alone=True)) is not None:
                try:
                    _remove(copy, TAIL)
                finally:
                    hold.release()
    return whole


def _near(place: Path, begin: int) -> Iterator[Path]:
    """The segments in a directory that begin about then; none when there is no such directory."""
    with suppress(OSError):
        for name in os.listdir(place):  # noqa: PTH208  # names, and nothing else
            parsed = parse_name(name)
            if parsed is not None and abs(parsed[0] - begin) <= _NEAR:
                yield place / name


def _remove(copy: Path, *beside: str) -> None:
    copy.unlink()
    for suffix in beside:
        copy.with_suffix(suffix).unlink(missing_ok=True)


def _begins(whole: Path, part: Path) -> int | None:
    """How long ``part`` is, if ``whole`` begins with it; else ``None``. Raises ``OSError``."""
    with (
        os.fdopen(open_regular(whole, os.O_RDONLY), "rb", buffering=0) as one,
        os.fdopen(open_regular(part, os.O_RDONLY), "rb", buffering=0) as other,
    ):
        size = 0
        while chunk := other.read(_CHUNK):
            if os.pread(one.fileno(), len(chunk), size) != chunk:
                return None
            size += len(chunk)
    return size
