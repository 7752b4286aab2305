from __future__ import annotations

import itertools
import math
import time
from calendar import monthrange
from contextlib import suppress
from datetime import datetime
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from agent.declaration.calendar import Calendar, Span, local_zone_names
from agent.declaration.calendar_parse import parse_calendar
from agent.errors import UsageError
from tests.declaration.calendar_reference import Expressions, local_zone

ZONES = ("UTC", "Europe/Helsinki", "America/New_York", "Australia/Lord_Howe", "Europe/Dublin", "Pacific/Chatham")
END = 7_258_118_400.0


@st.composite
def calendars_at_home(draw: st.DrawFn) -> tuple[str, Calendar]:
    """A local zone, and what a generated expression means there."""
    zone = draw(st.sampled_from(ZONES))
    with local_zone(zone):
        for expression in itertools.islice(Expressions(draw(st.integers(0, 2**32))), 10):
            with suppress(UsageError):
                return zone, parse_calendar(expression)
        return zone, parse_calendar("daily")


def matches(spans: tuple[Span, ...], value: int) -> bool:
    return not spans or any(
        value == span.first
        or (
            (span.step and value > span.first and (span.last is None or value <= span.last))
            and (value - span.first) % span.step == 0
        )
        for span in spans
    )


def elapses_on(calendar: Calendar, moment: float) -> bool:
    """Whether every field agrees with the wall clock at ``moment``."""
    zone = ZoneInfo(calendar.zone) if calendar.zone else None
    there = datetime.fromtimestamp(math.floor(moment), zone)
    length = monthrange(there.year, there.month)[1]
    days = calendar.days
    if calendar.from_month_end:
        turned = []
        for span in days:
            first, last = length + 1 - span.first, None if span.last is None else length + 1 - span.last
            turned.append(Span(first, None, span.step) if last is None else Span(last, first, span.step))
        days = tuple(turned)
    microsecond = round(moment % 1 * 1_000_000)
    return (
        (not calendar.weekdays or there.weekday() in calendar.weekdays)
        and matches(calendar.years, there.year)
        and matches(calendar.months, there.month)
        and matches(days, there.day)
        and matches(calendar.hours, there.hour)
        and matches(calendar.minutes, there.minute)
        and matches(calendar.microseconds, there.second * 1_000_000 + microsecond)
    )


@settings(max_examples=150, deadline=None)
@given(calendars_at_home(), st.floats(1e7, 8e9))
def test_elapses_come_later_and_later_and_each_matches_every_field(at_home: tuple[str, Calendar], base: float) -> None:
    zone, calendar = at_home
    with local_zone(zone):
        moment, found = base, calendar.next_elapse(base)
        for _ in range(5):
            if found is None:
                break
            assert found > moment
            assert 0 <= found < END + 86_400
            assert elapses_on(calendar, found)
            moment, found = found, calendar.next_elapse(found)


@settings(max_examples=150, deadline=None)
@given(calendars_at_home(), st.floats(0, 7e9), st.floats(0, 1))
def test_nothing_elapses_between_a_time_and_its_next_elapse(
    at_home: tuple[str, Calendar], base: float, share: float
) -> None:
    # UTC: where clocks change, systemd's answer can depend on which side it is asked from.
    calendar = msgspec.structs.replace(at_home[1], zone="UTC", dst=None)
    found = calendar.next_elapse(base)
    assume(found is not None)
    assert found is not None
    between = base + (found - base) * share
    assert calendar.next_elapse(between) == found or between >= found


@settings(max_examples=300, deadline=None)
@given(calendars_at_home())
def test_the_normal_form_reads_back_as_the_same_event(at_home: tuple[str, Calendar]) -> None:
    zone, calendar = at_home
    with local_zone(zone):
        text = calendar.normalized()
        assert parse_calendar(text) == calendar
        assert parse_calendar(text).normalized() == text


@given(calendars_at_home())
def test_it_survives_json(at_home: tuple[str, Calendar]) -> None:
    union = msgspec.structs.replace(at_home[1], also=(Calendar(),))
    assert msgspec.json.decode(msgspec.json.encode(union), type=Calendar) == union


