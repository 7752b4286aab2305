"""The form of pcap files: their header, and the arithmetic of where the last whole record ends. Pure.

The format is pcap-savefile(5): a header of 24 bytes, then records of a 16 byte header (seconds, fraction, captured
length, original length, each 32 bits in the writer's byte order) and the captured bytes. There is no trailer, so a file
cut off anywhere is whole up to some record.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Literal

FILE_HEADER = 24
RECORD_HEADER = 16

#: Longer captures than this are never written by libpcap (MAXIMUM_SNAPLEN in pcap-int.h).
LONGEST_CAPTURE = 262144

_MICROSECONDS = 0xA1B2C3D4
_NANOSECONDS = 0xA1B23C4D
_HEADER = "IHHiIII"  # magic, version 2.4, two that are not used, snapshot length, link type


@dataclass(frozen=True, slots=True)
class Format:
    """Byte order for ``struct`` and how many nanoseconds one unit of a record's fraction is."""

    order: Literal["<", ">"]
    unit: int


def file_header(link_type: int, snaplen: int = LONGEST_CAPTURE, order: Literal["=", "<", ">"] = "=") -> bytes:
    """What a file of records with nanoseconds begins with, in the byte order of this machine unless another is named.

    ``link_type`` is of pcap-linktype(7), ``snaplen`` the most bytes of a packet that it will hold.
    """
    return struct.pack(order + _HEADER, _NANOSECONDS, 2, 4, 0, 0, snaplen, link_type)


def parse_header(data: bytes) -> Format | None:
    """The format of a file that begins with ``data``; ``None`` when these are not the 24 bytes of a pcap header."""
    if len(data) < FILE_HEADER:
        return None
    orders: tuple[Literal["<", ">"], ...] = ("<", ">")
    for order in orders:
        (magic,) = struct.unpack_from(order + "I", data)
        if magic in (_MICROSECONDS, _NANOSECONDS):
            return Format(order, 1000 if magic == _MICROSECONDS else 1)
    return None


def link_type(form: Format, header: bytes) -> int:
    """What the packets of a file that begins with this ``header`` begin with: pcap-linktype(7)."""
    return int(struct.unpack_from(form.order + "I", header, 20)[0])


def snapshot_length(header: bytes) -> int:
    """The most bytes of a packet that a file with this ``header`` holds; 0 when it is none."""
    form = parse_header(header)
    return int(struct.unpack_from(form.order + "I", header, 16)[0]) if form else 0


def first_instant(form: Format, record: bytes) -> int:
    """The timestamp of the record that begins with these 16 bytes, in nanoseconds since the epoch."""
    seconds, fraction = struct.unpack_from(form.order + "II", record)
    return int(seconds) * 1_000_000_000 + int(fraction) * form.unit


@dataclass(frozen=True, slots=True)
class Walk:
    """``records`` whole records take the first ``length`` bytes; ``damaged``: what follows can be no record at all.

    ``latest`` is the second of the latest of them, since the epoch; 0 without any.
    """

    length: int
    records: int
    damaged: bool
    latest: int = field(default=0, compare=False)


def whole_records(data: bytes, form: Format) -> Walk:
    """Walk the records at the beginning of ``data`` until one is cut off or makes no sense.

    A header makes no sense when it claims more captured than original bytes, none on the wire, or more than libpcap
    writes. Files that lost pages in a power failure have such headers, of zeros.
    """
    heads = struct.Struct(form.order + "I4xII")
    offset = records = latest = 0
    while offset + RECORD_HEADER <= len(data):
        second, captured, original = heads.unpack_from(data, offset)
        if captured > original or original == 0 or captured > LONGEST_CAPTURE:
            return Walk(offset, records, damaged=True, latest=latest)
        end = offset + RECORD_HEADER + captured
        if end > len(data):
            break
        offset = end
        records += 1
        if second > latest:
            latest = second
    return Walk(offset, records, damaged=False, latest=latest)
