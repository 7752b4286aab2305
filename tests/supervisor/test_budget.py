"""So many at once, so many per second."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.supervisor.budget import Budget


@given(st.floats(0.1, 100), st.floats(1, 100), st.lists(st.floats(0, 10), max_size=200))
def test_over_any_time_no_more_is_spent_than_was_there_and_came_in(
    per_second: float, at_once: float, pauses: list[float]
) -> None:
    budget, now, spent = Budget(per_second, at_once, 0.0), 0.0, 0
    for pause in pauses:
        now += pause
        spent += budget.spend(now)
        assert spent <= at_once + per_second * now + 1e-6


def test_a_burst_is_taken_and_then_as_much_as_comes_in() -> None:
    budget = Budget(per_second=2.0, at_once=3.0, now=0.0)
    assert [budget.spend(0.0) for _ in range(4)] == [True, True, True, False]
    assert [budget.spend(0.4), budget.spend(0.6), budget.spend(0.7)] == [False, True, False]
    assert [budget.spend(1000.0) for _ in range(4)] == [True, True, True, False]
