"""The way through a chunk: each probe once a round, whatever has to wait, and again from wherever it is taken back."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from agent.workers.scan.course import Course

SIZE = 300


def walk(course: Course, states: bytearray, chance: random.Random, until: int = 10**9) -> Counter[int]:
    """Send until nothing is left; now and then some have to wait."""
    sent: Counter[int] = Counter()
    now = 0.0
    while (not course.over or course.held) and sent.total() < until:
        batch = course.next(chance.randrange(1, 40))
        gone = [one for one in batch if chance.random() < 0.7]
        for _, number in gone:
            states[number] += 1
            sent[number] += 1
        course.sent(now, [one for one in batch if one not in gone])
        now += 1.0
    return sent


@given(st.integers(0, 99))
def test_every_probe_is_sent_once_a_round_and_what_was_answered_is_not_sent_again(seed: int) -> None:
    states, chance = bytearray(SIZE), random.Random(seed)
    course = Course(SIZE, b"seed", memoryview(states))
    assert walk(course, states, chance) == Counter(range(SIZE))
    answered = set(chance.sample(range(SIZE), 100))
    for number in answered:
        states[number] = 128
    course.begin(1)
    assert walk(course, states, chance) == Counter(set(range(SIZE)) - answered)


@given(st.integers(0, 99), st.integers(1, SIZE))
def test_what_may_be_in_flight_is_sent_again_and_nothing_else(seed: int, until: int) -> None:
    states, chance = bytearray(SIZE), random.Random(seed)
    course = Course(SIZE, b"seed", memoryview(states))
    walk(course, states, chance, until)
    news = course.settle(chance.uniform(0.0, 20.0))
    assert news == bool(course.settled)
    settled, cursor = course.settled, course.cursor
    assert settled <= course.position <= cursor
    after = Course(SIZE, b"seed", memoryview(states))
    after.settled = settled
    after.take_back(settled, cursor)
    again = walk(after, states, chance)
    assert set(states) == {1}, "each of them once, as far as anybody knows"
    assert again.total() == SIZE - settled
