from __future__ import annotations

import calendar as dates
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.declaration.calendar import Calendar
from agent.declaration.calendar_parse import parse_calendar
from agent.declaration.cron import parse_cron
from agent.errors import UsageError
from tests.declaration.calendar_reference import local_zone


@pytest.mark.parametrize(
    ("fields", "event"),
    [
        (("*", "*", "*", "*", "*"), "minutely"),
        ((0, "*", "*", "*", "*"), "hourly"),
        ((0, 0, "*", "*", "*"), "daily"),
        ((0, 0, 1, 1, "*"), "yearly"),
        ((0, 0, "*", "*", 0), "Sun"),
        ((0, 0, "*", "*", 7), "Sun"),
        (("30", "2", "*", "*", "mon-fri"), "Mon..Fri 2:30"),
        (("30", "2", "*", "*", "1-5"), "Mon..Fri 2:30"),
        (("0", "0", "*", "*", "5-7"), "Fri..Sun"),
        (("0", "0", "*", "*", "SAT-SUN"), "Sat,Sun"),
        (("0", "0", "*", "*", "sun,3"), "Wed,Sun"),
        (("0", "0", "*", "*", "0-7"), "daily"),
        (("*/15", "*", "*", "*", "*"), "*:0..45/15"),
        (("*/40", "*", "*", "*", "*"), "*:0,40"),
        (("*/100", "*", "*", "*", "*"), "*:0"),
        (("5-59/20", "9-17", "*", "*", "*"), "9..17:5..45/20"),
        (("1,2,3,10,20-22", "0", "*", "*", "*"), "0:1..3,10,20..22"),
        (("1,2,9", "0", "*", "*", "*"), "0:1,2,9"),
        (("0", "0", "1", "jan,JUL", "*"), "1,7-1"),
        (("0", "0", "*", "oct-dec", "*"), "10..12-*"),
        ((" 0 ", "00", "*", "*/3", "*"), "1..10/3-*"),
    ],
)
def test_fields_mean_the_event(
    fields: tuple[str | int, str | int, str | int, str | int, str | int], event: str
) -> None:
    assert parse_cron(*fields) == parse_calendar(event)


def test_fields_left_out_are_any() -> None:
    assert parse_cron(minute=5, hour=3) == parse_calendar("3:05")


def test_day_and_weekday_both_restricted_are_two_ways_to_match() -> None:
    union = parse_cron("0", "0", "13", "*", "fri")
    assert union.normalized() == "*-*-13 00:00:00; Fri *-*-* 00:00:00"
    with local_zone("UTC"):
        moment: float | None = 1772323200.0  # Sun 2026-03-01
        days: list[tuple[int, ...]] = []
        while len(days) < 6:
            assert moment is not None
            moment = union.next_elapse(moment)
            assert moment is not None
            days.append(time.gmtime(moment)[1:3])
    assert days == [(3, 6), (3, 13), (3, 20), (3, 27), (4, 3), (4, 10)]


def test_a_field_that_begins_with_a_star_restricts_without_adding() -> None:
    assert parse_cron(0, 0, "*/2", "*", "fri") == parse_calendar("Fri *-*-1..31/2")
    assert parse_cron(0, 0, "13", "*", "*/2") == parse_calendar("Tue,Thu,Sat,Sun *-*-13")


def test_a_list_of_all_days_leaves_nothing_to_add() -> None:
    assert parse_cron(0, 0, "1-31", "*", "fri") == parse_calendar("daily")
    assert parse_cron(0, 0, "13", "*", "0-6") == parse_calendar("daily")


_STEPS = st.sampled_from(("*", "*/2", "*/7", "3", "1-5", "2-6/3", "1,4-6", "4,2"))


