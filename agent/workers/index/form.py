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
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from agent.workers.index.head import (
    LEAD,
    MAGIC,
    VERSION,
    Header,
    NewerVersion,
    Unreadable,
    aligned,
    header_of,
    heads,
    lead_of,
)
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

__all__ = ["MAGIC", "VERSION", "Header", "NewerVersion", "Unreadable", "decode", "encode", "heads"]

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


def encode(chunk: Chunk) -> bytes:
    """The bytes of one chunk."""
    arrays = [(name, getattr(chunk.flows, name), kind) for name, kind in _FLOWS.items()]
    arrays += [(name, getattr(chunk, name), kind) for name, kind in _POSITIONS.items()]
    columns = [(name, int(array.size)) for name, array, _ in arrays]
    fields = (field.name for field in dataclasses.fields(chunk) if field.name in Header.__struct_fields__)
    header = msgspec.json.encode(Header(**{name: int(getattr(chunk, name)) for name in fields}, columns=columns))
    parts = [_padded(np.ascontiguousarray(array, kind).tobytes()) for _, array, kind in arrays]
    lead = LEAD.pack(MAGIC, VERSION, len(header), sum(map(len, parts)))
    return b"".join([_padded(lead + header), *parts])


def decode(data: bytes | memoryview) -> Iterator[Chunk]:
    """The chunks of an index; its arrays are views of ``data``. An unfinished chunk at the end is left out.

    Raises ``NewerVersion`` and ``Unreadable``.
    """
    view = memoryview(data)
    place = 0
    while len(view) - place >= LEAD.size:
        length, columns, payload = lead_of(view, place)
        columns += place
        end = columns + payload
        if end > len(view):
            return
        start = place + LEAD.size
        yield _chunk(bytes(view[start : start + length]), view[columns:end])
        place = end


def _chunk(text: bytes, payload: memoryview) -> Chunk:
    header = header_of(text)
    kinds = {**_FLOWS, **_POSITIONS}
    found: dict[str, Any] = {}
    place = 0
    for name, count in header.columns:
        kind = np.dtype(kinds.get(name, "V0"))
        size = count * kind.itemsize
        if name not in kinds or count < 0 or place + size > len(payload):
            raise Unreadable("columns that are not there")
        found[name] = np.frombuffer(payload, kind, count, place)
        place += aligned(size)
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


def _padded(data: bytes) -> bytes:
    return data.ljust(aligned(len(data)), b"\0")
