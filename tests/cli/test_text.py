"""Words and figures for people, and the promise that nothing shown can act on a terminal."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.cli import text


@settings(deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_safe_text_holds_no_character_that_a_terminal_would_obey(value: str) -> None:
    shown = text.safe(value)
    assert not {unicodedata.category(char) for char in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    shown.encode()


@settings(deadline=None)
@given(st.text(alphabet=st.characters(categories=["L", "N", "P", "S"])))
def test_harmless_text_is_shown_as_it_is(value: str) -> None:
    assert text.safe(value) == value


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("\x1b[2J", "\\x1b[2J"),
        ("a\nb\r", "a\\x0ab\\x0d"),
        ("\x9b31m", "\\x9b31m"),
        ("\x7f", "\\x7f"),
        ("user\u202eexe", "user\\u202eexe"),
        ("\ud800", "\\ud800"),
        ("\U000e0001", "\\U000e0001"),
        ("a\tb", "a       b"),
        (7, "7"),
    ],
)
def test_what_a_terminal_would_obey_is_written_as_its_escape(value: object, shown: str) -> None:
    assert text.safe(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "-"),
        (-5, "0.0s"),
        (0.25, "0.2s"),
        (9.99, "9.9s"),
        (10, "10s"),
        (59.9, "59s"),
        (60, "1m"),
        (61, "1m 1s"),
        (3600, "1h"),
        (93_784, "1d 2h"),
        (86_400 + 59, "1d"),
        (400 * 86_400, "400d"),
    ],
)
def test_a_duration_shows_its_two_largest_units(seconds: float | None, shown: str) -> None:
    assert text.duration(seconds) == shown


@settings(deadline=None)
@given(st.floats(min_value=10, max_value=1e12))
def test_a_duration_is_never_rounded_up(seconds: float) -> None:
    units = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
    assert sum(int(part[:-1]) * units[part[-1]] for part in text.duration(seconds).split()) <= seconds


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (None, "-"),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "0.98 KiB"),
        (21.34 * 1024**2, "21.3 MiB"),
        (512 * 1024**2, "512 MiB"),
        (2**63, "8.00 EiB"),
        (2**80, "1048576 EiB"),
    ],
)
def test_a_size_has_three_digits_and_a_binary_unit(count: float | None, shown: str) -> None:
    assert text.size(count) == shown


def test_a_moment_is_local_time_and_one_that_no_calendar_holds_is_shown_as_seconds() -> None:
    assert len(text.moment(1_795_179_067)) == len("2026-11-20 12:51:07")
    assert text.moment(None) == "-"
    assert text.moment(1e18) == "@1000000000000000000"


def test_distances_in_time() -> None:
    assert text.ago(100.0, 161.0) == "1m 1s"
    assert text.ago(None, 161.0) == "-"
    assert text.until(161.0, 100.0) == "in 1m 1s"
    assert text.until(100.0, 100.0) == "now"
    assert text.until(None, 100.0) == "-"


def test_figures_are_pairs_and_as_harmless_as_the_rest() -> None:
    assert text.figures({"received": 12, "rate": 0.5, "last\n": "\x1b"}) == "received=12 rate=0.5 last\\x0a=\\x1b"


def test_what_is_absent_is_a_dash_and_zero_is_not_absent() -> None:
    assert [text.optional(value) for value in (None, "", 0, "x")] == ["-", "-", "0", "x"]
    assert [text.percent(value) for value in (None, 0.0, 99.96)] == ["-", "0.0%", "100.0%"]
    assert [text.yes(value) for value in (True, False)] == ["yes", "no"]


def test_jobs_that_are_not_in_sync_are_named_up_to_a_point() -> None:
    assert text.not_in_sync([]) == []
    assert text.not_in_sync(["a\n"]) == ["timers are not as declared: a\\x0a; run `agentctl timers sync`"]
    (line,) = text.not_in_sync([f"job{number}" for number in range(12)])
    assert line.startswith("timers are not as declared: job0, job1, job2, job3, job4 and 7 more; ")
