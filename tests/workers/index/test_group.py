"""Flows: no packet is lost, counted twice or in the wrong row, however a segment is cut into chunks."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.workers.capture.savefile import FILE_HEADER
from agent.workers.index import group as grouping
from agent.workers.index.group import group, merge, unique_addresses
from agent.workers.index.headers import Packets
from agent.workers.index.model import Chunk, Flows, stretches
from tests.workers.index import lab
from tests.workers.index.tables import chunk, expected, flows, packets, same, whole
from tests.workers.index.truth import address_as_number, read

choices = st.lists(st.integers(0, 10_000) | st.integers(0, 9), min_size=1, max_size=60)
few = settings(max_examples=40)

_EDGES = {
    "source_port": [0, 1, 0xFFFF],
    "destination_port": [0, 1, 0xFFFF],
    "ethertype": [0, 0x0800, 0xFFFF],
    "protocol": [0, 6, 0xFF],
    "family": [0, 2, 4, 6],
    "quirks": [0, 1, 16, 31],
    "tags": [0, 0, 1, 8],
    "vlan": [0, 1, 0xFFF],
    "inner_vlan": [0, 1, 0xFFF],
    "source": [0, 1, 0xFFFF_FFFF],
    "destination": [0, 1, 0xFFFF_FFFF],
}


@st.composite
def columns(draw: st.DrawFn) -> Packets:
    """Packets whose columns are at the bounds of what they hold, and of which many differ in one column only."""
    tall = draw(st.booleans())
    edges: dict[str, list[int]] = dict(_EDGES)
    if tall:
        edges |= {name: [0, 1, 2**64 - 1] for name in ("source", "destination", "source_high", "destination_high")}
    base = {name: draw(st.sampled_from(values)) for name, values in edges.items()}
    rows = []
    for _ in range(draw(st.integers(1, 40))):
        name = draw(st.sampled_from(sorted(edges)))
        rows.append({**base, name: draw(st.sampled_from(edges[name]))})
        if not rows[-1]["tags"]:
            rows[-1] |= {"vlan": 0, "inner_vlan": 0}
    count = len(rows)
    found: dict[str, Any] = {
        "place": np.cumsum(np.arange(count) + 16),
        "time": np.array(draw(st.lists(st.integers(0, 2**63), min_size=count, max_size=count)), np.uint64),
        "wire": np.array(draw(st.lists(st.integers(1, 2**32 - 1), min_size=count, max_size=count)), np.uint32),
        "captured": np.zeros(count, np.int64),
        "tcp_flags": np.array([1 << at % 16 for at in range(count)], np.uint16),
        "source_high": None,
        "destination_high": None,
    }
    kinds = {"protocol": "u1", "family": "u1", "quirks": "u1", "tags": "u1"}
    for name in edges:
        kind = kinds.get(name, "u8" if name.startswith(("source", "destination")) and "port" not in name else "u2")
        found[name] = np.array([row[name] for row in rows], kind)
    return Packets(**found)


def as_chunk(table: Flows, offsets: Any) -> Chunk:
    none = np.zeros(0, np.uint64)
    return Chunk(0, 1 << 20, 1, 0, 0, len(offsets), 0, 0, table, offsets, none.astype(np.uint32), none, none)


def as_rows(found: Packets) -> list[dict[str, Any]]:
    rows = []
    for at in range(len(found.place)):
        row = {name: int(getattr(found, name)[at]) for name in found.__slots__ if getattr(found, name) is not None}
        for name in ("source", "destination"):
            row[name] |= row.get(f"{name}_high", 0) << 64
        rows.append(row)
    return rows


@few
@given(columns())
def test_packets_that_have_everything_in_common_are_one_row_and_no_others(found: Packets) -> None:
    made = flows(as_chunk(*group(found)))
    assert set(made) == expected(as_rows(found), 0)
    assert len(made) == len(set(made))


@few
@given(columns())
def test_addresses_are_there_once_and_ascend(found: Packets) -> None:
    table, _ = group(found)
    addresses = [(int(high), int(low)) for high, low in table.addresses]
    assert addresses == sorted(set(addresses))
    used = {*table.source.tolist(), *table.destination.tolist()}
    assert used == set(range(len(addresses)))


@pytest.mark.parametrize("keys", ["all alike", "weak"])
@few
@given(found=columns())
def test_packets_whose_hashes_collide_are_never_in_the_wrong_row(keys: str, found: Packets) -> None:
    """A flow may then be more than one row; together they are what it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grouping, "_KEYS", np.full(8, {"all alike": 0, "weak": 1 << 62}[keys], np.uint64))
        made = flows(as_chunk(*group(found)))
    places = [place for flow in made for place in flow[-1]]
    assert sorted(places) == found.place.tolist()
    by_place = {row["place"]: row for row in as_rows(found)}
    for flow in made:
        assert {flow} == expected([by_place[place] for place in flow[-1]], 0)


