"""An index as a file: chunks one after the other, each a header in JSON and its columns as they are in memory.

::

    "agentidx"   8 bytes
    version      4 bytes       little-endian, as all numbers
    header       4 bytes       how many bytes of JSON follow
    payload      8 bytes       how many bytes of columns follow that
    JSON         ``Header``, then zeros up to a multiple of 8 bytes from the chunk's begin
    columns      in the order of ``Header.columns``, each followed by zeros up to a multiple of 8 bytes

A file may end in an unfinished chunk, when somebody is writing it. What is read is not believed: lengths are held
against what is there, and rows against the tables that they point into.
"""

from __future__ import annotations

import dataclasses
import os
import struct
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from agent.errors import StorageFailure
from agent.workers.index.model import (
    ARP,
    ENCAPSULATED,
    EXTENDED,
    FRAGMENTED,
    IPV4,
    IPV6,
    LATER_FRAGMENT,
    ODD,
    Chunk,
    Flows,
)

VERSION = 1
MAGIC = b"agentidx"

_LEAD = struct.Struct("<8sIIQ")
_ALIGN = 8
_LONGEST_HEADER = 65536
_FIRST_LOOK = 1024

_FAMILIES = ARP | IPV4 | IPV6
_QUIRKS = ODD | LATER_FRAGMENT | FRAGMENTED | EXTENDED | ENCAPSULATED

_FLOWS = {
    "addresses": "<u8",
    "source": "<u4",
    "destination": "<u4",
    "source_port": "<u2",
    "destination_port": "<u2",
    "ethertype": "<u2",
    "vlan": "<u2",
    "inner_vlan": "<u2",
    "tcp_flags": "<u2",
    "family": "<u1",
    "protocol": "<u1",
    "tags": "<u1",
    "quirks": "<u1",
    "first": "<u8",
    "last": "<u8",
    "packets": "<u4",
    "octets": "<u8",
}
_POSITIONS = {"offsets": "<u4", "marks": "<u4", "mark_first": "<u8", "mark_last": "<u8"}


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


def encode(chunk: Chunk) -> bytes:
    """The bytes of one chunk."""
    arrays = [(name, getattr(chunk.flows, name), kind) for name, kind in _FLOWS.items()]
    arrays += [(name, getattr(chunk, name), kind) for name, kind in _POSITIONS.items()]
    columns = [(name, int(array.size)) for name, array, _ in arrays]
    fields = (field.name for field in dataclasses.fields(chunk) if field.name in Header.__struct_fields__)
    header = msgspec.json.encode(Header(**{name: int(getattr(chunk, name)) for name in fields}, columns=columns))
    parts = [_padded(np.ascontiguousarray(array, kind).tobytes()) for _, array, kind in arrays]
    lead = _LEAD.pack(MAGIC, VERSION, len(header), sum(map(len, parts)))
    return b"".join([_padded(lead + header), *parts])


def decode(data: bytes | memoryview) -> Iterator[Chunk]:
    """The chunks of an index; its arrays are views of ``data``. An unfinished chunk at the end is left out.

    Raises ``NewerVersion`` and ``Unreadable``.
    """
    view = memoryview(data)
    place = 0
    while len(view) - place >= _LEAD.size:
        length, columns, payload = _lead(view, place)
        columns += place
        end = columns + payload
        if end > len(view):
            return
        start = place + _LEAD.size
        yield _chunk(bytes(view[start : start + length]), view[columns:end])
        place = end


def heads(fd: int) -> Iterator[tuple[Header, int, int]]:
    """What is said of each chunk in the index that ``fd`` is, and at which byte of it the chunk stands, and how long.

    Only that is read: ``decode`` takes the bytes of a chunk. Raises as ``decode`` does, and ``OSError``.
    """
    place, size = 0, os.fstat(fd).st_size
    while size - place >= _LEAD.size:
        lead = os.pread(fd, _FIRST_LOOK, place)
        length, columns, payload = _lead(lead)
        if columns + payload > size - place:
            return
        if columns > len(lead):
            lead = os.pread(fd, columns, place)
        yield _header(lead[_LEAD.size : _LEAD.size + length]), place, columns + payload
        place += columns + payload


