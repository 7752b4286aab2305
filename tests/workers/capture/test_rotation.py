"""When segments are cut and how much may be read."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.declaration.capture_limits import least_budget, record_limit
from agent.workers.capture import rotation

instants = st.integers(0, 2**62)
durations = st.integers(10**8, 10**15)
sizes = st.integers(0, 2**45)


@given(instants, durations)
def test_the_next_boundary_is_the_first_instant_of_the_next_window(now: int, every: int) -> None:
    wait = rotation.until_boundary(now, every)
    assert 1 <= wait <= every
    assert rotation.window(now + wait, every) == rotation.window(now, every) + 1
    assert rotation.window(now + wait - 1, every) == rotation.window(now, every)


@given(st.integers(0, 10**6), st.sampled_from([1, 60, 3600, 86_400]))
def test_windows_begin_on_the_wall_clock(number: int, seconds: int) -> None:
    begin = number * seconds * 10**9
    assert rotation.window(begin, seconds * 10**9) == number
    assert rotation.window(begin - 1, seconds * 10**9) == number - 1


@given(instants, instants, durations, sizes, st.integers(1, 2**45))
def test_a_segment_is_due_by_size_or_by_any_change_of_window(
    opened: int, now: int, every: int, size: int, limit: int
) -> None:
    due = rotation.due(size=size, limit=limit, opened=opened, now=now, every=every)
    assert due == (size >= limit or opened // every != now // every)


def test_a_clock_set_back_by_an_hour_ends_the_segment() -> None:
    minute = 60 * 10**9
    now = 1_000_000 * minute
    assert rotation.due(size=1, limit=2, opened=now, now=now - 60 * minute, every=minute)


@given(st.integers(0, 2**45), st.integers(-(2**30), 2**45), st.integers(1, 2**18).map(record_limit), st.data())
def test_a_read_never_takes_more_than_there_is_room_for(room: int, left: int, record: int, data: st.DataObject) -> None:
    mean = data.draw(st.integers(17, record))
    asked = rotation.batch(room=room, left=left, record=record, mean=mean)
    assert 0 <= asked <= rotation.MAX_BATCH
    assert asked * record <= room
    assert (asked == 0) == (room < record)
    if asked > rotation.MIN_BATCH:
        assert asked * mean <= left


@given(st.integers(1, 262_144).map(record_limit), st.integers(1, 64), st.integers(1, 2**45), st.integers(0, 2**45))
def test_with_the_least_budget_or_more_every_segment_holds_packets_and_half_the_budget_is_for_closed_ones(
    record: int, interfaces: int, size: int, more: int
) -> None:
    budget = least_budget(record, interfaces) + more
    limit = rotation.segment_limit(size, budget, interfaces)
    assert limit == size or limit >= 2 * record
    assert limit <= size
    assert interfaces * limit <= budget / 4
    assert record <= rotation.headroom(limit, record) <= budget / 4


@given(st.integers(1, 10**6))
def test_retries_come_ever_later_but_never_stop(failures: int) -> None:
    delay = rotation.retry_delay(failures)
    assert rotation.RETRY_FIRST <= delay <= rotation.RETRY_LONGEST
    assert delay <= rotation.retry_delay(failures + 1) <= 2 * delay
