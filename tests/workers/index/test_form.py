"""An index file gives back what was put in, and of whatever else it says nothing that is not within bounds."""

from __future__ import annotations

import random
import struct
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import StorageFailure
from agent.workers.index import form
from agent.workers.index.form import MAGIC, VERSION, NewerVersion, Unreadable, decode, encode
from agent.workers.index.group import merge
from agent.workers.index.model import ARP, ENCAPSULATED, IPV4, IPV6, Chunk, Flows
from tests.workers.index import lab
from tests.workers.index.tables import flows, packets, same, whole

LEAD = struct.Struct("<8sIIQ")
few = settings(max_examples=40)


def example(count: int = 40) -> Chunk:
    return whole(lab.savefile(lab.ETHERNET, packets(range(0, 13 * count, 13))))


def header_of(data: bytes) -> dict[str, Any]:
    length = LEAD.unpack_from(data)[2]
    header: dict[str, Any] = msgspec.json.decode(data[LEAD.size : LEAD.size + length])
    return header


def with_header(data: bytes, **changes: Any) -> bytes:
    """The same chunk with another header."""
    _, version, length, payload = LEAD.unpack_from(data)
    columns = data[-(-(LEAD.size + length) // 8) * 8 :]
    text = msgspec.json.encode({**header_of(data), **changes})
    lead = LEAD.pack(MAGIC, version, len(text), payload)
    return (lead + text).ljust(-(-(len(lead) + len(text)) // 8) * 8, b"\0") + columns


@few
@given(st.lists(st.lists(st.integers(0, 10_000), min_size=1, max_size=40), min_size=1, max_size=3))
def test_chunks_come_back_as_they_were(choices: list[list[int]]) -> None:
    chunks = [whole(lab.savefile(lab.ETHERNET, packets(choice))) for choice in choices]
    back = list(decode(b"".join(map(encode, chunks))))
    assert len(back) == len(chunks)
    for one, other in zip(chunks, back, strict=True):
        assert same(one, other)
        assert flows(one) == flows(other)
        for name in ("marks", "mark_first", "mark_last", "offsets"):
            assert getattr(one, name).tolist() == getattr(other, name).tolist()


def test_the_lengths_that_are_told_are_those_that_are_there() -> None:
    data = encode(example())
    magic, version, length, payload = LEAD.unpack_from(data)
    assert (magic, version) == (MAGIC, VERSION)
    assert len(data) == -(-(LEAD.size + length) // 8) * 8 + payload
    assert len(data) % 8 == 0


def test_what_was_read_can_be_merged_and_written_again() -> None:
    first = example()
    data = encode(first) + encode(replace(first, begin=first.end, end=2 * first.end - first.begin))
    (merged,) = merge(list(decode(data)))
    assert same(merged, next(decode(encode(merged))))
    assert merged.packets == 2 * first.packets


def test_an_empty_index_says_nothing() -> None:
    assert list(decode(b"")) == []


def test_a_chunk_without_packets_is_one() -> None:
    none: Any = np.zeros(0, np.uint64)
    table = Flows(**{name: none.reshape(-1, 2) if name == "addresses" else none for name in Flows.__slots__})
    data = encode(Chunk(24, 24, 1, 0, 0, 0, 0, 0, table, none, none, none, none))
    assert [(each.begin, each.packets, len(each.flows)) for each in decode(data)] == [(24, 0, 0)]


def test_an_unfinished_chunk_at_the_end_is_left_out() -> None:
    data = encode(example(5))
    for length in range(len(data)):
        assert len(list(decode(data + data[:length]))) == 1


def test_a_newer_version_is_told_apart() -> None:
    data = encode(example(3))
    with pytest.raises(NewerVersion, match=f"an index of version 7; this program knows up to {VERSION}"):
        list(decode(LEAD.pack(MAGIC, 7, *LEAD.unpack_from(data)[2:]) + data[LEAD.size :]))
    with pytest.raises(NewerVersion):  # of its header nothing is known
        list(decode(LEAD.pack(MAGIC, 2, 1 << 31, 0) + data[LEAD.size :]))


@pytest.mark.parametrize(
    "lead",
    [
        (b"agentidy", VERSION, 10, 0),
        (MAGIC, 0, 10, 0),
        (MAGIC, VERSION, 65537, 0),
    ],
)
def test_what_is_no_index_is_unreadable(lead: tuple[bytes, int, int, int]) -> None:
    with pytest.raises(Unreadable):
        list(decode(LEAD.pack(*lead) + bytes(200_000)))


def changed(column: str, change: Callable[[Any], Any]) -> bytes:
    """An index in which one column is another."""
    chunk = example()
    if column in Flows.__slots__:
        column_now = change(getattr(chunk.flows, column).copy())
        return encode(replace(chunk, flows=replace(chunk.flows, **{column: column_now})))
    return encode(replace(chunk, **{column: change(getattr(chunk, column).copy())}))


def put(at: int, value: int) -> Callable[[Any], Any]:
    def change(column: Any) -> Any:
        column[at] = value
        return column

    return change


def no_longer_ipv6(family: int) -> Callable[[Any], Any]:
    return lambda column: np.where(column == IPV6, family, column)


LIES: dict[str, Callable[[], bytes]] = {
    "an address that is not there": lambda: changed("source", put(3, 10_000)),
    "the one behind the last": lambda: changed("destination", put(3, len(example().flows.addresses))),
    "a packet behind the end": lambda: changed("offsets", put(0, example().end - example().begin)),
    "a mark behind the end": lambda: changed("marks", put(0, 1 << 31)),
    "marks that do not ascend": lambda: changed("marks", lambda marks: np.append(marks, marks)),
    "more packets than there are": lambda: changed("packets", put(0, 1 << 31)),
    "a family of no name": lambda: changed("family", put(0, 5)),
    "a quirk of no name": lambda: changed("quirks", put(0, 2 * ENCAPSULATED)),
    "an address of IPv6 in a flow of IPv4": lambda: changed(
        "family", lambda column: np.where(column == IPV6, IPV4, column)
    ),
    "an address of IPv6 in ARP": lambda: changed("family", no_longer_ipv6(ARP)),
    "a column shorter than the others": lambda: changed("last", lambda column: column[:-1]),
    "no rows": lambda: changed("family", lambda column: column[:0]),
    "times of marks that are none": lambda: changed("mark_first", lambda column: column[:0]),
    "an end before the begin": lambda: with_header(encode(example()), end=23),
    "an end beyond any file": lambda: with_header(encode(example()), end=1 << 63),
    "a negative begin": lambda: with_header(encode(example()), begin=-1),
    "negative octets": lambda: with_header(encode(example()), octets=-1),
    "a negative link type": lambda: with_header(encode(example()), link_type=-1),
    "more cut than there are": lambda: with_header(encode(example()), cut=1000),
    "a last time before the first": lambda: with_header(encode(example()), last=0),
    "other packets than there are": lambda: with_header(encode(example()), packets=3),
    "a number that is text": lambda: with_header(encode(example()), packets="40"),
    "no columns": lambda: with_header(encode(example()), columns=[]),
    "a column too many": lambda: with_header(
        encode(example()), columns=[*header_of(encode(example()))["columns"], ["x", 0]]
    ),
    "half an address": lambda: with_header(encode(example()), columns=_counted("addresses", 3)),
    "a negative count": lambda: with_header(encode(example()), columns=_counted("first", -1)),
    "a huge count": lambda: with_header(encode(example()), columns=_counted("first", 1 << 62)),
    "a count beyond counting": lambda: with_header(encode(example()), columns=_counted("first", 1 << 100)),
    "text that is not": lambda: _with_text(b'{"begin":24,"columns":[["\xff\xfe",3]]}'),
    "text within text within text": lambda: _with_text(b'{"x":' + b"[" * 60_000),
    "no text": lambda: _with_text(b""),
}


def _counted(name: str, count: int) -> list[list[Any]]:
    return [[each, count if each == name else length] for each, length in header_of(encode(example()))["columns"]]


def _with_text(text: bytes) -> bytes:
    return LEAD.pack(MAGIC, VERSION, len(text), 0) + text.ljust(len(text) + 8, b"\0")


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_makes_an_index_unreadable(lie: str) -> None:
    with pytest.raises(Unreadable) as caught:
        list(decode(LIES[lie]()))
    assert isinstance(caught.value, StorageFailure)
    assert str(caught.value).isprintable()


def test_bytes_at_random_are_unreadable_or_point_within_bounds() -> None:
    """Bits turned over, bytes gone, bytes from elsewhere: nothing else is raised, and no memory taken for it."""
    rng = random.Random(8)
    good = encode(example(30)) + encode(example(8))
    outcomes = {"readable": 0, "unreadable": 0}
    tracemalloc.start()
    for _ in range(600):
        data = bytearray(good)
        for _ in range(rng.choice([1, 1, 3])):
            place = rng.randrange(len(data))
            match rng.randrange(4):
                case 0:
                    data[place] ^= 1 << rng.randrange(8)
                case 1:
                    data[place : place + 8] = rng.randbytes(8)
                case 2:
                    del data[place : place + rng.choice([1, 4, 8, 100])]
                case _:
                    del data[max(place, 100) :]
        try:
            for chunk in decode(bytes(data)):
                assert_within_bounds(chunk)
            outcomes["readable"] += 1
        except Unreadable:
            outcomes["unreadable"] += 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000
    assert min(outcomes.values()) > 100, outcomes


def assert_within_bounds(chunk: Chunk) -> None:
    assert 0 <= chunk.begin <= chunk.end < 1 << 63
    places = chunk.offsets_of(np.ones(len(chunk.flows), np.bool_))
    assert len(places) == chunk.packets
    assert not len(places) or 0 <= int(places[-1]) < chunk.end - chunk.begin
    for row in range(len(chunk.flows)):
        for address in (chunk.flows.source[row], chunk.flows.destination[row]):
            high, low = chunk.flows.addresses[address]
            assert chunk.flows.family[row] == IPV6 or (not high and low < 1 << 32)
    (again,) = merge([chunk])
    assert encode(again)


def test_a_payload_longer_than_memory_is_an_unfinished_chunk() -> None:
    data = encode(example())
    lead = LEAD.pack(MAGIC, VERSION, LEAD.unpack_from(data)[2], (1 << 64) - 1)
    assert list(decode(lead + data[LEAD.size :])) == []
    assert form.VERSION == 1