def test_an_elapse_is_exact_to_the_microsecond_up_to_the_last_year() -> None:
    calendar = parse_calendar("2199-12-31 23:59:59.999997..59.999999/0.000001 UTC")
    elapses = []
    moment = calendar.next_elapse(0)
    while moment is not None:
        elapses.append(round(moment * 1_000_000))
        moment = calendar.next_elapse(moment)
    assert elapses == [7_258_118_399_999_997, 7_258_118_399_999_998, 7_258_118_399_999_999]


def test_a_time_between_two_microseconds_does_not_hide_an_elapse() -> None:
    calendar = parse_calendar("2026-01-01 00:00:00 UTC")
    assert calendar.next_elapse(math.nextafter(1767225600.0, 0)) == 1767225600.0
    assert calendar.next_elapse(1767225600.0) is None


def test_no_date_means_never_again() -> None:
    assert parse_calendar("2-30").next_elapse(0) is None
    assert parse_calendar("1999-1-1").next_elapse(1e9) is None
    assert parse_calendar("daily").next_elapse(END + 1e6) is None
    assert parse_calendar("daily").next_elapse(math.inf) is None


@pytest.mark.parametrize(
    ("zone", "expression", "base"),
    [
        # All found by holding generated expressions against systemd 252, which says "infinite loop" to each.
        ("Europe/Helsinki", "05/8:12", 1743280456),
        ("America/Santiago", "Wed..Sun 12/8:3", 1915097380),
        ("Australia/Lord_Howe", "Sat 2028-*-15/6", 1838282251),
        ("Pacific/Chatham", "02,08/5,10/8:53:05", 686752244),
    ],
)
def test_a_change_of_the_clock_that_systemd_gives_up_on_does_not_end_a_job(
    zone: str, expression: str, base: int
) -> None:
    with local_zone(zone):
        calendar = parse_calendar(expression)
        found = calendar.next_elapse(base)
        assert found is not None
        assert base < found
        assert elapses_on(calendar, found)


def test_an_hour_that_comes_twice_is_used_once() -> None:
    with local_zone("Europe/Helsinki"):
        calendar = parse_calendar("*-*-* 3:30")
        first = calendar.next_elapse(1792875600)
        assert first == 1792888200  # 03:30 EEST
        assert calendar.next_elapse(first) == 1792978200  # 03:30 EET, the day after


def test_an_hour_that_does_not_exist_is_passed_over() -> None:
    with local_zone("Europe/Helsinki"):
        assert parse_calendar("*-*-* 3:30").next_elapse(1774735200) == 1774830600  # the day after


def test_a_union_elapses_with_each_of_its_members() -> None:
    union = msgspec.structs.replace(parse_calendar("*-*-13 UTC"), also=(parse_calendar("Fri UTC"),))
    moment: float | None = 1772323200.0  # Sun 2026-03-01
    seen = []
    for _ in range(4):
        assert moment is not None
        moment = union.next_elapse(moment)
        seen.append(moment and time.gmtime(moment).tm_mday)
    assert seen == [6, 13, 20, 27]
    assert union.normalized() == "*-*-13 00:00:00 UTC; Fri *-*-* 00:00:00 UTC"


def test_the_longest_lists_are_searched_in_bounded_time() -> None:
    long = ",".join(str(number % 60) + ".5" for number in range(241))
    calendar = parse_calendar(f"Mon *-02-30 *:*:{long} America/New_York")
    begin = time.process_time()
    assert calendar.next_elapse(0) is None
    assert time.process_time() - begin < 5


@pytest.mark.parametrize(
    ("zone", "names"),
    [
        ("Europe/Helsinki", ("EET", "EEST")),
        ("America/New_York", ("EST", "EDT")),
        ("Australia/Lord_Howe", ("+1030", "+11")),
        ("Europe/Dublin", ("IST", "GMT")),
        ("UTC", ("UTC", "UTC")),
    ],
)
def test_the_names_of_the_local_clocks(zone: str, names: tuple[str, str]) -> None:
    with local_zone(zone):
        assert local_zone_names() == names
