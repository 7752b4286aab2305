"""The order in which segments go, whatever the clock said when they were captured."""

from __future__ import annotations

import time
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from agent.workers.capture.retention import Disk, Limits, Stored, plan
from agent.workers.capture.shelf import FAR, Shelf

SECOND = 1_000_000_000
DAY = 86_400 * SECOND
NOW = 20_000 * DAY


def quiet(kind: str, message: str) -> None:
    assert kind == "clock_ahead"


def one(begin: int, *, size: int = 100, indexed: bool = True) -> Stored:
    return Stored(begin, "eth0", begin, size, indexed)


def begins(shelf: Shelf) -> list[int]:
    return [segment.begin for segment in shelf]


@given(st.lists(st.tuples(st.integers(1, 3600), st.just(0) | st.integers(-1000, 1000)), max_size=30))
def test_what_is_closed_later_goes_later_however_the_clock_is_set(course: list[tuple[int, int]]) -> None:
    shelf, now, closed = Shelf(Path("store"), quiet), NOW, []
    for passed, days in course:
        now += passed * SECOND
        shelf.add(one(now), now)
        closed.append(now)
        if now + days * DAY > 0 and days:
            if days < 0:
                shelf.set_back(now + days * DAY)
            now += days * DAY
    assert begins(shelf) == closed


def test_packets_of_a_clock_that_was_a_year_ahead_go_before_what_is_captured_now() -> None:
    told: list[str] = []
    shelf = Shelf(Path("store"), lambda kind, message: told.append(f"{kind}: {message}"))
    for number in range(4):
        shelf.add(one(NOW + 365 * DAY + number * SECOND), NOW + 365 * DAY + number * SECOND)
    shelf.set_back(NOW)
    shelf.add(one(NOW + 365 * DAY + 9 * SECOND), NOW)  # it was open when the clock was set
    for number in range(4):
        shelf.add(one(NOW + number * SECOND), NOW + number * SECOND)
    found = plan(shelf.in_order, Limits(1000), Disk(10**9, 10**9), shelf.bytes, 500, NOW + DAY, lambda _: False)
    assert [segment.begin // DAY - NOW // DAY for segment in found.going] == [365] * 4
    assert shelf.oldest(NOW + DAY) == NOW
    assert told == [
        "clock_ahead: 4 segments are up to 365 days ahead of the clock, which was wrong when they were captured, or is "
        "now: they go before what is captured from now on"
    ]


def test_what_a_start_finds_far_ahead_goes_first_and_all_of_it_before_what_comes() -> None:
    shelf = Shelf(Path("store"), quiet)
    shelf.find([one(NOW + ahead) for ahead in (-DAY, -SECOND, FAR, 365 * DAY)], NOW)
    shelf.add(one(NOW - 1), NOW)
    assert begins(shelf) == [NOW + 365 * DAY, NOW - DAY, NOW - SECOND, NOW + FAR, NOW - 1]


def test_a_clock_that_is_behind_at_a_start_costs_nothing_but_the_oldest() -> None:
    shelf = Shelf(Path("store"), quiet)
    found_there = [one(NOW + number * SECOND) for number in range(5)]
    shelf.find(found_there, 10 * SECOND)  # no battery, and the network has not told yet
    limits = Limits(500, max_age=7 * DAY)
    found = plan(
        shelf.in_order, limits, Disk(10**9, 10**9), 500, 100, 10 * SECOND, lambda _: False, time.monotonic_ns()
    )
    assert (found.aged, [segment.begin for segment in found.going]) == ([], [NOW])
    found = plan(
        shelf.in_order, limits, Disk(10**9, 10**9), 500, 0, NOW + 6 * DAY, lambda _: False, time.monotonic_ns()
    )
    assert found.aged == []  # it was set right
    found = plan(
        shelf.in_order, limits, Disk(10**9, 10**9), 500, 0, NOW + 8 * DAY, lambda _: False, time.monotonic_ns()
    )
    assert len(found.aged) == 5


def test_what_is_ahead_is_as_old_as_it_was_noticed() -> None:
    shelf = Shelf(Path("store"), quiet)
    shelf.find([one(NOW + 365 * DAY)], NOW)
    (segment,) = shelf
    assert segment.noticed is not None
    limits = Limits(500, max_age=7 * DAY)
    for days, goes in ((6, []), (8, [segment])):
        steady = segment.noticed + days * DAY
        found = plan(shelf.in_order, limits, Disk(10**9, 10**9), 0, 0, NOW + days * DAY, lambda _: False, steady)
        assert found.aged == goes


def test_an_index_is_found_after_the_clock_was_set(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, quiet)
    shelf.add(one(NOW, indexed=False), NOW)
    shelf.set_back(NOW - DAY)
    assert shelf.look_for_indexes(lambda _: 7) == [shelf.path(next(iter(shelf)))]
    assert (shelf.bytes, shelf.waiting, shelf.waiting_bytes) == (107, 0, 0)
    assert shelf.knows(NOW, "eth0")
    shelf.take(next(iter(shelf)))
    assert (len(shelf), shelf.bytes, shelf.knows(NOW, "eth0")) == (0, 0, False)


@given(
    st.lists(
        st.tuples(st.integers(-10, 10), st.integers(0, 3), st.booleans()), max_size=12, unique_by=lambda one: one[0]
    ),
    st.integers(1, 5),
    st.integers(0, 10),
    st.integers(0, 1500),
)
def test_whatever_clocks_were_nothing_young_or_unindexed_goes_for_its_age_and_there_is_room_afterwards(
    found: list[tuple[int, int, bool]], days: int, waited: int, want: int
) -> None:
    shelf = Shelf(Path("store"), quiet)
    shelf.find([Stored(NOW + at * DAY, "eth0", NOW + (at + long) * DAY, 100, ready) for at, long, ready in found], NOW)
    later = time.monotonic_ns() + waited * DAY
    limits, now = Limits(1200, max_age=days * DAY), NOW + waited * DAY
    made = plan(shelf.in_order, limits, Disk(10**9, 10**9), shelf.bytes, want, now, lambda _: False, later)
    for segment in made.aged:
        assert segment.indexed
        assert segment.end < now - days * DAY if segment.end <= now else waited >= days
    left = shelf.bytes - 100 * len(made.aged + made.going)
    assert left + want <= 1200 or made.short == left + want - 1200
    far = [segment for segment in shelf if segment.begin > NOW + FAR and segment.indexed and segment not in made.aged]
    assert made.going[: len(far)] == far[: len(made.going)]
