"""pcapng as it is written here, block by block: draft-ietf-opsawg-pcapng. Pure.

Little-endian, timestamps in nanoseconds. A section begins with what was asked, tells of each interface before its first
packet, and ends with what is known of drops.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from agent.workers.retrieval.search import Batch

_SECTION, _INTERFACE, _STATISTICS, _PACKET = 0x0A0D0D0A, 1, 5, 6
_BYTE_ORDER = 0x1A2B3C4D

_END, _COMMENT = 0, 1  # options of every block
_HARDWARE, _SYSTEM, _APPLICATION = 2, 3, 4  # of a section
_NAME, _DESCRIPTION, _RESOLUTION, _FILTER = 2, 3, 9, 11  # of an interface
_START, _STOP, _RECEIVED, _DROPPED, _ACCEPTED, _LOST, _DELIVERED = 2, 3, 4, 5, 6, 7, 8  # of statistics

_LONGEST_OPTION = 65535

_RECORD = struct.Struct("=IIII")
_PACKET_HEAD = struct.Struct("<IIIIIII")
_LENGTH = struct.Struct("<I")
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")


class Statistics(NamedTuple):
    """What is known of an interface between two instants: counts of packets, instants in nanoseconds.

    ``received`` passed the filter of the capture; of these ``dropped`` found the ring of the kernel full.
    ``missed`` were lost before the kernel saw them.
    """

    begin: int
    end: int
    received: int
    dropped: int
    missed: int


def section(comment: str, hardware: str, system: str, application: str) -> bytes:
    """The begin of a file."""
    options = _options((_COMMENT, comment), (_HARDWARE, hardware), (_SYSTEM, system), (_APPLICATION, application))
    return _block(_SECTION, struct.pack("<IHHq", _BYTE_ORDER, 1, 0, -1) + options)


def interface(name: str, description: str, link_type: int, snaplen: int, filter: str) -> bytes:
    """An interface; the first in a file is number 0. ``filter`` is that of its capture, empty for none."""
    options = _options(
        (_NAME, name),
        (_DESCRIPTION, description),
        (_RESOLUTION, b"\x09"),
        *([(_FILTER, b"\0" + filter.encode("utf-8", "replace"))] if filter else []),
    )
    return _block(_INTERFACE, struct.pack("<HHI", link_type & 0xFFFF, 0, snaplen) + options)


def packets(number: int, batch: Batch, begin: int, end: int) -> bytes:
    """The packets ``begin`` up to ``end``, not included, of a batch, on interface ``number``."""
    records, parts = batch.records, []
    unpack, pack, length_of = _RECORD.unpack_from, _PACKET_HEAD.pack, _LENGTH.pack
    for place, time in zip(batch.places[begin:end], batch.times[begin:end], strict=True):
        _, _, captured, length = unpack(records, place)
        padding = _PADDING[captured & 3]
        total = 32 + captured + len(padding)
        parts.append(pack(_PACKET, total, number, time >> 32, time & 0xFFFFFFFF, captured, length))
        parts.append(records[place + 16 : place + 16 + captured])
        parts.append(padding)
        parts.append(length_of(total))
    return b"".join(parts)


def statistics(number: int, counted: Statistics, comment: str) -> bytes:
    """What is known of an interface."""

    def instant(time: int) -> bytes:
        return struct.pack("<II", time >> 32, time & 0xFFFFFFFF)

    def count(value: int) -> bytes:
        return struct.pack("<Q", value)

    options = _options(
        (_COMMENT, comment),
        (_START, instant(counted.begin)),
        (_STOP, instant(counted.end)),
        (_RECEIVED, count(counted.received)),
        (_DROPPED, count(counted.missed)),
        (_ACCEPTED, count(counted.received)),
        (_LOST, count(counted.dropped)),
        (_DELIVERED, count(max(0, counted.received - counted.dropped))),
    )
    return _block(_STATISTICS, struct.pack("<I", number) + instant(counted.end) + options)


def _options(*given: tuple[int, str | bytes]) -> bytes:
    parts = []
    for code, value in given:
        data = (value.encode("utf-8", "replace") if isinstance(value, str) else value)[:_LONGEST_OPTION]
        parts.append(struct.pack("<HH", code, len(data)) + data + _PADDING[len(data) & 3])
    return b"".join([*parts, struct.pack("<HH", _END, 0)])


def _block(kind: int, body: bytes) -> bytes:
    total = struct.pack("<I", 12 + len(body))
    return struct.pack("<I", kind) + total + body + total
