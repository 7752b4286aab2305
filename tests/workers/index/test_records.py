"""Whatever the bytes are, the records found at once are those of a walk one by one."""

from __future__ import annotations

import random
import struct
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.workers.capture.savefile import LONGEST_CAPTURE
from agent.workers.index import records
from agent.workers.index.records import Order, find
from tests.workers.index import lab

NOW = 1_790_000_000
LANE, FEW = records._LANE, records._FEW

ORDERS: tuple[Order, ...] = ("<", ">")
orders = st.sampled_from(ORDERS)


def record(order: str, seconds: int, data: bytes, *, fraction: int = 7, original: int | None = None) -> bytes:
    original = len(data) if original is None else original
    return struct.pack(order + "IIII", seconds, fraction, len(data), original) + data


def agrees(data: bytes, order: Order) -> int:
    """Hold what is found against the walk; returns how many records there are."""
    places, walk = lab.walked(data, order)
    found = find(data + b"\xff" * 64, len(data), order)
    assert found.places.tolist() == places
    assert (found.end, found.damaged) == (walk.length, walk.damaged)
    return len(places)


@st.composite
def payloads(draw: st.DrawFn, order: str, seconds: int) -> bytes:
    """Of any kind: also what looks like records of the same time, with lengths that are theirs or lead astray."""
    header = struct.Struct(order + "IIII")
    match draw(st.sampled_from(["bytes", "zeros", "times", "records", "nested"])):
        case "bytes":
            return draw(st.binary(max_size=80))
        case "zeros":
            return bytes(draw(st.integers(0, 200)))
        case "times":
            return struct.pack(order + "I", seconds) * draw(st.integers(0, 40))
        case "records":
            lengths = draw(st.lists(st.integers(0, 90), max_size=5))
            return b"".join(header.pack(seconds, 1, length, max(1, length)) + bytes(length) for length in lengths)
        case _:
            lengths = draw(st.lists(st.integers(0, 400), max_size=8))
            return b"".join(header.pack(seconds, 1, length, length or 1) for length in lengths)


@st.composite
def stretches(draw: st.DrawFn) -> tuple[bytes, Order]:
    order = draw(orders)
    seconds = draw(st.sampled_from([NOW, 0, 1, 0xFFFF_FFFF, 0x0001_FFFE]))
    pool = [
        record(order, min(seconds + draw(st.integers(0, 3)), 0xFFFF_FFFF), data, original=len(data) + more or 1)
        for data in draw(st.lists(payloads(order, seconds), min_size=1, max_size=6))
        for more in draw(st.lists(st.integers(0, 1), min_size=1, max_size=2))
    ]
    return b"".join(draw(st.lists(st.sampled_from(pool), max_size=60))), order


