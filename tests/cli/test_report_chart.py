"""Axes of charts: round, from nothing up to the most, and in the clock of the reader."""

from __future__ import annotations

import re
from datetime import UTC, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cli.report_chart import count_label, rates, round_ticks, size_label, time_ticks

NOON = 1_795_183_200.0


@given(st.floats(0.001, 1e15), st.sampled_from([1000, 1024]))
def test_ticks_are_round_and_few_and_reach_the_most(most: float, base: int) -> None:
    ticks = round_ticks(most, base)
    assert ticks[0] == 0 and ticks[-1] >= most
    assert 2 <= len(ticks) <= 6
    step = ticks[1]
    while step >= base:
        step /= base
    assert f"{step:.3e}"[:4] in {"1.00", "2.00", "5.00"}
    assert ticks == sorted(ticks)


def test_labels_are_short() -> None:
    assert [size_label(value) for value in (0, 512, 1536, 5 * 1024**3)] == ["0 B", "512 B", "1.5 KiB", "5 GiB"]
    assert [count_label(value) for value in (0, 0.5, 2000, 2.5e6)] == ["0", "0.5", "2 k", "2.5 M"]


@given(st.floats(0, 4e9), st.floats(0.01, 3e8), st.integers(-12, 14))
def test_times_are_within_and_few(begin: float, length: float, hours: int) -> None:
    ticks = time_ticks(begin, begin + length, timezone(timedelta(hours=hours)))
    assert len(ticks) <= 8
    assert all(begin - 1e-3 <= instant <= begin + length for instant, _ in ticks)


@pytest.mark.parametrize(
    ("length", "hours", "words"),
    [
        (3600, 0, ["14:00", "14:10", "14:20", "14:30", "14:40", "14:50", "15:00"]),
        (3600, 5.5, ["19:30", "19:40", "19:50", "20:00", "20:10", "20:20", "20:30"]),
        (86_400, 0, ["18:00", "21 Nov", "06:00", "12:00"]),
        (60, 0, ["14:00:00", "14:00:10", "14:00:20", "14:00:30", "14:00:40", "14:00:50", "14:01"]),
    ],
)
def test_times_are_round_on_the_readers_clock(length: float, hours: float, words: list[str]) -> None:
    found = [word for _, word in time_ticks(NOON, NOON + length, timezone(timedelta(hours=hours)), count=6)]
    assert [word.removesuffix(":00") if word == "14:01:00" else word for word in found] == words


def test_a_chart_is_drawn_to_scale_and_marks_what_was_lost_and_what_is_not_there() -> None:
    drawn = rates([0, 0, 40, 20], [0, 0, 3, 0], begin=NOON, width=10, since=NOON + 20, top=4, binary=False,
                  kind="packets", title="packets", zone=UTC)  # fmt: skip
    points = re.search(r'polyline class="line packets" points="([^"]+)"', drawn)
    assert points is not None
    heights = [float(point.split(",")[1]) for point in points[1].split()][::2]
    assert heights[0] == heights[1] == 130 and heights[2] == 8 and heights[3] == 69
    assert drawn.count('class="lost"') == 1 and "3 lost" in drawn
    assert 'class="void"' in drawn and "nothing stored" in drawn