@few
@given(choices)
def test_every_packet_is_in_the_row_that_its_headers_say(choice: list[int]) -> None:
    sent = packets(choice)
    data = lab.savefile(lab.ETHERNET, sent)
    made = whole(data)
    assert set(flows(made)) == expected(list(map(address_as_number, read(lab.ETHERNET, sent))), FILE_HEADER)
    assert (made.packets, made.octets) == (len(sent), sum(packet.wire for packet in sent))
    assert made.cut == sum(len(packet.data) < packet.wire for packet in sent)
    assert (made.first, made.last) == (sent[0].time, sent[-1].time)
    assert int(made.flows.packets.sum()) == made.packets
    assert int(made.flows.octets.sum()) == made.octets


@few
@given(choices)
def test_offsets_are_those_of_all_packets_and_ascend_within_a_flow(choice: list[int]) -> None:
    made = whole(lab.savefile(lab.ETHERNET, packets(choice)))
    assert len(set(made.offsets.tolist())) == len(made.offsets) == made.packets
    for flow in flows(made):
        assert list(flow[-1]) == sorted(flow[-1])
    everything = made.offsets_of(np.ones(len(made.flows), np.bool_))
    assert everything.tolist() == sorted(made.offsets.tolist())
    for row in range(len(made.flows)):
        assert tuple(made.begin + made.offsets_of(np.array([row]))) == flows(made)[row][-1]


def cut(data: bytes, numbers: list[int]) -> list[Chunk]:
    """Chunks that follow each other, as long as these many packets, the rest in the last one."""
    made, begin = [], FILE_HEADER
    for number in [*numbers, 1 << 30]:
        end = begin
        while end < len(data) and number > 0:
            end += 16 + int.from_bytes(data[end + 8 : end + 12], "little")
            number -= 1
        if (found := chunk(data, begin, end)) is not None:
            made.append(found)
        begin = end
    return made


@few
@given(choices, st.lists(st.integers(1, 20), max_size=6))
def test_chunks_merged_are_the_chunk_of_the_whole(choice: list[int], cuts: list[int]) -> None:
    data = lab.savefile(lab.ETHERNET, packets(choice))
    parts = cut(data, cuts)
    (merged,) = merge(parts)
    assert same(merged, whole(data))
    assert len(set(merged.offsets.tolist())) == merged.packets
    places = [part.begin + int(mark) - merged.begin for part in parts for mark in part.marks]
    assert merged.marks.tolist() == places
    for times in ("mark_first", "mark_last"):
        assert getattr(merged, times).tolist() == [int(time) for part in parts for time in getattr(part, times)]


@few
@given(choices, st.lists(st.integers(1, 20), min_size=1, max_size=6))
def test_merging_again_changes_nothing(choice: list[int], cuts: list[int]) -> None:
    parts = cut(lab.savefile(lab.ETHERNET, packets(choice)), cuts)
    half = len(parts) // 2
    (again,) = merge([*merge(parts[:half]), *merge(parts[half:])])
    assert same(again, merge(parts)[0])


def test_only_chunks_that_follow_each_other_in_one_file_are_merged() -> None:
    data = lab.savefile(lab.ETHERNET, packets(range(60)))
    first, second, third, fourth = cut(data, [20, 10, 10])
    apart = merge([first, third, fourth])
    assert [(each.begin, each.end) for each in apart] == [(first.begin, first.end), (third.begin, fourth.end)]
    raw = chunk(lab.savefile(lab.RAW, packets(range(60))), second.begin, second.end)
    assert raw
    assert len(merge([first, raw, third])) == 3
    assert merge([]) == []
    assert merge([first]) == [first]


