"""Calendars that a declaration may hold: right whenever it is read."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from agent.declaration.calendar_parse import parse_calendar
from agent.declaration.load import load_text
from agent.declaration.model import Declaration, Timer
from agent.declaration.sources import Disk
from agent.errors import DeclarationError
from agent.paths import Paths

Read = Callable[..., Declaration]

COMMAND = '[service.x]\nkind = "command"\ncommand = ["/bin/x"]\n'
NEVER = "never elapses: there is no such day; write one that there is, or leave it out"


def problems(keys: str) -> list[str]:
    try:
        load_text(COMMAND + keys, Paths.of("/nonexistent"), {}, Disk())
    except DeclarationError as error:
        return [f"{problem.where}: {problem.text}" for problem in error.problems]
    return []


@pytest.fixture
def helsinki(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Helsinki")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ('oncalendar = "*-02-30"', f'service.x.oncalendar: "*-02-30" {NEVER}'),
        ('oncalendar = ["*-02-30", "*-04-31"]', f'service.x.oncalendar: "*-02-30; *-04-31" {NEVER}'),
        ("month = 2\nday = 30", f"service.x.day: day 30 and month 2 {NEVER}"),
    ],
)
def test_what_never_comes_is_refused(keys: str, expected: str) -> None:
    assert problems(keys) == [expected]


def test_a_date_that_has_passed_does_not_keep_the_rest_of_the_host_down() -> None:
    assert problems('oncalendar = "2020-01-01"') == []


def test_one_event_that_comes_is_enough() -> None:
    assert problems('oncalendar = ["*-02-30", "daily"]') == []
    assert problems("month = 2\nday = 30\nweekday = 1") == []


@pytest.mark.parametrize("clock", ["EET", "EEST"])
@pytest.mark.usefixtures("helsinki")
def test_one_of_the_two_clocks_of_the_local_zone_is_refused(clock: str) -> None:
    assert parse_calendar(f"12:00 {clock}").dst is (clock == "EEST")
    assert problems(f'oncalendar = "12:00 {clock}"') == [
        f'service.x.oncalendar: "12:00 {clock}" is for a part of the year only, as the local clock is EEST or EET; '
        "write a zone such as Europe/Helsinki, or none for local time"
    ]


@pytest.mark.usefixtures("helsinki")
def test_a_zone_of_the_database_is_not_one_of_the_clocks() -> None:
    assert problems('oncalendar = ["12:00 Europe/Helsinki", "12:00 UTC", "12:00 CET"]') == []


def test_a_zone_with_one_clock_may_be_called_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        assert problems('oncalendar = "12:00 JST"') == []
    time.tzset()


def test_every_way_to_say_when_makes_its_timer(read: Read) -> None:
    def timer(keys: str) -> Timer | None:
        return read(COMMAND + keys).services["x"].timer

    assert timer("") is None
    assert timer('every = "90s"\ntimeout = 5') == Timer("every 1m30s", every=90.0, timeout=5.0)
    assert timer('oncalendar = "daily"') == Timer("daily", calendar=parse_calendar("daily"))
    assert timer("minute = 5") == Timer("cron 5 * * * *", calendar=parse_calendar("*:05"))


def test_what_is_said_of_the_times_goes_with_each_way_to_say_when(read: Read) -> None:
    def timer(keys: str) -> Timer | None:
        return read(COMMAND + keys).services["x"].timer

    assert timer('every = 90\nrandomized_delay = "1m"') == Timer("every 1m30s", every=90.0, randomized_delay=60.0)
    delayed = 'randomized_delay = "${DELAY:-1h}"\npersistent = true\n'
    assert timer(delayed + 'oncalendar = "daily"') == Timer(
        "daily", calendar=parse_calendar("daily"), randomized_delay=3600.0, persistent=True
    )
    assert timer(delayed + "minute = 5") == Timer(
        "cron 5 * * * *", calendar=parse_calendar("*:05"), randomized_delay=3600.0, persistent=True
    )


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (
            'randomized_delay = "5m"',
            "service.x.randomized_delay: puts off the times of a job, and this has none; say when it runs (oncalendar) "
            "or leave it out",
        ),
        (
            "persistent = false",
            "service.x.persistent: makes up for missed times of a job, and this has none; say when it runs "
            "(oncalendar) or leave it out",
        ),
        (
            'every = "1h"\npersistent = true',
            "service.x.persistent: is about calendar times; a period (every) that was missed is always made up for",
        ),
        (
            'every = "1h"\nrandomized_delay = "367d"',
            'service.x.randomized_delay: "367d" is out of range; write 0s to 366d',
        ),
        ('oncalendar = "daily"\npersistent = "yes"', 'service.x.persistent: "yes" is not true or false'),
        ('evry = "1h"\nrandomized_delay = "5m"', "service.x.evry: unknown key; did you mean every?"),
    ],
)
def test_what_cannot_be_said_of_times_is_told(keys: str, expected: str) -> None:
    assert problems(keys) == [expected]
