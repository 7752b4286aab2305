"""When a flow is over: laws that hold for every division of the same rows into batches."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from agent.workers.flows.ended import (
    ACTIVE_TIMEOUT,
    END_OF_FLOW,
    FORCED_END,
    IDLE_TIMEOUT,
    LACK_OF_RESOURCES,
    Ending,
    segment,
)
from agent.workers.flows.table import Table

IDLE, ACTIVE = 60, 1800
TCP_KEY = 6 << 24
FIN = 1

EVENTS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5000)), min_size=1, max_size=50)
"""Packets: which flow, when."""


def rows(packets: list[tuple[int, int]], flags: int = 0) -> Table:
    """One row a packet."""
    whose = np.array([which for which, _ in packets], np.uint64)
    times = np.array([when for _, when in packets], np.uint64)
    key = np.zeros((len(packets), 6), np.uint64)
    key[:, 0] = whose
    key[:, 5] = TCP_KEY
    ones = np.ones(len(packets), np.uint64)
    return Table(key, np.full(len(packets), flags, np.uint16), times, times, ones, ones * np.uint64(60))


@given(EVENTS, st.lists(st.integers(0, 5000), max_size=6), st.integers(1, 4))
def test_every_packet_is_told_of_once_and_no_record_is_silent_or_goes_on_for_too_long(
    packets: list[tuple[int, int]], cuts: list[int], most: int
) -> None:
    packets = sorted(packets, key=lambda packet: packet[1])
    bounds = [*sorted(cuts), 5001]
    ending = Ending(IDLE, ACTIVE, most)
    told, place = [], 0
    for bound in bounds:
        batch = [packet for packet in packets[place:] if packet[1] < bound]
        place += len(batch)
        told.append(ending.add(rows(batch), bound))
    told.append(ending.finish(5001))
    assert sum(int(records.table.packets.sum()) for records in told) == len(packets)
    for which in {which for which, _ in packets}:
        times = [when for whose, when in packets if whose == which]
        spans = sorted(
            (int(first), int(last), int(reason))
            for records in told
            for key, first, last, reason in zip(
                records.table.key[:, 0], records.table.first, records.table.last, records.reasons, strict=True
            )
            if key == which
        )
        for first, last, _ in spans:
            inside = [when for when in times if first <= when <= last]
            assert all(later - earlier <= IDLE for earlier, later in pairwise(inside))
        for (_, last, reason), (begin, _, _) in pairwise(spans):
            assert begin > last + IDLE or reason in (ACTIVE_TIMEOUT, LACK_OF_RESOURCES)


def test_a_flow_over_several_batches_is_one_record_and_says_why_it_is_over() -> None:
    ending = Ending(IDLE, ACTIVE)
    assert not len(ending.add(rows([(0, 10), (1, 20)]), 50).table)
    assert not len(ending.add(rows([(0, 60)]), 70).table)
    over = ending.add(rows([(0, 110)]), 120)
    assert over.table.last.tolist() == [20] and over.reasons.tolist() == [IDLE_TIMEOUT]
    last = ending.finish(150)
    assert last.table.packets.tolist() == [3] and last.reasons.tolist() == [FORCED_END]


def test_one_that_was_closed_ends_as_such() -> None:
    ending = Ending(IDLE, ACTIVE)
    ending.add(rows([(0, 10)], FIN), 20)
    assert ending.finish(5000).reasons.tolist() == [END_OF_FLOW]


def test_one_that_goes_on_is_told_of_in_parts() -> None:
    ending = Ending(IDLE, ACTIVE)
    reasons = []
    for when in range(0, 4000, 50):
        reasons += ending.add(rows([(0, when)]), when + 50).reasons.tolist()
    assert reasons == [ACTIVE_TIMEOUT, ACTIVE_TIMEOUT]


def test_a_segment_tells_of_all_its_flows_at_once() -> None:
    told = segment(rows([(0, 10), (1, 100), (2, 30)]), 110, IDLE)
    assert told.table.last.tolist() == [10, 30, 100]
    assert told.reasons.tolist() == [IDLE_TIMEOUT, IDLE_TIMEOUT, ACTIVE_TIMEOUT]
