"""Reading a rotated log back: its last lines, or what came after a cursor.

A cursor is text: ``INODE:OFFSET:BORN``, the place right after a line. It stays good when a rotation renames the file.
``BORN`` is a checksum of the file's first bytes (its first time stamp): inode numbers are used again at once after a
deletion, and a stale cursor must be recognised rather than point into the middle of something else.

Every call reads a bounded amount, whatever the files hold.
"""

from __future__ import annotations

import binascii
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

LINE_LIMIT = 16 * 1024
"""Bytes of one ``LogLine``; a longer line comes in several pieces, of which only the first has a time."""

BUDGET = 4 * 1024 * 1024
"""Bytes that one call reads at most."""

MOST_FILES = 100
"""Rotated files that are looked at."""

CURSOR = "([0-9]{1,20}):([0-9]{1,18}):([0-9a-f]{8})"
"""What a cursor looks like, as a regular expression."""

_BLOCK = 64 * 1024
_STAMP = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ")
_CURSOR = re.compile(CURSOR)


class LogLine(msgspec.Struct):
    """One line. ``time`` is RFC 3339 (empty where the file has none), ``cursor`` the place after the line.

    ``line`` is text decoded from UTF-8, with U+FFFD for what is not. Control characters are left as they are: whoever
    shows it on a terminal must neutralise them.
    """

    cursor: str
    time: str
    line: str


class _File:
    """One open file of a log."""

    def __init__(self, fd: int, found: os.stat_result) -> None:
        self.fd = fd
        self.inode = found.st_ino
        self.size = found.st_size
        self.born = f"{binascii.crc32(os.pread(fd, 24, 0)):08x}"

    def cursor(self, offset: int) -> str:
        return f"{self.inode}:{offset}:{self.born}"


def tail(path: Path, lines: int) -> list[LogLine]:
    """The last ``lines`` finished lines, oldest first; fewer where the files or ``BUDGET`` end before."""
    found: list[LogLine] = []
    budget = BUDGET
    with _files(path) as files:
        for file in reversed(files):
            if len(found) >= lines or budget <= 0:
                break
            start, end = _last_lines(file, lines - len(found), budget)
            budget -= end - start
            found = _parse(file, start, os.pread(file.fd, end - start, start)) + found
    return found[-lines:] if lines > 0 else []


def end(path: Path) -> str:
    """The cursor after the last finished line; empty when there is no log (which ``read_after`` takes as its start)."""
    with _files(path) as files:
        if not files:
            return ""
        return files[-1].cursor(_last_lines(files[-1], 0, BUDGET)[1])


def read_after(path: Path, cursor: str, limit: int) -> tuple[list[LogLine], str, bool]:
    """At most ``limit`` finished lines after ``cursor``, the cursor to go on with, and whether lines are missing.

    Lines are missing when the file that the cursor points into is gone; reading then goes on with the oldest there is.
    An empty cursor is the beginning of the log. Raises ``ValueError`` for text that is no cursor.
    """
    match = _CURSOR.fullmatch(cursor)
    if cursor and not match:
        raise ValueError(f"not a cursor of a log: {cursor[:80]!r}")
    found: list[LogLine] = []
    budget = BUDGET
    with _files(path) as files:
        if not files:
            return [], "", bool(cursor)
        offset, gap = 0, False
        if match:
            inode, offset, born = int(match[1]), int(match[2]), match[3]
            at = next((n for n, file in enumerate(files) if file.inode == inode), None)
            if at is None or (offset and (files[at].born != born or offset > files[at].size)):
                offset, gap = 0, True
            else:
                del files[:at]
        for file in files:
            while len(found) < limit and budget > 0 and offset < file.size:
                block = os.pread(file.fd, min(_BLOCK, file.size - offset), offset)
                budget -= len(block)
                parsed = _parse(file, offset, block)[: limit - len(found)]
                if not parsed:
                    break  # an unfinished line: its end is still to come
                found += parsed
                offset = _offset(parsed[-1].cursor)
            cursor = file.cursor(offset)
            if len(found) >= limit or budget <= 0:
                break
            offset = 0
    return found, cursor, gap


@contextmanager
def _files(path: Path) -> Iterator[list[_File]]:
    """The files of a log, oldest first.

    They are opened youngest first: a rotation meanwhile then shows a file twice (which is seen), never not at all.
    """
    files: dict[int, _File] = {}
    try:
        for number in range(MOST_FILES):
            name = path if not number else path.with_name(f"{path.name}.{number}")
            try:
                fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            except OSError:
                if number:
                    break
                continue  # in the middle of a rotation, or the newest was removed by hand
            found = os.fstat(fd)
            if found.st_ino in files or not stat.S_ISREG(found.st_mode):
                os.close(fd)
                continue
            files[found.st_ino] = _File(fd, found)
        yield list(files.values())[::-1]
    finally:
        for file in files.values():
            os.close(file.fd)


def _last_lines(file: _File, lines: int, budget: int) -> tuple[int, int]:
    """Where the last finished ``lines`` begin and end, found by reading backwards at most ``budget`` bytes."""
    stop = max(0, file.size - budget)
    finish = start = -1
    position = file.size
    while position > stop:
        before = max(stop, position - _BLOCK)
        block = os.pread(file.fd, position - before, before)
        at = len(block)
        while (at := block.rfind(b"\n", 0, at)) >= 0:
            if finish < 0:
                finish = before + at + 1
            elif lines > 0:
                lines -= 1
            if lines == 0:
                start = before + at + 1
                return start, finish
        position = before
    if finish < 0:
        return stop, stop
    return stop, finish


def _parse(file: _File, offset: int, block: bytes) -> list[LogLine]:
    """The finished lines of a block that begins at ``offset``; of an endless line, pieces of ``LINE_LIMIT`` bytes."""
    found = []
    at = 0
    while at < len(block):
        newline = block.find(b"\n", at, at + LINE_LIMIT + 1)
        if newline < 0 and len(block) - at <= LINE_LIMIT:
            break
        stop = newline if newline >= 0 else at + LINE_LIMIT
        piece = block[at:stop]
        at = stop + (newline >= 0)
        stamp = _STAMP.match(piece)
        time = piece[: stamp.end() - 1].decode() if stamp else ""
        text = piece[stamp.end() :] if stamp else piece
        found.append(LogLine(file.cursor(offset + at), time, text.decode("utf-8", "replace")))
    return found


def _offset(cursor: str) -> int:
    return int(cursor.split(":")[1])