def _lead(view: bytes | memoryview, place: int = 0) -> tuple[int, int, int]:
    """How long the header is, where the columns begin, and how long these are."""
    if len(view) - place < _LEAD.size:
        raise Unreadable("it is no index")
    magic, version, length, payload = _LEAD.unpack_from(view, place)
    if magic != MAGIC or not version:
        raise Unreadable("it is no index")
    if version > VERSION:
        raise NewerVersion(f"an index of version {version}; this program knows up to {VERSION}")
    if length > _LONGEST_HEADER:
        raise Unreadable("a header that is too long")
    return length, _aligned(_LEAD.size + length), payload


def _header(text: bytes) -> Header:
    try:
        return msgspec.json.decode(text, type=Header)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable(f"a header that makes no sense: {error}") from error


def _chunk(text: bytes, payload: memoryview) -> Chunk:
    header = _header(text)
    kinds = {**_FLOWS, **_POSITIONS}
    found: dict[str, Any] = {}
    place = 0
    for name, count in header.columns:
        kind = np.dtype(kinds.get(name, "V0"))
        size = count * kind.itemsize
        if name not in kinds or count < 0 or place + size > len(payload):
            raise Unreadable("columns that are not there")
        found[name] = np.frombuffer(payload, kind, count, place)
        place += _aligned(size)
    if found.keys() != kinds.keys():
        raise Unreadable("columns are missing")
    found["addresses"] = _pairs(found["addresses"])
    flows = Flows(**{name: found[name] for name in _FLOWS})
    fields: dict[str, Any] = msgspec.structs.asdict(header)
    del fields["columns"]
    chunk = Chunk(**fields, flows=flows, **{name: found[name] for name in _POSITIONS})
    _examine(chunk)
    return chunk


def _pairs(flat: Any) -> Any:
    if flat.size % 2:
        raise Unreadable("half an address")
    return flat.reshape(-1, 2)


def _examine(chunk: Chunk) -> None:
    """Hold every row against what it points into, so that nobody who reads the table has to."""
    flows, rows = chunk.flows, len(chunk.flows)
    if any(len(getattr(flows, name)) != rows for name in _FLOWS if name != "addresses"):
        raise Unreadable("columns of different lengths")
    if len({len(chunk.marks), len(chunk.mark_first), len(chunk.mark_last)}) != 1:
        raise Unreadable("marks of different lengths")
    if (
        not 0 <= chunk.begin <= chunk.end < 1 << 63
        or not chunk.cut <= chunk.packets == len(chunk.offsets)
        or not 0 <= chunk.first <= chunk.last < 1 << 64
        or min(chunk.cut, chunk.octets, chunk.link_type) < 0
    ):
        raise Unreadable("numbers that do not fit together")
    if rows:
        if max(int(flows.source.max()), int(flows.destination.max())) >= len(flows.addresses):
            raise Unreadable("a flow of an address that is not there")
        if int(flows.packets.sum(dtype=np.uint64)) != len(chunk.offsets):
            raise Unreadable("flows of more or fewer packets than there are")
        if int(np.bitwise_or.reduce(flows.family)) & ~_FAMILIES or int(flows.quirks.max()) > _QUIRKS:
            raise Unreadable("a flow of a kind that is not known")
        _examine_addresses(flows)
    elif len(chunk.offsets):
        raise Unreadable("packets of no flow")
    for places in (chunk.offsets, chunk.marks):
        if len(places) and int(places.max()) >= chunk.end - chunk.begin:
            raise Unreadable("a packet outside of what the chunk tells about")
    if (chunk.marks[1:] <= chunk.marks[:-1]).any():
        raise Unreadable("marks that do not ascend")


def _examine_addresses(flows: Flows) -> None:
    wide = (flows.addresses[:, 0] != 0) | (flows.addresses[:, 1] >> np.uint64(32) != 0)
    if wide.any() and ((wide[flows.source] | wide[flows.destination]) & (flows.family != IPV6)).any():
        raise Unreadable("an address that is too long for its flow")


def _aligned(length: int) -> int:
    return -(-length // _ALIGN) * _ALIGN


def _padded(data: bytes) -> bytes:
    return data.ljust(_aligned(len(data)), b"\0")
