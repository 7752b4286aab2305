from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.declaration.wall_clock import WallClock, offsets_of
from agent.errors import UsageError
from tests.declaration.calendar_reference import local_zone

ZONES = ("UTC", "Europe/Helsinki", "America/New_York", "Australia/Lord_Howe", "Europe/Dublin", "Asia/Kathmandu")
LAST = 7_258_118_399


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(ZONES), st.integers(0, LAST))
def test_a_reading_leads_back_to_its_time(zone: str, moment: int) -> None:
    clock = WallClock(offsets_of(zone), moment)
    assert clock.resolve(clock.read(moment), None) == moment


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(ZONES),
    st.integers(0, LAST),
    st.integers(-2, 15),
    st.integers(-5, 40),
    st.integers(-30, 80),
    st.sampled_from((None, False, True)),
)
def test_it_resolves_what_the_c_library_resolves(
    zone: str, base: int, month: int, day: int, hour: int, dst: bool | None
) -> None:
    """Python hands ``mktime`` to the C library, whose memory is set here by a conversion close by."""
    with local_zone(zone):
        start = time.localtime(base)
        time.mktime(start)
        clock = WallClock(offsets_of(None), base)
        clock.resolve(start[:6], start.tm_isdst > 0)
        year = start.tm_year + 1
        theirs = time.mktime((year, month, day, hour, 30, 15, 0, 0, -1 if dst is None else int(dst)))
        assert clock.resolve((year, month, day, hour, 30, 15), dst) == theirs


@pytest.mark.parametrize("zone", ZONES)
def test_a_named_zone_and_the_same_zone_at_home_agree(zone: str) -> None:
    with local_zone(zone):
        for moment in range(0, LAST, 86_400 * 97):
            assert offsets_of(zone)(moment) == offsets_of(None)(moment)


def test_a_reading_that_does_not_exist_is_taken_forward_by_the_gap() -> None:
    clock = WallClock(offsets_of("Europe/Helsinki"), 1774735200)
    moment = clock.resolve((2026, 3, 29, 3, 30, 0), None)
    assert moment is not None
    assert clock.read(moment) == [2026, 3, 29, 4, 30, 0]
    assert clock.is_dst(moment)
    assert clock.weekday(moment) == 6


@pytest.mark.parametrize(("came_from", "expected"), [(1792875600, 1792888200), (1792893600, 1792891800)])
def test_of_two_times_with_one_reading_the_last_offset_decides(came_from: int, expected: int) -> None:
    clock = WallClock(offsets_of("Europe/Helsinki"), came_from)
    assert clock.resolve((2026, 10, 25, 3, 30, 0), None) == expected


@pytest.mark.parametrize("zone", ["Nowhere/City", "", "Europe", "../etc/passwd", "/etc/localtime", "a" * 300, "x\0y"])
def test_an_unknown_zone_is_a_usage_error(zone: str) -> None:
    with pytest.raises(UsageError, match="unknown time zone"):
        offsets_of(zone)
