"""How fast to send: what the rate does by itself, without a sweep around it (with one: ``test_sweep``)."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.workers.scan.pace import FIRST, FLOOR, PATIENCE, Pace

Answered = Callable[[float, int], bool]
"""Whether probe number N, sent at a time, is answered."""


def drive(pace: Pace, seconds: float, answered: Answered, rtt: float = 0.01) -> list[tuple[float, float]]:
    """Send all that may be; returns the rate over time."""
    coming: deque[tuple[float, int]] = deque()
    now, number, rates = 0.0, 0, []
    while now < seconds:
        while coming and coming[0][0] <= now:
            pace.answered(coming.popleft()[1], rtt)
        pace.judge(now)
        for _ in range(pace.allowance(now)):
            window = pace.sent(1, now)
            number += 1
            if answered(now, number):
                coming.append((now + rtt, window))
        rates.append((now, pace.rate))
        now += 0.001
    return rates


def test_it_begins_slowly_and_doubles_up_to_what_was_declared() -> None:
    rates = drive(Pace(20_000, 0.0), 3.0, lambda now, number: True)
    assert rates[0][1] == FIRST
    assert rates[-1][1] == 20_000
    assert all(later <= 2 * earlier + 1 for (_, earlier), (_, later) in itertools.pairwise(rates))


@settings(max_examples=20, deadline=None)
@given(st.floats(30, 50_000), st.floats(0, 1), st.floats(0.001, 0.5))
def test_whatever_comes_back_no_more_is_sent_than_declared(ceiling: float, share: float, rtt: float) -> None:
    pace = Pace(ceiling, 0.0)
    sent = [0]

    def answered(now: float, number: int) -> bool:
        sent[0] = number
        return number * share % 1 < share

    rates = drive(pace, 1.0, answered, rtt)
    assert sent[0] <= ceiling * 1.0 + max(1, ceiling * 0.02) + 1
    assert all(min(FLOOR, ceiling) <= rate <= ceiling for _, rate in rates)
    assert PATIENCE[0] <= pace.patience <= PATIENCE[1] or pace.patience == 1.0


@pytest.mark.parametrize("lost", [2, 3, 10])
def test_loss_that_is_the_same_at_any_rate_slows_nothing(lost: int) -> None:
    pace = Pace(20_000, 0.0)
    drive(pace, 4.0, lambda now, number: number % lost != 0)
    assert pace.rate == 20_000


@pytest.mark.parametrize("carried", [800, 3000, 9000])
def test_where_less_is_carried_it_settles_below(carried: int) -> None:
    level = [0.0, 0.0]

    def answered(now: float, number: int) -> bool:
        level[0] = min(carried / 20, level[0] + (now - level[1]) * carried)
        level[1] = now
        if level[0] < 1:
            return False
        level[0] -= 1
        return True

    pace = Pace(50_000, 0.0)
    rates = drive(pace, 12.0, answered)
    late = [rate for now, rate in rates if now > 8]
    assert 0.5 * carried < sum(late) / len(late) < 1.25 * carried
    assert pace.saturated


def test_hosts_that_fall_silent_in_the_middle_do_not_slow_it_down_for_good() -> None:
    pace = Pace(10_000, 0.0)
    drive(pace, 8.0, lambda now, number: now < 2.0 or number % 2 == 0)
    assert pace.rate > 5000


def test_where_nobody_answers_it_goes_at_the_declared_rate() -> None:
    pace = Pace(3000, 0.0)
    drive(pace, 6.0, lambda now, number: False)
    assert pace.rate == 3000
    assert pace.silent


def test_halved_it_is_careful_from_then_on() -> None:
    pace = Pace(10_000, 0.0)
    drive(pace, 3.0, lambda now, number: True)
    pace.halve()
    assert pace.rate == 5000
    drive(pace, 0.5, lambda now, number: True)
    assert pace.rate < 6500
