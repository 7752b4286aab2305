"""Rows joined into flows: held against a dictionary."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.workers.flows import table
from agent.workers.flows.table import COLUMNS, Table, empty, groups, join, runs, together

Row = tuple[tuple[int, ...], int, int, int, int, int]

_KEYS = st.tuples(*[st.sampled_from([0, 1, 1 << 48, (1 << 64) - 1])] * 2, *[st.just(0)] * (COLUMNS - 2))
ROWS = st.lists(
    st.tuples(
        _KEYS,
        st.integers(0, 0xFFFF),
        st.integers(0, 500),
        st.integers(0, 100),
        st.integers(1, 5),
        st.integers(60, 1500),
    ),
    max_size=60,
)
"""Key, flags, first, how long it lasted, packets, octets."""


def made(rows: list[Row]) -> Table:
    if not rows:
        return empty()
    keys, flags, first, lasted, packets, octets = zip(*rows, strict=True)
    begins = np.array(first, np.uint64)
    return Table(
        np.array(keys, np.uint64),
        np.array(flags, np.uint16),
        begins,
        begins + np.array(lasted, np.uint64),
        np.array(packets, np.uint64),
        np.array(octets, np.uint64),
    )


def told(flows: Table) -> list[Row]:
    columns = (flows.tcp_flags, flows.first, flows.last, flows.packets, flows.octets)
    return sorted(
        (tuple(key), *values)
        for key, *values in zip(flows.key.tolist(), *(column.tolist() for column in columns), strict=True)
    )


def summed(rows: list[Row]) -> Row:
    flags = 0
    for row in rows:
        flags |= row[1]
    first, last = min(row[2] for row in rows), max(row[2] + row[3] for row in rows)
    return rows[0][0], flags, first, last, sum(row[4] for row in rows), sum(row[5] for row in rows)


@given(ROWS)
def test_rows_of_one_flow_become_one_and_nothing_is_lost(rows: list[Row]) -> None:
    expected = defaultdict(list)
    for row in rows:
        expected[row[0]].append(row)
    assert told(join(made(rows))) == sorted(summed(same) for same in expected.values())


@given(ROWS, st.integers(0, 200))
def test_a_flow_that_was_silent_for_longer_than_the_gap_is_another_from_then_on(rows: list[Row], gap: int) -> None:
    expected: dict[tuple[int, ...], list[list[Row]]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row[2]):
        stretches = expected[row[0]]
        if stretches and row[2] <= max(before[2] + before[3] for before in stretches[-1]) + gap:
            stretches[-1].append(row)
        else:
            stretches.append([row])
    assert told(runs(made(rows), gap)) == sorted(summed(same) for found in expected.values() for same in found)


def test_times_that_are_nonsense_are_joined_all_the_same() -> None:
    rows: list[Row] = [((number % 3, 0, 0, 0, 0, 0), 0, (1 << 62) * (number % 3), 5, 1, 60) for number in range(30)]
    assert int(runs(made(rows), 60).packets.sum()) == 30


@given(ROWS)
def test_keys_of_one_hash_are_told_apart(rows: list[Row]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "_hashes", lambda key: np.zeros(len(key), np.uint64))
        _, starts = groups(made(rows).key)
    assert len(starts) == len({row[0] for row in rows})


def test_parts_of_a_key_come_out_as_they_went_in() -> None:
    from agent.workers.index.model import Flows

    one = Flows(
        addresses=np.array([[0, 1], [2**64 - 1, 2**63]], np.uint64),
        source=np.array([1], np.uint32),
        destination=np.array([0], np.uint32),
        source_port=np.array([65535], np.uint16),
        destination_port=np.array([1], np.uint16),
        ethertype=np.array([0x86DD], np.uint16),
        vlan=np.array([4095], np.uint16),
        inner_vlan=np.array([4094], np.uint16),
        tcp_flags=np.array([0x8012], np.uint16),
        family=np.array([6], np.uint8),
        protocol=np.array([255], np.uint8),
        tags=np.array([2], np.uint8),
        quirks=np.array([0x1F], np.uint8),
        first=np.array([1], np.uint64),
        last=np.array([2], np.uint64),
        packets=np.array([3], np.uint32),
        octets=np.array([4], np.uint64),
    )
    rows = table.of(one, 65535)
    assert rows.source.tolist() == [[2**64 - 1, 2**63]]
    assert rows.destination.tolist() == [[0, 1]]
    assert [int(part[0]) for part in (rows.source_port, rows.destination_port, rows.ethertype, rows.vlan)] == [
        *(65535, 1, 0x86DD, 4095)
    ]
    assert [int(part[0]) for part in (rows.inner_vlan, rows.tags, rows.family, rows.protocol)] == [4094, 2, 6, 255]
    assert [int(part[0]) for part in (rows.quirks, rows.origin)] == [3, 65535]  # ODD and LATER_FRAGMENT


def test_a_million_rows_are_joined_in_a_second() -> None:
    import time

    dice = np.random.default_rng(1)
    keys = dice.integers(0, 1 << 40, (200_000, COLUMNS), np.uint64)
    count = 1_000_000
    ones = np.ones(count, np.uint64)
    rows = Table(keys[dice.integers(0, len(keys), count)], ones.astype(np.uint16), ones, ones, ones, ones)
    began = time.process_time()
    flows = join(rows)
    assert time.process_time() - began < 1
    assert int(flows.packets.sum()) == count


def test_nothing_joined_with_nothing_is_nothing() -> None:
    assert len(join(together([]))) == len(runs(empty(), 1)) == 0
