"""Which segments go."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.workers.capture.retention import Stored, prune_plan

stores = st.lists(
    st.builds(Stored, st.integers(0, 2**62), st.sampled_from(["eth0", "lo"]), st.integers(0, 2**30)), unique=True
).map(sorted)


@given(stores, st.integers(-10, 2**33))
def test_the_fewest_oldest_segments_that_free_enough(segments: list[Stored], need: int) -> None:
    plan = prune_plan(segments, need)
    assert plan == segments[: len(plan)]
    freed = sum(segment.size for segment in plan)
    assert freed >= need or len(plan) == len(segments)
    if plan:
        assert freed - plan[-1].size < need


@given(stores)
def test_nothing_goes_when_nothing_is_needed(segments: list[Stored]) -> None:
    assert prune_plan(segments, 0) == []
