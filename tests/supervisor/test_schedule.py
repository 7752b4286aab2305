"""When a job runs next."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.declaration.calendar_parse import parse_calendar
from agent.declaration.model import Timer
from agent.supervisor.schedule import next_run

TIMES = st.floats(1e9, 2e9)
PERIODS = st.floats(0.1, 1e6)


@given(TIMES, PERIODS, TIMES | st.none())
def test_a_period_is_due_now_or_within_one_period(now: float, every: float, last: float | None) -> None:
    due = next_run(Timer("x", every=every), now, last)
    assert due is not None
    assert now <= due <= now + every


@given(TIMES, PERIODS)
def test_a_job_that_never_ran_is_due_at_once(now: float, every: float) -> None:
    assert next_run(Timer("x", every=every), now, None) == now


@given(TIMES, PERIODS, st.floats(1, 1e8))
def test_a_clock_that_was_set_back_does_not_put_off_a_job_for_longer_than_its_period(
    now: float, every: float, ahead: float
) -> None:
    due = next_run(Timer("x", every=every), now, now + ahead)
    assert due == now + every


def test_a_calendar_is_asked_for_what_comes_after_now() -> None:
    timer = Timer("*:0/10 UTC", calendar=parse_calendar("*:0/10 UTC"))
    assert next_run(timer, 1_700_000_000.0, None) == 1_700_000_400.0


def test_a_calendar_that_has_no_more_says_so() -> None:
    timer = Timer("2020-01-01", calendar=parse_calendar("2020-01-01"))
    assert next_run(timer, 1_700_000_000.0, None) is None
