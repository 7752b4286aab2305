"""A job's time is called when it has come, by a clock that may be set."""

from __future__ import annotations

import asyncio
import time
import zoneinfo

import pytest

from agent.declaration.calendar_parse import parse_calendar
from agent.declaration.model import Timer
from agent.supervisor.agenda import Agenda
from tests.supervisor.conftest import until

OFTEN = Timer("every 200ms", every=0.2)
SELDOM = Timer("every 1h", every=3600.0)


class Called:
    """An agenda and what it called out."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.due: list[float] = []
        self.failures: list[str] = []
        self.agenda = Agenda(loop, lambda: self.due.append(time.time()), self.failures.append)


@pytest.fixture
def called(loop: asyncio.AbstractEventLoop) -> Called:
    return Called(loop)


def test_a_period_is_called_again_and_again_though_nothing_follows(
    called: Called, loop: asyncio.AbstractEventLoop
) -> None:
    called.agenda.plan(OFTEN)
    until(loop, lambda: len(called.due) == 4)
    gaps = [later - earlier for earlier, later in zip(called.due, called.due[1:], strict=False)]
    assert all(0.15 < gap < 0.4 for gap in gaps)


def test_it_counts_from_the_last_run(called: Called, loop: asyncio.AbstractEventLoop) -> None:
    last = time.time() - 3000
    called.agenda.plan(SELDOM, last)
    assert called.agenda.next_run == pytest.approx(last + 3600)
    loop.run_until_complete(asyncio.sleep(0.05))
    assert not called.due


def test_without_a_timer_nothing_is_due(called: Called, loop: asyncio.AbstractEventLoop) -> None:
    called.agenda.plan(OFTEN)
    called.agenda.plan(None)
    loop.run_until_complete(asyncio.sleep(0.05))
    assert (called.due, called.agenda.next_run) == ([], None)


@pytest.mark.parametrize("seconds", [3600, -3600])
def test_a_clock_that_is_set_past_a_time_calls_it_and_one_that_is_set_back_waits_for_it(
    called: Called, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    # The wall clock of this machine is not ours to set; tests/machine does it for real.
    wall = 1_700_000_000.0
    monkeypatch.setattr(time, "time", lambda: wall)
    called.agenda.plan(Timer("*:0/30 UTC", calendar=parse_calendar("*:0/30 UTC")))
    due = called.agenda.next_run
    assert due is not None
    wall += seconds
    called.agenda.look()
    assert len(called.due) == (seconds > 0)
    assert called.agenda.next_run is not None
    assert 0 < called.agenda.next_run - wall <= 1800


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
