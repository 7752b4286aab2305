"""Which segments go."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.workers.capture.retention import Disk, Limits, Plan, Stored, owed, plan, reserve, room

HOUR = 3600 * 10**9
NOW = 1000 * HOUR


@st.composite
def stored(draw: st.DrawFn) -> Stored:
    begin = draw(st.integers(900 * HOUR, NOW))
    end = draw(st.integers(begin, NOW))
    return Stored(begin, draw(st.sampled_from(["eth0", "lo"])), end, draw(st.integers(1, 1000)), draw(st.booleans()))


stores = st.lists(stored(), unique_by=lambda one: (one.begin, one.interface), max_size=12).map(sorted)
limits = st.builds(
    Limits,
    st.integers(0, 10_000),
    st.integers(0, 5000),
    st.floats(0, 0.99),
    st.none() | st.integers(HOUR, 100 * HOUR),
)
disks = st.builds(lambda free, taken: Disk(free, free + taken), st.integers(0, 20_000), st.integers(0, 20_000))
kept = st.sets(st.integers(0, 11))


class Case:
    """One situation, and what was planned for it."""

    def __init__(
        self, segments: list[Stored], bounds: Limits, disk: Disk, opened: int, want: int, numbers: set[int]
    ) -> None:
        self.segments = segments
        self.bounds, self.disk, self.want = bounds, disk, want
        self.pins = {segment for number, segment in enumerate(segments) if number in numbers}
        self.used = opened + sum(segment.size for segment in segments)
        self.plan = plan(segments, bounds, disk, self.used, want, NOW, self.pins.__contains__)

    @property
    def gone(self) -> list[Stored]:
        return [*self.plan.aged, *self.plan.going, *self.plan.broken]

    def room_after(self, gone: list[Stored]) -> int:
        freed = sum(segment.size for segment in gone)
        return room(self.bounds, Disk(self.disk.free + freed, self.disk.total), self.used - freed).bytes


cases = st.builds(Case, stores, limits, disks, st.integers(0, 2000), st.integers(0, 5000), kept)


@given(cases)
def test_there_is_room_afterwards_within_the_budget_and_above_the_floor_or_nothing_is_left_to_remove(
    case: Case,
) -> None:
    after = case.room_after(case.gone)
    assert case.plan.short == max(0, case.want - after)
    if case.plan.short:
        assert set(case.gone) == {segment for segment in case.segments if segment.indexed}
        assert case.plan.waiting == len(case.segments) - len(case.gone)
    else:
        freed = sum(segment.size for segment in case.gone)
        assert case.used - freed + case.want <= case.bounds.budget
        assert case.disk.free + freed - case.want >= reserve(case.bounds, case.disk)


@given(cases)
def test_none_goes_twice_and_none_without_an_index(case: Case) -> None:
    assert len(set(case.gone)) == len(case.gone)
    assert all(segment.indexed for segment in case.gone)


@given(cases)
def test_for_its_age_only_what_is_older_goes_and_nothing_pinned(case: Case) -> None:
    age = case.bounds.max_age
    expected = [
        segment
        for segment in case.segments
        if age is not None and segment.end < NOW - age and segment.indexed and segment not in case.pins
    ]
    assert case.plan.aged == expected


@given(cases)
def test_for_room_the_oldest_go_first_and_no_more_than_it_takes(case: Case) -> None:
    rest = [segment for segment in case.segments if segment.indexed and segment not in case.plan.aged]
    loose = [segment for segment in rest if segment not in case.pins]
    assert case.plan.going == loose[: len(case.plan.going)]
    if case.plan.going:
        assert case.room_after([*case.plan.aged, *case.plan.going[:-1]]) < case.want


@given(cases)
def test_what_is_pinned_goes_last_and_then_also_oldest_first(case: Case) -> None:
    held = [segment for segment in case.segments if segment.indexed and segment in case.pins]
    assert case.plan.broken == held[: len(case.plan.broken)]
    if case.plan.broken:
        assert all(segment in case.gone for segment in case.segments if segment.indexed and segment not in case.pins)
        assert case.room_after(case.gone[:-1]) < case.want


def test_an_old_segment_that_ends_late_does_not_hide_one_behind_it() -> None:
    late = Stored(1 * HOUR, "eth0", NOW, 10, indexed=True)
    early = Stored(2 * HOUR, "lo", 3 * HOUR, 10, indexed=True)
    assert plan([late, early], Limits(100, max_age=HOUR), Disk(1000, 1000), 20, 10, NOW, lambda _: False) == Plan(
        [early], [], [], 0, 0
    )


def test_of_a_share_and_a_number_of_bytes_the_larger_stays_free() -> None:
    disk = Disk(500, 1000)
    assert reserve(Limits(0, 200, 0.1), disk) == 200
    assert reserve(Limits(0, 50, 0.1), disk) == 100
    assert room(Limits(10_000, 200, 0.1), disk, 9_000) == (1000, 300)


@given(st.integers(0, 10**12), st.integers(0, 10**12), st.integers(0, 10**12), st.integers(0, 10**12))
def test_what_is_lent_is_left_free_on_the_disk_as_far_as_the_disk_goes(
    free: int, used: int, lent: int, lent_used: int
) -> None:
    left = owed(Limits(10**13, free_bytes=1000), Disk(free, 2 * 10**12), used, lent, lent_used)
    assert 0 <= left <= max(0, lent - lent_used)
    assert left <= max(0, (free - 1000 + used + lent_used) // 2)
    if free - 1000 >= 2 * lent:
        assert left == max(0, lent - lent_used)
