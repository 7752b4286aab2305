"""What is said of the latest packet of a segment, however the clock was set meanwhile."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from agent.workers.capture.steps import SLACK, Steps

SECOND = 1_000_000_000
PART = Path("part")


class Clocks:
    def __init__(self) -> None:
        self.steady = 5000.0
        self.ahead = 1_795_183_200 * SECOND

    def wall(self) -> int:
        return self.ahead + int(self.steady * 1e9)


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(-(10**6), 10**6), st.booleans()), max_size=20))
def test_no_packet_is_later_whenever_the_clock_was_set(course: list[tuple[float, int, bool]]) -> None:
    clocks = Clocks()
    steps = Steps(clocks.wall, lambda: clocks.steady)
    steps.opened(PART)
    latest = 0
    for passed, step, packet in course:
        clocks.steady += passed
        latest = max(latest, clocks.wall() if packet else 0)
        clocks.ahead += step * SECOND
        steps.opened(PART)  # within a second, in truth
    end = steps.closed(PART)
    assert end >= latest
    assert end >= clocks.wall()
    if all(step >= 0 for _, step, _ in course):
        assert end == clocks.wall()


def test_it_is_noticed_once_that_a_clock_was_set_back_and_not_that_it_is_corrected() -> None:
    clocks = Clocks()
    steps = Steps(clocks.wall, lambda: clocks.steady)
    told = [steps.back()]
    for step in (0, 3600 * SECOND, -SLACK // 2, -2 * SLACK, 0):
        clocks.steady += 1
        clocks.ahead += step
        told.append(steps.back())
    assert told == [False, False, False, False, True, False]
