from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.declaration.calendar_parse import parse_calendar
from agent.declaration.calendar_text import Elapse, describe, format_relative, parse_base_time, render
from agent.errors import UsageError
from tests.declaration.calendar_reference import analyze, local_zone


def without_clock(text: str) -> str:
    """``From now`` depends on when each program looked at the clock."""
    return re.sub(r"(?m)^( *From now: ).*( ago| left)$", r"\1...\2", text).rstrip("\n")


@pytest.mark.parametrize("zone", ["UTC", "Europe/Helsinki", "America/New_York", "Europe/London"])
@pytest.mark.parametrize(
    "expression", ["daily", "*-*-* 00:00:00", "Mon..Fri 2:30 America/New_York", "2-30", "*:*:0/0.4", "2030-1-1", "@1e"]
)
@pytest.mark.parametrize("iterations", [1, 12])
def test_the_text_is_that_of_systemd(zone: str, expression: str, iterations: int) -> None:
    theirs = analyze(zone, "@1774735200", [expression], iterations)
    with local_zone(zone):
        if theirs.returncode != 0:
            with pytest.raises(UsageError):
                parse_calendar(expression)
            return
        calendar = parse_calendar(expression)
        ours = render(expression, calendar, describe(calendar, 1774735200, iterations), time.time())
    assert without_clock(ours) == without_clock(theirs.stdout)


def test_elapses_are_numbered_and_end_with_the_event() -> None:
    assert describe(parse_calendar("2030..2031-1-1 UTC"), 0, 5) == [Elapse(1, 1893456000.0), Elapse(2, 1924992000.0)]
    assert describe(parse_calendar("daily"), 0, 0) == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "now"),
        (0.0000014, "1us left"),
        (0.25, "250ms left"),
        (-0.25, "250ms ago"),
        (59, "59s left"),
        (61, "1min 1s left"),
        (301, "5min left"),
        (3600, "1h 0min left"),
        (-7261, "2h 1min ago"),
        (6 * 3600 + 60, "6h left"),
        (25 * 3600, "1 day 1h left"),
        (48 * 3600, "2 days left"),
        (7 * 86_400, "1 week 0 days left"),
        (-15 * 86_400, "2 weeks 1 day ago"),
        (40 * 86_400, "1 month 9 days left"),
        (2 * 31_557_600 + 2_629_800, "2 years 1 month left"),
    ],
)
def test_how_far_away_is_said_in_two_units(seconds: float, text: str) -> None:
    assert format_relative(seconds, 0) == text


@pytest.mark.parametrize("zone", ["UTC", "Europe/Helsinki", "America/New_York", "Australia/Lord_Howe"])
@pytest.mark.parametrize(
    "text",
    [
        *("@0", "@1700000000", "@1700000000.5", "2026-11-20", "2026-11-20 12:00", "2026-11-20 12:00:00"),
        *("2026-11-20 12:00:00.25", "2026-11-20 UTC", "2026-11-20 12:00 UTC", "2026-11-20 12:00:00 UTC", "2024-2-29"),
        *("2026-03-29 03:30", "2026-03-08 02:30", "2026-10-04 02:15", "1970-01-02", "2199-12-31", "2026-1-2 3:04"),
        *("2026-13-01", "2026-00-01", "2026-11-20 24:00", "2026-11-20 12:60", "noon", "", "2026", "@", "@x", "2026-11"),
        *("2026-11-20 12", "12", "20.11.2026", "1969-12-30", "@-1", "UTC", "2026-11-20 12:00 UTC UTC"),
    ],
)
def test_a_base_time_means_what_it_means_to_systemd(zone: str, text: str) -> None:
    theirs = analyze(zone, text, ["*:*:* UTC"], 1)
    with local_zone(zone):
        if theirs.returncode != 0:
            with pytest.raises(UsageError):
                parse_base_time(text)
            return
        ours = parse_calendar("*:*:* UTC")
        expected = render("*:*:* UTC", ours, describe(ours, parse_base_time(text), 1), time.time())
    assert without_clock(expected) == without_clock(theirs.stdout)


def test_words_refer_to_the_given_now() -> None:
    with local_zone("Europe/Helsinki"):
        now = 1792918800.5  # Sun 2026-10-25 11:00:00.5 EET, a day of 25 hours
        assert parse_base_time("now", now) == now
        assert parse_base_time("today", now) == 1792875600
        assert parse_base_time("tomorrow", now) == 1792875600 + 25 * 3600
        assert parse_base_time("Yesterday", now) == 1792875600 - 24 * 3600
        assert parse_base_time("12:30", now) == 1792918800 + 90 * 60
        assert parse_base_time("today utc", now) == 1792886400
        assert parse_base_time(" 12:30:15 UTC ", now) == 1792886400 + 12 * 3600 + 30 * 60 + 15


@given(st.text(max_size=30) | st.text(alphabet="0123456789-: @.UTC", max_size=25))
def test_any_text_is_a_time_or_a_usage_error(text: str) -> None:
    try:
        assert parse_base_time(text, 1e9) >= 0
    except UsageError as error:
        assert "\n" not in str(error)
