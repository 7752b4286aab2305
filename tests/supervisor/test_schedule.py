"""When a job runs next."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.declaration.calendar_parse import parse_calendar
from agent.declaration.model import Timer
from agent.supervisor.schedule import Appointment, appoint

TIMES = st.floats(1e9, 2e9)
PERIODS = st.floats(0.1, 1e6)
DELAYS = st.floats(0.0, 1e5)
PARTS = st.floats(0.0, 1.0)
CALENDARS = st.sampled_from(["*:*:0/7 UTC", "*:0/10 UTC", "daily UTC", "Mon..Fri 02:30 UTC", "*-*~1 UTC"])


def due(timer: Timer, since: float | None, now: float, part: float = 0.0) -> float | None:
    found = appoint(timer, since, now, None, lambda: part)
    return found.due if found is not None else None


def never() -> float:
    raise AssertionError("nothing is left to chance here")


def calendar(text: str, delay: float = 0.0) -> Timer:
    return Timer(text, calendar=parse_calendar(text), randomized_delay=delay)


@given(TIMES, PERIODS, TIMES)
def test_a_period_counts_from_the_last_run_and_is_due_at_once_when_it_is_over(
    now: float, every: float, last: float
) -> None:
    assert due(Timer("x", every=every), last, now) == max(now, last + every)


@given(TIMES, PERIODS)
def test_a_job_that_never_ran_is_due_at_once(now: float, every: float) -> None:
    assert due(Timer("x", every=every), None, now) == now


def test_a_calendar_is_asked_for_what_comes_after_what_has_been_served() -> None:
    assert due(calendar("*:0/10 UTC"), 1_700_000_000.0, 1_700_000_000.0) == 1_700_000_400.0
    assert due(calendar("*:0/10 UTC"), 1_700_000_400.0, 1_700_000_400.5) == 1_700_001_000.0


@given(CALENDARS, TIMES, st.floats(0.0, 1e7))
def test_a_time_that_has_passed_is_due_at_once_and_no_other_is(text: str, since: float, later: float) -> None:
    timer = calendar(text)
    elapse = timer.calendar.next_elapse(since) if timer.calendar else None
    assert elapse is not None
    assert due(timer, since, since + later) == max(elapse, since + later)


def test_a_calendar_that_has_no_more_says_so() -> None:
    assert due(calendar("2020-01-01"), 1_700_000_000.0, 1_700_000_000.0) is None


@given(CALENDARS, TIMES, st.floats(0.0, 1e7), DELAYS, PARTS)
def test_chance_puts_a_time_off_by_its_part_of_the_delay(
    text: str, since: float, later: float, delay: float, part: float
) -> None:
    prompt = due(calendar(text), since, since + later)
    assert prompt is not None
    assert due(calendar(text, delay), since, since + later, part) == prompt + part * delay
    assert due(Timer("x", every=60.0, randomized_delay=delay), since, since + later, part) == (
        max(since + 60.0, since + later) + part * delay
    )


@given(CALENDARS, TIMES, DELAYS, PARTS, st.lists(PARTS, max_size=5))
def test_looking_again_draws_no_other_delay(
    text: str, since: float, delay: float, part: float, looks: list[float]
) -> None:
    timer = calendar(text, delay)
    first = appoint(timer, since, since, None, lambda: part)
    assert first is not None
    for look in sorted(looks):
        now = since + look * (first.due - since)
        assert appoint(timer, since, now, first, never) == first


@given(CALENDARS, TIMES, DELAYS, PARTS)
def test_each_elapse_has_a_delay_of_its_own(text: str, since: float, delay: float, part: float) -> None:
    timer = calendar(text, delay)
    first = appoint(timer, since, since, None, lambda: part)
    assert first is not None
    second = appoint(timer, first.due, first.due, first, lambda: 1.0 - part)
    assert second is not None and second.elapse > first.elapse
    assert second.due == second.elapse + (1.0 - part) * delay


def far_away() -> tuple[Timer, Appointment, float]:
    """An appointment that was made when the clock was a day ahead, and the time that it is now."""
    timer = Timer("x", every=60.0, randomized_delay=30.0)
    now = 1_700_000_000.0
    ahead = appoint(timer, now, now + 86_400.0, None, lambda: 0.5)
    assert ahead is not None and ahead.due == now + 86_415.0
    return timer, ahead, now


def test_a_clock_that_was_set_back_puts_nothing_off_by_more_than_the_delay() -> None:
    timer, ahead, now = far_away()
    assert appoint(timer, now, now, ahead, lambda: 0.25) == Appointment(now + 60.0, now + 67.5)


def test_a_delay_that_is_declared_shorter_is_in_force_at_once() -> None:
    hour, minute = calendar("daily UTC", 3600.0), calendar("daily UTC", 60.0)
    since = 1_700_000_000.0
    before = appoint(hour, since, since, None, lambda: 1.0)
    after = appoint(minute, since, since, before, lambda: 1.0)
    assert before is not None and after is not None
    assert (before.due - before.elapse, after.due - after.elapse) == (3600.0, 60.0)
