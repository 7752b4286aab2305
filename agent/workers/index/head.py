"""What an index says of each of its chunks before the columns come: little, and read without numpy.

For the form of the whole see ``form``.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import msgspec

from agent.errors import StorageFailure
from agent.linux.files import open_regular

VERSION = 1
MAGIC = b"agentidx"

LEAD = struct.Struct("<8sIIQ")
ALIGN = 8
_LONGEST_HEADER = 65536
_FIRST_LOOK = 1024

MOST_CHUNKS = 65536
"""Of one index: a chunk tells about 64 MiB, or has 200,000 rows, before another is begun."""


class Unreadable(StorageFailure):
    """These bytes are no index, or not a whole one."""


class NewerVersion(Unreadable):
    """Written by a version of this program that knows more than this one."""


class Header(msgspec.Struct, frozen=True):
    """What is said of a chunk in JSON. ``columns`` are names and how many values each has, in their order."""

    begin: int
    end: int
    link_type: int
    first: int
    last: int
    packets: int
    octets: int
    cut: int
    columns: list[tuple[str, int]]


def heads(fd: int) -> Iterator[tuple[Header, int, int]]:
    """What is said of each chunk in the index that ``fd`` is, and at which byte of it the chunk stands, and how long.

    Only that is read: ``decode`` takes the bytes of a chunk. Raises as ``decode`` does, and ``OSError``.
    """
    place, size = 0, os.fstat(fd).st_size
    while size - place >= LEAD.size:
        lead = os.pread(fd, _FIRST_LOOK, place)
        length, columns, payload = lead_of(lead)
        if columns + payload > size - place:
            return
        if columns > len(lead):
            lead = os.pread(fd, columns, place)
        yield header_of(lead[LEAD.size : LEAD.size + length]), place, columns + payload
        place += columns + payload


def lead_of(view: bytes | memoryview, place: int = 0) -> tuple[int, int, int]:
    """How long the header of the chunk at ``place`` is, where its columns begin, counted from there, and how long
    these are. Raises ``Unreadable``.
    """
    if len(view) - place < LEAD.size:
        raise Unreadable("it is no index")
    magic, version, length, payload = LEAD.unpack_from(view, place)
    if magic != MAGIC or not version:
        raise Unreadable("it is no index")
    if version > VERSION:
        raise NewerVersion(f"an index of version {version}; this program knows up to {VERSION}")
    if length > _LONGEST_HEADER:
        raise Unreadable("a header that is too long")
    return length, aligned(LEAD.size + length), payload


def header_of(text: bytes) -> Header:
    """What is said of a chunk, out of its JSON. Raises ``Unreadable``."""
    try:
        return msgspec.json.decode(text, type=Header)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable(f"a header that makes no sense: {error}") from error


def cut_in(index: Path) -> int | None:
    """How many packets of a segment were cut to the snaplen, by its ``index``; ``None`` where that does not tell.

    An empty index says that none could be made, and one that was cut short tells of a part alone.
    """
    total = end = 0
    try:
        with os.fdopen(open_regular(index, os.O_RDONLY), "rb") as file:
            for head, place, length in islice(heads(file.fileno()), MOST_CHUNKS):
                if not 0 <= head.cut <= head.packets < 1 << 48:
                    return None
                total, end = total + head.cut, place + length
            whole = 0 < end == os.fstat(file.fileno()).st_size
    except (OSError, Unreadable):
        return None
    return total if whole else None


def aligned(length: int) -> int:
    """The next multiple of ``ALIGN``."""
    return -(-length // ALIGN) * ALIGN
