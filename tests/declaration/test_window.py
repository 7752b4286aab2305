"""Windows of time against a clock that is looked at minute by minute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.declaration.wall_clock import offsets_of
from agent.declaration.window import DAYS, Window, is_open, next_change, opens, parse_window
from agent.errors import UsageError

ZONES = ["Europe/Helsinki", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "UTC", "Africa/Casablanca"]
# Around the changes of these clocks in 2026, and anywhere else in that year.
YEAR = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp())
CHANGES = [
    "2026-03-29T01:00",
    "2026-10-25T01:00",
    "2026-03-08T07:00",
    "2026-11-01T06:00",
    "2026-04-04T15:00",
    "2026-02-15T02:00",
]
MOMENTS = st.one_of(
    st.integers(YEAR, YEAR + 365 * 86_400),
    st.tuples(st.sampled_from(CHANGES), st.integers(-100_000, 100_000)).map(
        lambda one: int(datetime.fromisoformat(f"{one[0]}+00:00").timestamp()) + one[1]
    ),
)
WINDOWS = st.builds(
    Window,
    st.frozensets(st.integers(0, 6), min_size=1),
    st.integers(0, 1439) | st.sampled_from([0, 60, 120, 150, 180]),
    st.integers(0, 1440) | st.sampled_from([0, 60, 120, 150, 180, 1440]),
).filter(lambda window: window.start != window.end)


def oracle(windows: Sequence[Window], moment: int, zone: ZoneInfo) -> bool:
    """What the clock on the wall shows, compared as text: each window as the one or two stretches of days it covers."""
    wall = datetime.fromtimestamp(moment, zone)
    today, yesterday, clock = wall.weekday(), (wall.weekday() + 6) % 7, f"{wall:%H:%M}"
    for window in windows:
        start, end = (f"{minute // 60:02}:{minute % 60:02}" for minute in (window.start, window.end))
        if start < end and today in window.days and start <= clock < end:
            return True
        if start > end and ((today in window.days and clock >= start) or (yesterday in window.days and clock < end)):
            return True
    return False


@given(st.lists(WINDOWS, min_size=1, max_size=3), MOMENTS, st.sampled_from(ZONES))
def test_a_window_is_open_when_the_clock_on_the_wall_says_so(windows: list[Window], moment: int, zone: str) -> None:
    assert is_open(windows, moment, offsets_of(zone)) == oracle(windows, moment, ZoneInfo(zone))


@settings(max_examples=40, deadline=None)
@given(st.lists(WINDOWS, min_size=1, max_size=3), MOMENTS, st.sampled_from(ZONES))
def test_the_next_change_is_the_first_minute_that_differs(windows: list[Window], moment: int, zone: str) -> None:
    there = ZoneInfo(zone)
    before = oracle(windows, moment, there)
    found = next_change(windows, moment, offsets_of(zone))
    minutes = range(moment - moment % 60 + 60, moment + 8 * 86_400, 60)
    first = next((minute for minute in minutes if oracle(windows, minute, there) != before), None)
    if first is None:
        assert found is None or found > moment + 7 * 86_400
    else:
        assert found == first


@given(WINDOWS)
def test_a_window_reads_back_as_it_is_written(window: Window) -> None:
    assert parse_window(str(window)) == window


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("22:00-06:00", "22:00-06:00"),
        ("Mon..Fri 20:00-06:00", "Mon..Fri 20:00-06:00"),
        ("Sat,Sun 00:00-24:00", "Sat,Sun 00:00-24:00"),
        ("sunday,monday 9:05 - 10:00", "Mon,Sun 09:05-10:00"),
        ("Fri..Mon 00:00-01:00", "Mon,Fri..Sun 00:00-01:00"),
        ("Mon..Sun 01:00-02:00", "01:00-02:00"),
        (" 00:00-24:00 ", "00:00-24:00"),
    ],
)
def test_a_window_has_one_spelling(text: str, normal: str) -> None:
    assert str(parse_window(text)) == normal


HINT = 'write one such as "22:00-06:00" or "Mon..Fri 20:00-06:00"'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nights", f'"nights" is not a window of time; {HINT}'),
        ("22-06", f'"22-06" is not a window of time; {HINT}'),
        ("22:00", f'"22:00" is not a window of time; {HINT}'),
        ("Mon 22:00-06:00 UTC", f'"Mon 22:00-06:00 UTC" is not a window of time; {HINT}'),
        ("25:00-06:00", '"25:00-06:00" holds 25:00, which no clock shows; hours go from 00:00 to 24:00'),
        ("22:60-06:00", '"22:60-06:00" holds 22:60, which no clock shows; hours go from 00:00 to 24:00'),
        ("22:00-24:01", '"22:00-24:01" holds 24:01, which no clock shows; hours go from 00:00 to 24:00'),
        ("24:00-06:00", '"24:00-06:00" begins at 24:00; write 00:00 of the next day'),
        ("06:00-06:00", '"06:00-06:00" is empty; write 00:00-24:00 for the whole day'),
        ("Mox 22:00-06:00", '"Mox 22:00-06:00" names no day with "Mox"; days are Mon, Tue, Wed, Thu, Fri, Sat, Sun'),
        ("Mon.. 22:00-06:00", '"Mon.. 22:00-06:00" names no day with ""; days are Mon, Tue, Wed, Thu, Fri, Sat, Sun'),
        (
            "Monkey 1:00-2:00",
            '"Monkey 1:00-2:00" names no day with "Monkey"; days are Mon, Tue, Wed, Thu, Fri, Sat, Sun',
        ),
    ],
)
def test_what_is_no_window_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_window(text)
    assert str(error.value) == message


@given(st.text(max_size=40))
def test_any_text_is_a_window_or_is_refused_in_one_line(text: str) -> None:
    try:
        assert parse_window(str(parse_window(text))) == parse_window(text)
    except UsageError as error:
        assert str(error).isprintable()


def at(text: str, zone: str = "Europe/Helsinki") -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp())


def helsinki() -> Callable[[int], tuple[int, bool]]:
    return offsets_of("Europe/Helsinki")


def test_a_window_over_midnight_belongs_to_the_day_on_which_it_begins() -> None:
    window = [parse_window("Fri 22:00-06:00")]
    assert is_open(window, at("2026-11-28T05:59"), helsinki())  # Saturday morning
    assert not is_open(window, at("2026-11-27T05:59"), helsinki())  # Friday morning
    assert next_change(window, at("2026-11-27T12:00"), helsinki()) == at("2026-11-27T22:00")
    assert next_change(window, at("2026-11-27T23:00"), helsinki()) == at("2026-11-28T06:00")


def test_an_hour_that_comes_twice_is_open_twice_and_one_left_out_never() -> None:
    window = [parse_window("03:30-03:45")]
    autumn = at("2026-10-25T02:00")
    first = next_change(window, autumn, helsinki())
    assert first is not None
    closed = next_change(window, first, helsinki())
    assert closed == first + 900
    assert next_change(window, closed, helsinki()) == first + 3600
    spring = at("2026-03-29T02:00")
    assert next_change(window, spring, helsinki()) == at("2026-03-30T03:30")


def test_the_clock_may_open_or_close_a_window_by_being_set() -> None:
    left_out = at("2026-03-29T04:00")  # 02:59:59 is followed by 04:00:00
    assert next_change([parse_window("02:00-03:30")], left_out - 60, helsinki()) == left_out
    assert next_change([parse_window("03:30-05:00")], left_out - 60, helsinki()) == left_out


def test_what_is_always_open_never_changes() -> None:
    for windows in ([], [parse_window("00:00-24:00")], [parse_window("00:00-12:00"), parse_window("12:00-00:00")]):
        assert is_open(windows, YEAR, helsinki())
        assert next_change(windows, YEAR, helsinki()) is None
        assert opens(windows, YEAR, helsinki()) is None


def test_a_closed_window_says_when_it_opens() -> None:
    windows = [parse_window(f"{DAYS[0]} 10:00-11:00")]
    monday = at("2026-11-30T10:00")
    assert opens(windows, monday - 5 * 86_400, helsinki()) == monday
    assert opens(windows, monday, helsinki()) is None
