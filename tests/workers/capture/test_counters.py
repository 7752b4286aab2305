"""Counters of the kernel that wrap."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.workers.capture.counters import Counters, Device, Wrapping

steps = st.lists(st.integers(0, 2**31), max_size=30)


@given(steps)
def test_a_32_bit_counter_adds_up_through_any_number_of_wraps(growths: list[int]) -> None:
    counter, true = Wrapping(), 0
    for growth in growths:
        true += growth
        assert counter.advance(true % 2**32) == growth
    assert counter.total == true


@given(st.integers(0, 2**63), steps)
def test_a_64_bit_counter_adds_up_from_where_it_was(first: int, growths: list[int]) -> None:
    counter, reading = Device(first), first
    for growth in growths:
        reading += growth
        assert counter.advance(reading) == growth


@given(st.integers(2**31, 2**32 - 1), st.integers(0, 2**30))
def test_a_driver_that_counts_in_32_bits_wraps(last: int, growth: int) -> None:
    assert Device(last).advance((last + growth) % 2**32) == growth


@given(st.integers(1, 2**31 - 1) | st.integers(2**32, 2**63), st.integers(0, 2**20))
def test_a_device_that_begins_anew_counts_from_zero(last: int, reading: int) -> None:
    if reading < last:
        assert Device(last).advance(reading) == reading


@given(st.lists(st.tuples(*[st.integers(0, 2**40)] * 7), min_size=1, max_size=5))
def test_counters_of_interfaces_add_up(values: list[tuple[int, ...]]) -> None:
    total = sum((Counters(*value) for value in values), Counters())
    assert total == Counters(*(sum(column) for column in zip(*values, strict=True)))