@settings(max_examples=40, deadline=None)
@given(_STEPS, _STEPS, _STEPS, _STEPS, _STEPS)
def test_elapses_are_the_minutes_cron_would_match(minute: str, hour: str, day: str, month: str, weekday: str) -> None:
    """crontab(5)'s rule, restated minute by minute over one day that the event names, against the search."""
    event = parse_cron(minute, hour, day, month, weekday)
    with local_zone("UTC"):
        first = event.next_elapse(1_900_000_000)
        assert first is not None
        midnight = first - first % 86_400
        expected = [
            moment
            for moment in range(int(midnight), int(midnight) + 86_400, 60)
            if _cron_matches(moment, minute, hour, day, month, weekday)
        ]
        found = []
        following = event.next_elapse(midnight - 1)
        while following is not None and following < midnight + 86_400:
            found.append(int(following))
            following = event.next_elapse(following)
    assert found == expected


def _cron_matches(moment: int, minute: str, hour: str, day: str, month: str, weekday: str) -> bool:
    there = time.gmtime(moment)
    by_day = _has(day, there.tm_mday, 1)
    by_weekday = _has(weekday, (dates.weekday(*there[:3]) + 1) % 7, 0)
    either = not day.startswith("*") and not weekday.startswith("*")
    return (
        _has(minute, there.tm_min, 0)
        and _has(hour, there.tm_hour, 0)
        and _has(month, there.tm_mon, 1)
        and (by_day or by_weekday if either else by_day and by_weekday)
    )


def _has(field: str, value: int, low: int) -> bool:
    for item in field.split(","):
        body, _, step = item.partition("/")
        first, _, last = (f"{low}-59" if body == "*" else body).partition("-")
        if int(first) <= value <= int(last or first) and (value - int(first)) % int(step or 1) == 0:
            return True
    return False


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (("60", "*", "*", "*", "*"), "cron minute '60': '60' is not within 0 to 59"),
        ((-1, "*", "*", "*", "*"), "cron minute '-1': '' is not within 0 to 59"),
        (("*", "24", "*", "*", "*"), "cron hour '24'"),
        (("*", "*", "0", "*", "*"), "cron day '0'"),
        (("*", "*", "*", "13", "*"), "is not within 1 to 12 or jan to dec"),
        (("*", "*", "*", "*", "8"), "is not within 0 to 7 or sun to sat"),
        (("*", "*", "*", "*", "monday"), "'monday' is not within 0 to 7 or sun to sat"),
        (("*/0", "*", "*", "*", "*"), "'0' is no step; write for example */15"),
        (("*/x", "*", "*", "*", "*"), "'x' is no step"),
        (("5/15", "*", "*", "*", "*"), "a step goes with * or a range: 5-59/15"),
        (("*", "22-2", "*", "*", "*"), "22-2 runs backwards; write 22-23,0-2"),
        (("", "*", "*", "*", "*"), "cron minute '': '' is not within 0 to 59"),
        (("1,", "*", "*", "*", "*"), "'' is not within 0 to 59"),
        (("1-", "*", "*", "*", "*"), "'' is not within 0 to 59"),
        (("?", "*", "*", "*", "*"), "'?' is not within"),
        (("*", "*", "L", "*", "*"), "'l' is not within"),
        (("*", "*", "*", "*", "5#2"), "'5#2' is not within"),
        (("1 2", "*", "*", "*", "*"), "'1 2' is not within"),
        (("1\n", "*\n*", "*", "*", "*"), "is not within"),
        (("\u0661", "*", "*", "*", "*"), "is not within"),
        (("0," * 1000 + "0", "*", "*", "*", "*"), "is longer than 512 characters"),
    ],
)
def test_an_error_names_the_field_and_what_would_be_right(
    fields: tuple[str | int, str | int, str | int, str | int, str | int], says: str
) -> None:
    with pytest.raises(UsageError) as caught:
        parse_cron(*fields)
    assert says in str(caught.value)
    assert str(caught.value).isprintable() or not str(caught.value).isascii()
    assert "\n" not in str(caught.value)


@given(st.text(max_size=20), st.text(alphabet="0123456789*-,/jansun", max_size=12))
def test_any_text_is_fields_or_a_usage_error(wild: str, near: str) -> None:
    for field in (wild, near):
        try:
            assert isinstance(parse_cron(field, field, field, field, field), Calendar)
        except UsageError as error:
            assert "\n" not in str(error)
