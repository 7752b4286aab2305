"""How far a scan says that it is."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.workers.scan.advance import Progress
from agent.workers.scan.figures import Figures
from agent.workers.scan.identify import Progress as Learned


def swept(fraction: float) -> Progress:
    return Progress(fraction, 90, 3, 100.0, 0.0, 7.0, 100)


class Scan:
    """A scan of chunks of ten addresses each, of which some have open ports."""

    def __init__(self, chunks: list[int]) -> None:
        self.now = 0.0
        self.figures = Figures(services=True, clock=lambda: self.now)
        self.chunks, self.total = list(chunks), 10 * len(chunks)
        self.swept = self.identified = 0
        self.seen: list[tuple[int, int]] = []

    def look(self) -> tuple[int, int]:
        self.seen.append((self.figures.done(self.swept), self.figures.percent(self.swept, self.total)))
        return self.seen[-1]

    def left(self) -> float:
        return self.figures.seconds_left(self.swept, self.total)

    def sweep(self) -> None:
        self.figures.begin(10)
        for fraction in (0.0, 0.5, 1.0):
            self.figures.sweeping(swept(fraction), 0, 1)
            self.look()
        self.swept += 10
        self.figures.end()
        self.figures.waiting += self.chunks.pop()
        if not self.chunks:
            self.figures.all_swept()
        self.look()

    def identify(self, partly: float) -> None:
        if self.figures.waiting:
            self.learn(partly)
            self.identified += 1
            self.figures.waiting -= 1
        self.learn(0.0)

    def learn(self, partly: float) -> None:
        self.now += 1.0
        self.figures.learning(Learned(hosts_done=self.identified, partly=partly))
        self.look()


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 10), min_size=1, max_size=6), st.data())
def test_it_only_goes_forward_and_is_at_its_end_when_all_is_done(chunks: list[int], data: st.DataObject) -> None:
    scan = Scan(chunks)
    while scan.chunks or scan.figures.waiting:
        if scan.chunks and (not scan.figures.waiting or data.draw(st.booleans())):
            scan.sweep()
        else:
            scan.identify(data.draw(st.floats(0, 1)))
    assert scan.look() == (scan.total, 100)
    assert scan.seen == sorted(scan.seen)
    for done, percent in scan.seen:
        assert (percent == 100) == (done == scan.total)


def test_half_of_it_is_done_when_all_is_swept_and_every_host_has_something_to_say() -> None:
    scan = Scan([10])
    scan.sweep()
    assert scan.seen == [(0, 5), (0, 27), (0, 50), (0, 50)]
    scan.learn(4.0)
    assert scan.look() == (0, 70)
    assert scan.figures.phase == "services"


def test_the_time_that_is_left_goes_by_what_was_done_in_which_time() -> None:
    scan = Scan([10])
    scan.sweep()
    assert scan.left() == 15.0
    scan.learn(0.0)
    scan.now += 5
    assert scan.left() == 10.0
    scan.now = 8.0
    for _ in range(5):
        scan.identified += 1
        scan.figures.waiting -= 1
    scan.learn(0.0)
    assert (scan.now, scan.left()) == (9.0, 8.0)
    scan.figures.learning(Learned(hosts_done=5, left=40.0))  # one is asked at length
    assert scan.left() == 40.0
    scan.identified, scan.figures.waiting = 10, 0
    scan.learn(0.0)
    assert scan.left() == 0


def test_beside_a_sweep_its_figures_are_shown() -> None:
    scan = Scan([4, 4])
    scan.sweep()
    scan.figures.begin(10)
    scan.figures.sweeping(swept(0.5), 0, 1)
    scan.learn(0.0)
    figures = scan.figures
    assert (figures.phase, figures.rate, scan.left()) == ("ports", 100.0, 7.0)


def test_open_ports_of_an_earlier_part_of_the_chunk_stay_counted() -> None:
    figures = Figures()
    figures.begin(64)
    figures.sweeping(swept(0.9), 0, 2)
    assert figures.ports_open == 3
    figures.swept(1000, 900, 0.0, opened=4)
    assert figures.ports_open == 4
    figures.sweeping(Progress(0.0, 0, 0, 100.0, None, 12.0, 0), 1, 2)
    assert figures.ports_open == 4
    figures.sweeping(swept(0.5), 1, 2)
    assert figures.ports_open == 7
    figures.swept(1000, 900, 0.0, opened=3)
    figures.end()
    assert figures.ports_open == 0, "they are stored"
    figures.begin(64)
    figures.sweeping(swept(0.5), 0, 2)
    assert figures.ports_open == 3


class Steady:
    """A scan of chunks of ten addresses, of which each takes as long as any other. ``before`` of them were done in an
    earlier life, ``together`` are discovered at once. ``parts`` are the seconds of TCP and of UDP, of a chunk."""

    def __init__(self, chunks: int, before: int, together: int, discovery: float, parts: list[float]) -> None:
        self.now = 0.0
        self.figures = Figures(clock=lambda: self.now)
        self.swept, self.total, self.stored = 10 * before, 10 * chunks, 7 * before
        self.together, self.discovery, self.parts = together, discovery, parts
        self.seen: list[tuple[int, int]] = []
        self.left: list[tuple[float, float]] = []
        """When, and how long it was said to take from then on."""

    def look(self) -> None:
        figures = self.figures
        self.seen.append((figures.percent(self.swept, self.total), self.stored + figures.ports_open))
        if left := figures.seconds_left(self.swept, self.total):
            self.left.append((self.now, left))

    def go(self) -> None:
        known = 0
        while self.swept < self.total:
            self.figures.begin(10)
            assert (self.figures.phase, self.figures.rate) == ("discovery", 0.0)
            self.look()
            if not known:
                known = min(10 * self.together, self.total - self.swept)
                self.now += self.discovery * known
                self.figures.discovering(1.0, only=False)
                self.look()
                self.figures.discovered(known)
            for part, took in enumerate(self.parts):
                for step in range(10):
                    left = took * (10 - step) / 10
                    progress = Progress(step / 10, 0, step // 3, 100.0, 0.0, left, 100 * step)
                    self.figures.sweeping(progress, part, len(self.parts))
                    self.look()
                    self.now += took / 10
                self.figures.swept(1000, 0, 0.0, opened=4)
                self.look()
            self.swept, self.stored, known = self.swept + 10, self.stored + 4 * len(self.parts), known - 10
            self.figures.end()
            self.look()


seconds = st.floats(0.01, 1000)


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 12), st.integers(0, 11), st.integers(1, 5), seconds, st.lists(seconds, min_size=1, max_size=2))
def test_what_is_left_is_that_of_the_whole_plan_and_nothing_falls_back(
    chunks: int, before: int, together: int, discovery: float, parts: list[float]
) -> None:
    scan = Steady(chunks, min(before, chunks - 1), together, discovery, parts)
    scan.go()
    for one in zip(*scan.seen, strict=True):
        assert list(one) == sorted(one)
    assert scan.seen[-1][0] == 100
    for when, left in scan.left:
        assert left == pytest.approx(scan.now - when)
    steps = 10 * (chunks - min(before, chunks - 1))
    # Of the first chunk of a life it is not known how long its UDP ports take before they are asked.
    assert len(scan.left) == len(parts) * steps - (10 if len(parts) > 1 else 0)


def test_chunks_where_nobody_is_take_no_time_and_count() -> None:
    scan = Steady(40, 0, 40, 0.1, [50.0])
    figures = scan.figures
    figures.begin(10)
    figures.discovered(400)
    for _ in range(3):
        figures.begin(10)
        figures.end()
        scan.swept += 10
    figures.begin(10)
    figures.sweeping(Progress(0.0, 0, 0, 100.0, 0.0, 40.0, 0), 0, 1)
    assert figures.seconds_left(scan.swept, scan.total) == 40.0 + 360 * 1.0  # one in four takes 40 s


def test_of_a_second_look_it_is_not_known_how_long_it_takes() -> None:
    figures = Figures()
    figures.begin(10)
    figures.end()
    figures.again(swept(0.5))
    assert (figures.phase, figures.rate, figures.seconds_left(10, 10)) == ("ports", 100.0, 0.0)
