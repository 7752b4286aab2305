"""How often silence is asked again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.workers.scan.rounds import enough, gap, loss, measured

counts = st.lists(st.integers(0, 100_000), min_size=8, max_size=8)


@given(counts, st.integers(1, 65_535), st.integers(0, 20), st.floats(0, 0.9))
def test_it_ends_when_the_declared_number_is_used_up_and_not_before_twice(
    answered: list[int], silent: int, retries: int, elsewhere: float
) -> None:
    assert enough(answered, silent, retries + 1, retries, elsewhere)
    assert enough(answered, silent, 1, retries, elsewhere) == (retries == 0)
    assert enough(answered, 0, 1, retries, elsewhere)


@given(counts)
def test_loss_is_a_part(answered: list[int]) -> None:
    assert 0 <= loss(answered) < 1


@pytest.mark.parametrize(
    ("answered", "part"),
    [((), None), ((0, 0), None), ((1,), 0.0), ((100, 0, 0), 0.0), ((90, 10), 10 / 110), ((0, 1), 0.5)],
)
def test_what_is_told_of_loss_was_measured(answered: tuple[int, ...], part: float | None) -> None:
    assert measured(answered) == part


@pytest.mark.parametrize(
    ("answered", "attempts"),
    [
        ([60_000, 0, 0, 0, 0, 0, 0, 0], 2),  # everybody answered at once
        ([59_000, 5_900, 590, 59, 6, 0, 0, 0], 7),  # one in ten was lost, each time
        ([100, 0, 0, 0, 0, 0, 0, 0], 2),
        ([90, 10, 0, 0, 0, 0, 0, 0], 4),
        ([0, 0, 0, 0, 0, 0, 0, 0], 2),  # nobody there
    ],
)
def test_the_more_was_lost_the_more_often_it_is_asked(answered: list[int], attempts: int) -> None:
    needed = next(number for number in range(1, 30) if enough(answered, 100, number, 30, 0.0))
    assert abs(needed - attempts) <= 1
    assert needed >= 2


def test_a_host_that_said_little_is_judged_by_the_others() -> None:
    assert enough([1, 0], 1000, 2, 9, 0.01)
    assert not enough([1, 0], 1000, 2, 9, 0.3)


def test_rounds_are_ever_further_apart() -> None:
    gaps = [gap(attempts) for attempts in range(1, 10)]
    assert gaps == sorted(gaps)
    assert 0.2 < gaps[0] < gaps[-1] <= 2
