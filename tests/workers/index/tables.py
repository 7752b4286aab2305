"""What the tests of tables share: chunks of packets, and what is in a chunk without regard to the order of its rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from agent.workers.capture.savefile import FILE_HEADER
from agent.workers.index import build
from agent.workers.index.build import Kind
from agent.workers.index.headers import MARGIN
from agent.workers.index.model import Chunk, stretches
from tests.workers.index import lab
from tests.workers.index.kinds import KINDS
from tests.workers.index.lab import Packet

_SAME = ("source_port", "destination_port", "ethertype", "vlan", "inner_vlan", "family", "protocol", "tags", "quirks")

FRAMES = [kind.packet.data for kind in KINDS if kind.link == lab.ETHERNET]
FRAMES += [frame[:cut] for frame in FRAMES[:80:5] for cut in (3, 20, 30, 47)]
"""Ethernet frames of every kind, some of them cut."""


def packets(choice: Iterable[int], start: int = lab.BEGIN) -> list[Packet]:
    """Frames one after the other, a second or so between them."""
    return [
        Packet(start + at * 999_999_937, FRAMES[number % len(FRAMES)], len(FRAMES[number % len(FRAMES)]) + at % 3)
        for at, number in enumerate(choice)
    ]


def kind_of(data: bytes) -> Kind:
    kind = build.kind_of(data)
    assert kind
    return kind


def whole(data: bytes) -> Chunk:
    """The chunk of a whole file."""
    made = chunk(data, FILE_HEADER, len(data))
    assert made
    return made


def chunk(data: bytes, begin: int, end: int) -> Chunk | None:
    return build.chunk(data[begin:end] + b"\x5a" * MARGIN, end - begin, begin, kind_of(data))


Flow = tuple[Any, ...]


def flows(chunk: Chunk) -> list[Flow]:
    """Every row in full: what its packets have in common, with addresses as numbers; sums; where they are."""
    table, found = chunk.flows, []
    addresses = [int(high) << 64 | int(low) for high, low in table.addresses]
    for row in range(len(table)):
        offsets = chunk.offsets[stretches(table.packets, [row])]  # type: ignore[arg-type]  # as numpy takes it
        found.append(
            (
                (addresses[table.source[row]], addresses[table.destination[row]]),
                tuple(int(getattr(table, name)[row]) for name in _SAME),
                *(int(getattr(table, name)[row]) for name in ("tcp_flags", "first", "last", "packets", "octets")),
                tuple(chunk.begin + int(offset) for offset in offsets),
            )
        )
    return found


def expected(rows: Sequence[dict[str, Any]], begin: int) -> set[Flow]:
    """The same of packets decoded one by one; ``begin`` is where the place 0 of their records is."""
    found: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        key = (row["source"], row["destination"]), tuple(row[name] for name in _SAME)
        found.setdefault(key, []).append(row)
    return {(*key, *_sums(mine), tuple(begin + row["place"] for row in mine)) for key, mine in found.items()}


def _sums(rows: Sequence[dict[str, Any]]) -> tuple[int, ...]:
    flags, times = 0, [row["time"] for row in rows]
    for row in rows:
        flags |= row["tcp_flags"]
    return flags, min(times), max(times), len(rows), sum(row["wire"] for row in rows)


def same(one: Chunk, other: Chunk) -> bool:
    """Whether two chunks tell the same of the same bytes."""
    numbers = ("begin", "end", "link_type", "first", "last", "packets", "octets", "cut")
    return sorted(flows(one)) == sorted(flows(other)) and all(
        getattr(one, name) == getattr(other, name) for name in numbers
    )
