"""A job's time is called when it has come, by a clock that may be set."""

from __future__ import annotations

import asyncio
import time
import zoneinfo
from collections.abc import Iterator

import pytest

from agent.declaration.calendar_parse import parse_calendar
from agent.declaration.model import Timer
from agent.supervisor.agenda import Agenda
from tests.supervisor.conftest import until

OFTEN = Timer("every 200ms", every=0.2)
SELDOM = Timer("every 1h", every=3600.0)
HALF_HOURS = Timer("*:0/30 UTC", calendar=parse_calendar("*:0/30 UTC"))
KEPT = Timer("*:0/30 UTC", calendar=parse_calendar("*:0/30 UTC"), persistent=True)

NOON = 1_700_049_600.0  # 2023-11-15 12:00 UTC


class Called:
    """An agenda, what it called out, and what it remembers when another takes its place."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.due: list[float] = []
        self.failures: list[str] = []
        self.remembered: dict[str, float] = {}
        self.part = 0.0
        self.agenda = self.anew()

    def anew(self) -> Agenda:
        self.agenda = Agenda(self.loop, "job", self, self.call, self.failures.append, lambda: self.part)
        return self.agenda

    def call(self) -> None:
        self.due.append(time.time())

    def served(self, name: str) -> float | None:
        return self.remembered.get(name)

    def serve(self, name: str, at: float) -> None:
        self.remembered[name] = at


@pytest.fixture
def called(loop: asyncio.AbstractEventLoop) -> Iterator[Called]:
    made = Called(loop)
    yield made
    made.agenda.plan(None)


class Wall:
    """A wall clock that a test may set: this machine's is not ours to set; tests/machine does it for real."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = NOON
        monkeypatch.setattr(time, "time", lambda: self.now)


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    return Wall(monkeypatch)


def test_a_period_is_called_again_and_again_though_nothing_follows(
    called: Called, loop: asyncio.AbstractEventLoop
) -> None:
    called.agenda.plan(OFTEN)
    until(loop, lambda: len(called.due) == 4)
    gaps = [later - earlier for earlier, later in zip(called.due, called.due[1:], strict=False)]
    assert all(0.15 < gap < 0.4 for gap in gaps)


def test_a_period_is_put_off_by_a_part_of_the_delay_each_time(called: Called, loop: asyncio.AbstractEventLoop) -> None:
    called.part = 0.5
    called.agenda.plan(Timer("every 100ms", every=0.1, randomized_delay=0.4))
    until(loop, lambda: len(called.due) == 3)
    gaps = [later - earlier for earlier, later in zip(called.due, called.due[1:], strict=False)]
    assert all(0.28 < gap < 0.5 for gap in gaps)


def test_it_counts_from_the_last_run(called: Called, loop: asyncio.AbstractEventLoop) -> None:
    last = time.time() - 3000
    called.agenda.plan(SELDOM, last)
    assert called.agenda.next_run == pytest.approx(last + 3600)
    loop.run_until_complete(asyncio.sleep(0.05))
    assert not called.due


def test_a_last_run_in_the_future_puts_off_a_job_for_no_longer_than_its_period(called: Called, wall: Wall) -> None:
    called.agenda.plan(SELDOM, NOON + 1e6)
    assert called.agenda.next_run == NOON + 3600
    wall.now += 1000
    called.agenda.look()
    assert called.agenda.next_run == NOON + 3600, "looking does not put it off again"


def test_without_a_timer_nothing_is_due(called: Called, loop: asyncio.AbstractEventLoop) -> None:
    called.agenda.plan(OFTEN)
    called.agenda.plan(None)
    loop.run_until_complete(asyncio.sleep(0.05))
    assert (called.due, called.agenda.next_run) == ([], None)


@pytest.mark.parametrize("seconds", [3600, -3600])
def test_a_clock_that_is_set_past_a_time_calls_it_and_one_that_is_set_back_waits_for_it(
    called: Called, wall: Wall, seconds: int
) -> None:
    called.agenda.plan(HALF_HOURS)
    assert called.agenda.next_run == NOON + 1800
    wall.now += seconds
    called.agenda.look()
    assert len(called.due) == (seconds > 0)
    assert called.agenda.next_run is not None
    assert 0 < called.agenda.next_run - wall.now <= 1800


def test_a_time_that_comes_while_something_else_happens_is_not_lost(called: Called, wall: Wall) -> None:
    called.agenda.plan(HALF_HOURS)
    wall.now += 1801
    called.agenda.plan(HALF_HOURS)  # a run that somebody asked for began
    assert called.agenda.next_run == NOON + 1800
    called.agenda.look()
    assert called.due == [NOON + 1801]
    assert called.agenda.next_run == NOON + 3600