def test_merged_chunks_stay_within_what_can_be_grouped(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = cut(lab.savefile(lab.ETHERNET, packets(range(100))), [10] * 9)
    rows = [len(part.flows) for part in parts]
    monkeypatch.setattr(grouping, "MOST", sum(rows[:4]))
    merged = merge(parts)
    assert len(merged) > 1
    assert all(len(each.flows) <= sum(rows[:4]) for each in merged)
    for one, other in pairwise(merged):
        assert one.end == other.begin
    assert sum(each.packets for each in merged) == 100


def test_offsets_never_reach_beyond_what_their_column_holds() -> None:
    """A chunk begins anywhere in a file of any length; what is merged with it begins less than 4 GiB further."""
    first, second = cut(lab.savefile(lab.ETHERNET, packets(range(20))), [10])
    far = _moved(first, begin=5 << 32, end=(6 << 32) - 100)
    near = _moved(second, begin=far.end, end=far.end + second.end - second.begin)
    assert len(merge([far, near])) == 2
    near = _moved(near, begin=near.begin - 10_000, end=near.end - 10_000)
    (merged,) = merge([_moved(far, begin=far.begin, end=near.begin), near])
    offset = near.begin - far.begin
    assert sorted(merged.offsets.tolist())[-10:] == sorted((second.offsets.astype(np.int64) + offset).tolist())


def _moved(one: Chunk, begin: int, end: int) -> Chunk:
    fields = {name: getattr(one, name) for name in one.__slots__}
    return Chunk(**{**fields, "begin": begin, "end": end})


def test_chunks_without_packets_merge_with_others() -> None:
    data = lab.savefile(lab.ETHERNET, packets(range(20)))
    full = whole(data)
    none = np.zeros(0, np.uint32)
    table = Flows(**{name: getattr(full.flows, name)[:0] for name in full.flows.__slots__})
    times = none.astype(np.uint64)
    empty = Chunk(full.end, full.end + 10, 1, 0, 0, 0, 0, 0, table, none, none, times, times)
    (merged,) = merge([full, empty, _moved(empty, empty.end, empty.end)])
    assert (merged.first, merged.last, merged.end) == (full.first, full.last, full.end + 10)
    assert sorted(flows(merged)) == sorted(flows(full))
    (nothing,) = merge([empty, _moved(empty, empty.end, empty.end + 1)])
    assert (nothing.packets, nothing.first, nothing.last, len(nothing.flows)) == (0, 0, 0, 0)


@given(st.lists(st.integers(0, 5), max_size=20), st.data())
def test_stretches_are_the_positions_within_each(lengths: list[int], data: st.DataObject) -> None:
    begins = [sum(lengths[:at]) for at in range(len(lengths))]
    wanted = data.draw(st.lists(st.sampled_from(range(len(lengths))), max_size=10)) if lengths else []
    found = stretches(np.array(lengths, np.uint32), np.array(wanted, np.int64))
    assert found.tolist() == [begins[row] + at for row in wanted for at in range(lengths[row])]
    mask = np.array([row in wanted for row in range(len(lengths))], np.bool_)
    assert stretches(np.array(lengths, np.uint32), mask).tolist() == sorted(set(found.tolist()))


addresses = st.lists(st.integers(0, 2**128 - 1) | st.integers(0, 3) | st.integers(0, 3).map(lambda n: n << 64))


@given(addresses.filter(bool))
def test_distinct_addresses_ascend_and_are_found_by_their_rows(given_: list[int]) -> None:
    high = np.array([address >> 64 for address in given_], np.uint64)
    low = np.array([address & 0xFFFF_FFFF_FFFF_FFFF for address in given_], np.uint64)
    table, rows = unique_addresses(high, low)
    distinct = [int(upper) << 64 | int(lower) for upper, lower in table]
    assert distinct == sorted(set(given_))
    assert [distinct[row] for row in rows] == given_
