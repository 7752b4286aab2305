"""Durations, sizes and percentages."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.declaration.units import format_duration, format_size, parse_duration, parse_percent, parse_size
from agent.errors import UsageError

SUCH_AS = 'such as "512M" or "20GiB"'
TEN_YEARS = 3650 * 86_400


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10s", 10),
        ("5m", 300),
        ("5min", 300),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("500ms", 0.5),
        ("2d", 172_800),
        ("1w", 604_800),
        ("1.5h", 5400),
        ("0.1s", 0.1),
        ("250us", 0.00025),
        ("1m1ms", 60.001),
        ("30sec", 30),
        (" 7 s ", 7),
        ("13", 13),
        ("1.5", 1.5),
        (12, 12),
        (0.25, 0.25),
        (0, 0),
        ("0s", 0),
    ],
)
def test_a_duration_is_seconds(text: str | int | float, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", '"" is not a duration; write a number with a unit, such as "30s", "1h30m" or "500ms"'),
        ("abc", '"abc" is not a duration; write a number with a unit, such as "30s", "1h30m" or "500ms"'),
        ("10x", '"10x" is not a duration; write a number with a unit, such as "30s", "1h30m" or "500ms"'),
        ("1month", '"1month" is not a duration; write a number with a unit, such as "30s", "1h30m" or "500ms"'),
        ("1m 30", '"1m 30" is not a duration; write a number with a unit, such as "30s", "1h30m" or "500ms"'),
        ("30m1h", '"30m1h" is not a duration; units go from large to small, each once: 1d12h, 1h30m'),
        ("1s1s", '"1s1s" is not a duration; units go from large to small, each once: 1d12h, 1h30m'),
        ("-5s", '"-5s" is negative; write a number with a unit, such as "30s", "1h30m" or "500ms"'),
        (-1, '-1 is negative; write a number with a unit, such as "30s", "1h30m" or "500ms"'),
        (-math.inf, '-inf is negative; write a number with a unit, such as "30s", "1h30m" or "500ms"'),
        (math.nan, 'nan is not a duration; write a number with a unit, such as "30s", "1h30m" or "500ms"'),
        (math.inf, "inf is longer than ten years"),
        (10**400, "a number of more than 60 digits is longer than ten years"),
        ("11000d", '"11000d" is longer than ten years'),
        ("\u0661s", '"\u0661s" is not a duration; write a number with a unit, such as "30s", "1h30m" or "500ms"'),
    ],
)
def test_what_is_no_duration_is_refused_with_the_way_to_write_one(value: str | int | float, message: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_duration(value)
    assert str(error.value) == message


@given(st.one_of(st.integers(0, TEN_YEARS), st.floats(0, TEN_YEARS)))
def test_a_formatted_duration_reads_back_the_same(value: int | float) -> None:
    seconds = parse_duration(value)
    assert parse_duration(format_duration(seconds)) == seconds
    assert parse_duration(seconds) == seconds
    assert abs(seconds - value) <= 1e-6


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (90, "1m30s"), (0.5, "500ms"), (172_800, "2d"), (604_800, "7d"), (1e-6, "1us")]
)
def test_a_duration_is_shown_in_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512M", 512 * 1024**2),
        ("20GiB", 20 * 1024**3),
        ("1k", 1024),
        ("1KB", 1000),
        ("2 mb", 2_000_000),
        ("1TiB", 1024**4),
        ("1.5G", 1536 * 1024**2),
        ("0.1K", 102),
        ("100B", 100),
        ("101", 101),
        (4096, 4096),
        (2**63 - 1, 2**63 - 1),
    ],
)
def test_a_size_is_bytes(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", '"" is not a size; write a number of bytes or a number with a unit, such as "512M" or "20GiB"'),
        ("10XB", '"10XB" is not a size; write a number of bytes or a number with a unit, such as "512M" or "20GiB"'),
        ("-1M", '"-1M" is not a size; write a number of bytes or a number with a unit, such as "512M" or "20GiB"'),
        ("nan", '"nan" is not a size; write a number of bytes or a number with a unit, such as "512M" or "20GiB"'),
        (-1, '-1 is negative; write a number of bytes or a number with a unit, such as "512M" or "20GiB"'),
        (2**63, "9223372036854775808 is more than a file can hold (8 EiB)"),
        ("9" * 64 + "T", f'"{"9" * 59}…" is not a size; write a number of bytes or a number with a unit, {SUCH_AS}'),
        ("9" * 60, f'"{"9" * 60}" is more than a file can hold (8 EiB)'),
    ],
)
def test_what_is_no_size_is_refused_with_the_way_to_write_one(value: str | int, message: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_size(value)
    assert str(error.value) == message


@given(st.integers(0, 2**63 - 1))
def test_a_formatted_size_reads_back_the_same(size: int) -> None:
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize(
    ("size", "text"), [(512 * 1024**2, "512MiB"), (1024, "1KiB"), (1000, "1000B"), (0, "0B"), (1024**4, "1TiB")]
)
def test_a_size_is_shown_in_the_largest_unit_that_fits(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(("text", "fraction"), [("50%", 0.5), ("100 %", 1.0), ("0.5%", 0.005)])
def test_a_percentage_is_a_fraction(text: str, fraction: float) -> None:
    assert parse_percent(text) == fraction


@pytest.mark.parametrize("text", ["0%", "101%", "-1%", "50", "%", "nan%", "9" * 70 + "%"])
def test_a_percentage_is_above_zero_and_at_most_a_hundred(text: str) -> None:
    with pytest.raises(UsageError, match="is not a percentage; write a number above 0 and up to 100"):
        parse_percent(text)


@given(st.text(max_size=80))
def test_any_text_is_a_value_or_a_clear_refusal(text: str) -> None:
    for parse in (parse_duration, parse_size, parse_percent):
        try:
            assert parse(text) >= 0
        except UsageError as error:
            assert str(error).isprintable()
