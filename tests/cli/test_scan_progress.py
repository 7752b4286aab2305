from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cli.scan_progress import bar, line, share, words

HALF = {"hosts_done": 1070, "hosts_total": 2560, "ports_open": 12, "percent": 41, "rate": 1830.4, "loss": 0.004}
NAMES = ["hosts_done", "hosts_total", "ports_open", "percent", "rate", "loss", "seconds_left", "held", "phase"]
ANY = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)


def test_what_there_is_to_tell_is_told() -> None:
    told = "1,070 of 2,560 hosts, 12 ports open, 1,830/s, 0.4% lost, 2m 10s left"
    assert words({**HALF, "seconds_left": 130, "held": ""}) == told
    assert line({**HALF, "seconds_left": 130}) == f"41%, {told}"
    assert words({"hosts_done": 0, "hosts_total": 1, "ports_open": 1}) == "0 of 1 host, 1 port open"
    assert words({}) == ""
    assert (
        words({"phase": "ports", "hosts_done": 1, "hosts_total": 1, "rate": 0.0, "loss": 0.0}) == "ports, 1 of 1 host"
    )


def test_what_is_held_has_no_rate_and_no_time_left() -> None:
    held = {**HALF, "seconds_left": 130, "held": "paused by hand"}
    assert words(held) == "1,070 of 2,560 hosts, 12 ports open, paused by hand"


def test_the_bar_is_as_full_as_it_is_done_and_fits() -> None:
    assert bar({**HALF, "percent": 50}, 200).startswith("[############............]  50%  1,070 of")
    assert bar({"percent": 100}, 200) == "[########################] 100%  "
    assert len(bar(HALF, 40)) == 39
    assert bar(HALF, 0) == ""


@pytest.mark.parametrize("percent", [float("nan"), -1, 1e300, "41", None, True])
def test_nonsense_is_nothing_done(percent: object) -> None:
    assert share({"percent": percent}) == 0.0


@given(st.dictionaries(st.sampled_from(NAMES), ANY), st.integers(0, 300))
def test_whatever_a_worker_tells_is_one_harmless_line(figures: dict[str, object], columns: int) -> None:
    assert bar(figures, columns).isprintable()
    assert len(bar(figures, columns)) <= max(0, columns - 1)
    assert line(figures).isprintable()
    assert 0.0 <= share(figures) <= 1.0
