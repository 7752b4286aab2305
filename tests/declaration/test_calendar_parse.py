from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.declaration.calendar import Calendar, Span
from agent.declaration.calendar_parse import parse_calendar
from agent.errors import UsageError
from tests.declaration.calendar_reference import local_zone


@given(st.text(alphabet="MonTueFri0123456789*~-:./, @UTCdaily\x00é", max_size=40) | st.text(max_size=30))
def test_any_text_is_an_event_or_a_one_line_usage_error(text: str) -> None:
    try:
        calendar = parse_calendar(text)
    except UsageError as error:
        assert str(error).isprintable()
    else:
        assert parse_calendar(calendar.normalized()).normalized() == calendar.normalized()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("Mon..Tuf", "expected a weekday (Mon Tue Wed Thu Fri Sat Sun), not 'Tuf'"),
        ("Mond 12:00", "weekdays are written Mon or Monday, not 'd 12:00'"),
        ("Fri..Mon", "list the days instead"),
        ("Mon..", "has no end"),
        ("Mon;Tue", "weekdays are written Mon or Monday"),
        ("25:00", "hour 25 is out of range, which is 0 to 23"),
        ("12:00:60.5", "second 60.5 is out of range, which is 0 to 59"),
        ("2026-13-1", "month 13 is out of range, which is 1 to 12"),
        ("2026-1-32", "day 32 is out of range, which is 1 to 31"),
        ("*-*~29", "last day 29 is out of range, which is 1 to 28"),
        ("1969-1-1", "year 1969 is out of range, which is 1970 to 2199"),
        ("*:0/60", "a step of 60 from minute 0 never comes to a second match"),
        ("*:10..5", "a range of minutes runs from small to large"),
        ("*:0/0", "a step (after /) is at least 1"),
        ("1~2~3", "~ stands before the day"),
        ("2026-1-1T12:00", "expected numbers, lists (1,2), ranges (1..5), steps (0/15) or *, not 'T12:00'"),
        ("12", "expected a time like 02:30, not the end"),
        ("tomorrow", "expected a number or *, not 'tomorrow'"),
        ("12:00 Nowhere/City", "a time zone of this host"),
        ("@1 12:00", "nothing but a time zone can follow a unix time"),
        ("*:" + "0," * 300 + "0", "a list has at most 241 items"),
        ("9" * 9000, "at most 8192 printable ASCII characters"),
    ],
)
def test_an_error_says_what_is_wrong_and_what_would_be_right(text: str, says: str) -> None:
    with local_zone("UTC"), pytest.raises(UsageError) as caught:
        parse_calendar(text)
    assert says in str(caught.value)
    assert text[:20] in str(caught.value)


def test_every_field_has_its_place() -> None:
    assert parse_calendar("Mon,Sat 2026..2028-1/3~2 *:15,45:30.5 UTC") == Calendar(
        weekdays=(0, 5),
        years=(Span(2026, 2028, 1),),
        months=(Span(1, None, 3),),
        days=(Span(2),),
        from_month_end=True,
        hours=(),
        minutes=(Span(15), Span(45)),
        microseconds=(Span(30_500_000),),
        zone="UTC",
    )


def test_a_name_of_a_local_clock_means_that_clock_at_home_and_a_zone_elsewhere() -> None:
    with local_zone("Europe/Helsinki"):
        at_home = parse_calendar("12:00 eet")
        assert (at_home.zone, at_home.dst) == (None, False)
        assert at_home.normalized() == "*-*-* 12:00:00 EET"
        assert parse_calendar("12:00 EEST").dst is True
    with local_zone("America/New_York"):
        assert parse_calendar("12:00 EET").zone == "EET"
        with pytest.raises(UsageError):
            parse_calendar("12:00 EEST")


def test_no_zone_database_is_loaded_unless_a_zone_is_named() -> None:
    script = (
        "import sys\n"
        "from agent.declaration.calendar_parse import parse_calendar\n"
        "parse_calendar('Mon 2-3 12:00 UTC').next_elapse(0)\n"
        "parse_calendar('Mon 2-3').next_elapse(0)\n"
        "sys.exit('zoneinfo' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)
