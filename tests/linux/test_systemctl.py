"""systemctl's answers, as systemd 252 and later print them."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import RuntimeFailure
from agent.linux import systemctl
from agent.linux.systemctl import parse_show, parse_timespan, parse_timestamp

SPANS = [0, 1, 999, 1000, 1_000_000, 1_500_000, 59_999_999, 60_000_000, 3_661_000_001, 86_400_000_000, 10**13, 10**15]


def systemds_words(microseconds: list[int]) -> list[str]:
    """How systemd prints time spans."""
    done = subprocess.run(
        ["systemd-analyze", "timespan", *(f"{value}us" for value in microseconds)],
        capture_output=True,
        text=True,
        check=True,
        env={"LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"]},
    )
    return re.findall(r"^ *Human: (.*)$", done.stdout, re.MULTILINE)


def test_a_span_is_read_as_systemd_prints_it() -> None:
    words = systemds_words(SPANS)
    assert len(words) == len(SPANS)
    for value, text in zip(SPANS, words, strict=True):
        assert parse_timespan(text) == pytest.approx(value / 1e6, abs=2e-6), text


@given(st.lists(st.integers(0, 2**53), min_size=1, max_size=20))
def test_any_span_is(values: list[int]) -> None:
    for value, text in zip(values, systemds_words(values), strict=True):
        assert parse_timespan(text) == pytest.approx(value / 1e6, rel=1e-12, abs=2e-6), text


@pytest.mark.parametrize("text", ["", "infinity", "n/a", "5 parsecs", "h", "-1s", "1h 2", "[not set]"])
def test_what_is_no_span_is_none(text: str) -> None:
    assert parse_timespan(text) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("@1795726610", 1_795_726_610.0),
        ("@1795726610.250000", 1_795_726_610.25),
        ("Thu 2026-11-26 20:56:55 UTC", 1_795_726_615.0),
        ("2026-11-26 20:56:55 UTC", 1_795_726_615.0),
        ("Thu 2026-11-26 20:56:55.500000 UTC", 1_795_726_615.5),
        ("", None),
        ("0", None),
        ("@0", None),
        ("n/a", None),
        ("infinity", None),
        ("Thu 2026-13-26 20:56:55 UTC", None),
        ("Thu 2026-11-26 20:56:55 EET", None),
    ],
)
def test_a_time_stamp_is_read_in_each_of_its_forms(text: str, seconds: float | None) -> None:
    assert parse_timestamp(text) == seconds


@given(st.text(max_size=40))
def test_no_text_is_more_than_a_time_or_none(text: str) -> None:
    for found in (parse_timestamp(text), parse_timespan(text)):
        assert found is None or found >= 0


def test_the_blocks_of_an_answer_are_those_of_the_units_asked_about() -> None:
    text = "Id=a.timer\nStatusText=x=y\n\nId=b.service\nNextElapseUSecRealtime=\n"
    first, second = parse_show(text, 2)
    assert first == {"Id": "a.timer", "StatusText": "x=y"}
    assert second == {"Id": "b.service", "NextElapseUSecRealtime": ""}
    for count in (1, 3):
        with pytest.raises(RuntimeFailure, match=f"2 units in its answer about {count}"):
            parse_show(text, count)


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A systemctl of the test's own: this machine's may be in charge of it."""

    def write(script: str) -> None:
        program = tmp_path / "systemctl"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SYSTEMD_LOG_LEVEL", "debug")
    monkeypatch.setenv("LC_ALL", "fi_FI.UTF-8")
    return write


def test_what_systemd_refuses_is_told_in_its_first_line(stand_in: Callable[[str], None]) -> None:
    stand_in("echo; echo 'Failed to connect to bus: Host is down' >&2; echo more >&2; exit 1")
    with pytest.raises(RuntimeFailure) as error:
        systemctl.show(["a.timer"], ["Id"])
    assert str(error.value) == "systemctl show: Failed to connect to bus: Host is down"
    stand_in("exit 5")
    with pytest.raises(RuntimeFailure, match=r"^systemctl daemon-reload: exited 5$"):
        systemctl.call("daemon-reload")


def test_it_is_asked_in_utc_without_a_locale_and_in_bearable_portions(stand_in: Callable[[str], None]) -> None:
    stand_in("""
[ "$TZ $LC_ALL $SYSTEMD_LOG_LEVEL" = "UTC C.UTF-8 " ] || exit 1
[ $# -le 110 ] || exit 2
while [ "$1" != -- ]; do shift; done
shift
for unit; do [ "$unit" = "$first" ] || [ -z "$first" ] || echo; first=-; echo "Id=$unit"; done
""")
    units = [f"agent-job@x{number}.timer" for number in range(250)]
    assert systemctl.show(units, ["Id"]) == {name: {"Id": name} for name in units}


def test_where_there_is_no_systemctl_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(RuntimeFailure, match="cannot start systemctl: no such program"):
        systemctl.call("daemon-reload")
