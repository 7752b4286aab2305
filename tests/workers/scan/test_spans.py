"""Sets of numbers as ranges are sets of numbers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.workers.scan.spans import Ranges, common, holds, merge, size, without

ranges = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 6)).map(lambda pair: (pair[0], pair[0] + pair[1]))).map(
    merge
)


def numbers(found: Ranges) -> set[int]:
    return {number for low, high in found for number in range(low, high + 1)}


@given(ranges, ranges)
def test_they_are_cut_as_sets_are(ours: Ranges, theirs: Ranges) -> None:
    assert numbers(common(ours, theirs)) == numbers(ours) & numbers(theirs)
    assert numbers(without(ours, theirs)) == numbers(ours) - numbers(theirs)
    for found in (common(ours, theirs), without(ours, theirs)):
        assert found == merge(found)


@given(ranges, st.integers(-1, 50))
def test_they_hold_what_is_in_them(ours: Ranges, number: int) -> None:
    assert holds(ours, number) == (number in numbers(ours))
    assert size(ours) == len(numbers(ours))