def test_a_time_is_put_off_once_whatever_happens_meanwhile(called: Called, wall: Wall) -> None:
    delayed = Timer("*:0/30 UTC", calendar=HALF_HOURS.calendar, randomized_delay=600.0)
    called.part = 0.5
    called.agenda.plan(delayed)
    assert called.agenda.next_run == NOON + 2100
    called.part = 0.1
    wall.now += 1900  # after the time of the calendar, before it is due
    called.agenda.look()
    called.agenda.plan(delayed, wall.now)
    assert (called.due, called.agenda.next_run) == ([], NOON + 2100)
    wall.now = NOON + 2100
    called.agenda.look()
    assert called.due == [NOON + 2100]
    assert called.agenda.next_run == NOON + 3660


def test_what_is_missed_is_let_go(called: Called, wall: Wall) -> None:
    called.agenda.plan(HALF_HOURS, NOON - 5000)
    assert called.agenda.next_run == NOON + 1800
    assert called.remembered == {}


def test_what_is_missed_is_made_up_for_once_if_that_is_declared(
    called: Called, wall: Wall, loop: asyncio.AbstractEventLoop
) -> None:
    called.agenda.plan(KEPT, NOON - 5000)
    assert called.agenda.next_run == NOON
    until(loop, lambda: called.due)
    assert (called.due, called.agenda.next_run) == ([NOON], NOON + 1800)
    wall.now += 10  # another agent, soon after
    called.anew().plan(KEPT, NOON - 5000)
    assert called.agenda.next_run == NOON + 1800
    wall.now += 4000  # and one that comes after a time has passed
    called.anew().plan(KEPT, NOON - 5000)
    assert called.agenda.next_run == wall.now


def test_nothing_is_missed_before_a_job_was_declared(called: Called, wall: Wall) -> None:
    called.agenda.plan(KEPT)
    assert called.agenda.next_run == NOON + 1800
    wall.now += 4000
    called.anew().plan(KEPT)
    assert called.agenda.next_run == wall.now, "it never ran, but had been waiting for a time that passed"


def test_what_is_made_up_for_is_put_off_too(called: Called, wall: Wall) -> None:
    called.part = 0.5
    called.agenda.plan(Timer("x", calendar=KEPT.calendar, persistent=True, randomized_delay=60.0), NOON - 5000)
    assert called.agenda.next_run == NOON + 30


def test_another_calendar_counts_from_now_on(called: Called, wall: Wall) -> None:
    called.agenda.plan(HALF_HOURS)
    wall.now += 1000
    called.agenda.plan(Timer("*:0/5 UTC", calendar=parse_calendar("*:0/5 UTC")))
    assert called.agenda.next_run == NOON + 1200


def test_another_period_counts_from_the_same_run(called: Called, wall: Wall) -> None:
    called.agenda.plan(SELDOM, NOON)
    wall.now += 1000
    called.agenda.plan(Timer("every 30m", every=1800.0), NOON)
    assert called.agenda.next_run == NOON + 1800


def test_another_program_in_this_process_goes_on_with_what_was_planned(
    called: Called, wall: Wall, loop: asyncio.AbstractEventLoop
) -> None:
    delayed = Timer("*:0/30 UTC", calendar=HALF_HOURS.calendar, randomized_delay=600.0)
    called.part = 0.5
    called.agenda.plan(delayed)
    wall.now += 1900  # after the time of the calendar, before it is due
    plan = called.agenda.freeze()
    called.agenda.plan(None)
    called.anew().thaw(delayed, plan)
    assert called.agenda.next_run == NOON + 2100
    called.agenda.plan(delayed, wall.now)  # a run that somebody asked for began
    assert called.agenda.next_run == NOON + 2100
    plan = called.agenda.freeze()
    called.agenda.plan(None)
    wall.now += 1000
    called.anew().thaw(delayed, plan)
    until(loop, lambda: called.due)
    assert (called.due, called.agenda.next_run) == ([NOON + 2900], NOON + 3900)


def test_a_calendar_that_cannot_be_computed_is_told(called: Called) -> None:
    zoned = parse_calendar("*:0/30 Europe/Berlin")
    before = zoneinfo.TZPATH
    zoneinfo.ZoneInfo.clear_cache()
    zoneinfo.reset_tzpath(["/nowhere"])
    try:
        called.agenda.plan(Timer("*:0/30 Europe/Berlin", calendar=zoned))
    finally:
        zoneinfo.reset_tzpath(before)
    assert called.agenda.next_run is None
    assert len(called.failures) == 1