@pytest.fixture(autouse=True, scope="module")
def short_lanes() -> Any:
    """So short that a few records fill many, and no lane is too few, for most tests here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "_LANE", 48)
        patch.setattr(records, "_FEW", 1)
        yield


@pytest.fixture
def real_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "_LANE", LANE)
    monkeypatch.setattr(records, "_FEW", FEW)


@given(stretches())
def test_records_are_those_of_a_walk_one_by_one(made: tuple[bytes, Order]) -> None:
    agrees(*made)


@given(stretches(), st.integers(0, 5000))
def test_so_they_are_when_the_end_is_cut_off(made: tuple[bytes, Order], cut: int) -> None:
    data, order = made
    agrees(data[: cut % (len(data) + 1)], order)


@given(stretches(), st.lists(st.tuples(st.integers(0, 10_000), st.binary(min_size=1, max_size=8)), max_size=4))
def test_so_they_are_when_bytes_are_others(made: tuple[bytes, Order], damage: list[tuple[int, bytes]]) -> None:
    data, order = bytearray(made[0]), made[1]
    for place, others in damage:
        begin = place % (len(data) + 1)
        data[begin : begin + len(others)] = others
    agrees(bytes(data), order)


@given(st.binary(max_size=300), orders)
def test_so_they_are_in_what_are_no_records(data: bytes, order: Order) -> None:
    agrees(data, order)


@given(stretches(), st.integers(1, 60), st.integers(1, 40))
def test_how_many_lanes_there_are_makes_no_difference(made: tuple[bytes, Order], lane: int, few: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "_LANE", lane * 16)
        patch.setattr(records, "_FEW", few)
        agrees(*made)


@pytest.mark.parametrize("order", ORDERS)
def test_only_the_given_length_is_looked_at(order: Order) -> None:
    data = b"".join(record(order, NOW, bytes(20)) for _ in range(50))
    for length in range(0, len(data), 7):
        found = find(data, length, order)
        assert found.places.tolist() == lab.walked(data[:length], order)[0]
        assert found.end == length // 36 * 36


def test_what_makes_no_sense_ends_it() -> None:
    whole = record("<", NOW, b"abc") * 30
    rest = record("<", NOW, b"def") * 30
    for lengths in [(4, 3), (0, 0), (LONGEST_CAPTURE + 1, LONGEST_CAPTURE + 1), (0xFFFF_FFFF, 0xFFFF_FFFF)]:
        found = find(whole + struct.pack("<IIII", NOW, 0, *lengths) + rest, len(whole) + 16 + len(rest), "<")
        assert (len(found.places), found.end, found.damaged) == (30, len(whole), True)


def test_the_longest_record_that_libpcap_writes_is_one() -> None:
    data = record("<", NOW, bytes(LONGEST_CAPTURE)) + record("<", NOW, b"abc")
    assert agrees(data, "<") == 2
    assert agrees(data[:LONGEST_CAPTURE], "<") == 0


def traffic(rng: random.Random, size: int, payload: Callable[[int], bytes]) -> bytes:
    parts, total, instant = [], 0, 0
    while total < size:
        length = rng.choice([60, 60, 60, 124, 590, 1514])
        instant += rng.randrange(200_000)
        parts.append(
            record("<", NOW + instant // 10**9, payload(length), fraction=instant % 10**9, original=length + 4)
        )
        total += len(parts[-1])
    return b"".join(parts)


HOSTILE: dict[str, Callable[[random.Random, int], bytes]] = {
    "payloads that are the time": lambda rng, length: (struct.pack("<I", NOW) * 400)[:length],
    "payloads that are records": lambda rng, length: (struct.pack("<IIII", NOW, 1, 0, 1) * 100)[:length],
    "payloads that are long records": lambda rng, length: (struct.pack("<IIII", NOW, 1, 1600, 1600) * 100)[:length],
    "payloads that begin a chain": lambda rng, length: (record("<", NOW, bytes(40)) * 40)[rng.randrange(56) :][:length],
    "half of the time": lambda rng, length: (struct.pack("<I", NOW)[2:3] * 1514)[:length],
    "no bytes at all": lambda rng, length: b"",
    "zeros": lambda rng, length: bytes(length),
    "noise": lambda rng, length: rng.randbytes(length),
}


@pytest.mark.usefixtures("real_lanes")
@pytest.mark.parametrize("kind", HOSTILE)
def test_long_stretches_take_a_few_steps_a_record_at_most(kind: str) -> None:
    """Steps are calls: a clock would tell about the machine."""
    rng = random.Random(4)
    data = traffic(rng, 3_000_000, lambda length: HOSTILE[kind](rng, length))
    count = agrees(data, "<")
    steps = calls(lambda: find(data, len(data), "<"))
    assert steps < 4 * count + 20_000, (steps, count)
    if kind in ("zeros", "noise"):
        assert steps < count, (steps, count)


@pytest.mark.usefixtures("real_lanes")
def test_records_of_another_time_than_the_first_take_no_longer() -> None:
    """No lane is found there, and of those of no bytes there are more than of any."""
    data = record("<", 1, b"first") + struct.pack("<IIII", NOW, 0x07070707, 0, 0x07070707) * 100_000
    assert agrees(data, "<") == 100_001
    assert calls(lambda: find(data, len(data), "<")) < 4 * 100_000 + 20_000


def calls(function: Callable[[], object]) -> int:
    """How many functions it calls, those of numpy and of Python itself included."""
    count = 0

    def seen(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(seen)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count
