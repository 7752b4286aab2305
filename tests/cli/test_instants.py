"""Times as a person types them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cli.instants import LATEST, SECOND, Span, instant, span
from agent.errors import UsageError

NOW = 1_795_183_205 * SECOND + 250_000_000  # 2026-11-20 14:00:05.25 UTC


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def at(seconds: float) -> int:
    return round(seconds * 1000) * 1_000_000


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-11-20T14:00:05.25Z", 1795183205.25),
        ("2026-11-20 14:00:05,25z", 1795183205.25),
        ("2026-11-20T15:00+01:00", 1795183200),
        ("2026-11-20T15:00+0100", 1795183200),
        ("2026-11-20T09:30-04:30", 1795183200),
        ("2026-11-20T15:00", 1795183200),
        (" 2026-11-20 ", 1795129200),
        ("2026-07-20T14:00", 1784548800),
        ("15:00", 1795183200),
        ("00:00:00.5", 1795129200.5),
        ("-10m", 1795182605.25),
        ("+1h30m", 1795188605.25),
        ("-5", 1795183200.25),
        ("@1795183205.25", 1795183205.25),
        ("now", 1795183205.25),
    ],
)
@pytest.mark.usefixtures("berlin")
def test_an_instant_in_each_form(text: str, seconds: float) -> None:
    assert instant(text, NOW) == at(seconds)


@pytest.mark.usefixtures("berlin")
def test_a_local_time_that_comes_twice_is_first_a_beginning_and_then_an_end() -> None:
    assert instant("2026-10-25T02:30", NOW) == at(1792888200)
    assert instant("2026-10-25T02:30", NOW, closing=True) == at(1792891800)


@pytest.mark.usefixtures("berlin")
def test_today_is_the_day_on_the_wall_and_not_in_greenwich() -> None:
    late = at(1795216500)  # 00:15 on the 21st in Berlin
    assert instant("00:10", late) == late - at(300)


@given(st.datetimes(datetime(1970, 1, 1), datetime(2199, 12, 31)), st.integers(0, SECOND - 1))
def test_every_nanosecond_is_read_as_it_is_written(when: datetime, nanoseconds: int) -> None:
    seconds = int(when.replace(microsecond=0, tzinfo=UTC).timestamp())
    assert instant(f"{when:%Y-%m-%dT%H:%M:%S}.{nanoseconds:09}Z", NOW) == seconds * SECOND + nanoseconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "25:00",
        "14",
        "14:60",
        "2026-02-31",
        "2026-11-20T14",
        "2026-11-20T14:00:60Z",
        "2026-11-20T14:00+01:99",
        "2026-11-20T14:00+24:00",
        "2026-11-20T14:00:05.1234567890Z",
        "0000-01-01",
        "2026-11-20T14:00 " + "x" * 60,
        "\u0661\u0664:\u0660\u0660",
        "\x1b[2J",
        "-",
        "-10x",
        "@",
        "1960-01-01",
        "2300-01-01",
        "@999999999999",
    ],
)
def test_what_is_no_time_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        instant(text, NOW)
    assert str(refused.value).isprintable()


@given(st.text(st.sampled_from("0123456789-+:.,TZ@ mhdsnow"), max_size=40))
def test_any_text_is_a_time_in_range_or_refused(text: str) -> None:
    try:
        assert 0 <= instant(text, NOW) <= LATEST
    except UsageError as refused:
        assert "\n" not in str(refused)


def test_longer_ago_than_there_was_time_is_the_epoch() -> None:
    assert instant("-1h", 5 * SECOND) == 0


MINUTE = 60 * SECOND


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, None),
        ({"last": "10m"}, Span(NOW - 10 * MINUTE, NOW)),
        ({"last": "10m", "ahead": "5m"}, Span(NOW - 10 * MINUTE, NOW + 5 * MINUTE)),
        ({"begin": "-10m"}, Span(NOW - 10 * MINUTE, NOW)),
        ({"begin": "-10m", "end": "-5m"}, Span(NOW - 10 * MINUTE, NOW - 5 * MINUTE)),
        ({"begin": "-10m", "ahead": "5m"}, Span(NOW - 10 * MINUTE, NOW - 5 * MINUTE)),
        ({"end": "-5m"}, Span(0, NOW - 5 * MINUTE)),
        ({"ahead": "5m"}, Span(NOW, NOW + 5 * MINUTE)),
        ({"begin": "now", "end": "now"}, Span(NOW, NOW)),
    ],
)
def test_a_span_of_each_combination_of_options(options: dict[str, str], expected: Span | None) -> None:
    assert span(NOW, **options) == expected


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"last": "10m", "begin": "-5m"}, "cannot stand with"),
        ({"last": "10m", "end": "-5m"}, "cannot stand with"),
        ({"end": "-5m", "ahead": "1m"}, "both say when it ends"),
        ({"begin": "now", "end": "-5m"}, "before it begins"),
        ({"last": "soon"}, "is not a duration"),
        ({"last": "-5m"}, "is negative"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, str], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        span(NOW, **options)
