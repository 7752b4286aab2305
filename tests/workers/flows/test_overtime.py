"""Rows spread over time: every sum is exact, and each row lies where it was."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.workers.flows.overtime import spread

BEGIN = 1_795_183_200 * 1_000_000_000
WIDTH = 20_000_000_000

rows = st.lists(
    st.tuples(
        st.integers(-2 * WIDTH, 12 * WIDTH), st.integers(0, 12 * WIDTH), st.integers(0, 1 << 50) | st.integers(0, 40)
    ),
    max_size=30,
)


def columns(found: list[tuple[int, int, int]]) -> tuple[list[int], list[int], list[int]]:
    return (
        [BEGIN + at for at, _, _ in found],
        [BEGIN + at + length for at, length, _ in found],
        [n for _, _, n in found],
    )


@given(rows, st.integers(1, 200))
def test_nothing_is_lost_and_nothing_is_negative(found: list[tuple[int, int, int]], buckets: int) -> None:
    first, last, amounts = columns(found)
    spread_out = spread(first, last, amounts, BEGIN, WIDTH, buckets)
    assert len(spread_out) == buckets
    assert int(spread_out.sum()) == sum(amounts)
    assert (spread_out >= 0).all()


@given(rows)
def test_up_to_each_edge_there_is_as_much_as_the_rows_say(found: list[tuple[int, int, int]]) -> None:
    buckets = 10
    first, last, amounts = columns(found)
    running = np.cumsum(spread(first, last, amounts, BEGIN, WIDTH, buckets))
    total = sum(amounts)
    for number in range(buckets - 1):
        edge = number + 1.0
        expected = 0.0
        for one, other, amount in zip(first, last, amounts, strict=True):
            low, high = (min(max((at - BEGIN) / WIDTH, 0.0), float(buckets)) for at in (one, other))
            if int(low) == int(high) or high <= edge:  # within one column
                expected += amount if low < edge else 0
            else:
                expected += amount * min(max((edge - low) / (high - low), 0.0), 1.0)
        assert running[number] == pytest.approx(expected, abs=1 + total * 1e-9)


def test_a_flow_from_one_edge_to_another_is_even() -> None:
    assert spread([BEGIN], [BEGIN + 4 * WIDTH], [400], BEGIN, WIDTH, 5).tolist() == [100, 100, 100, 100, 0]


def test_nothing_at_all_is_nothing() -> None:
    assert spread([], [], [], BEGIN, WIDTH, 3).tolist() == [0, 0, 0]
