"""Every segment is sent once, whatever the order in which they end, and what is remembered is bounded."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.workers.flows import sent
from agent.workers.flows.sent import Sent

SECOND = 1_000_000_000

#: A segment ends that began so many seconds before or after the one before it; then the process may be killed.
steps = st.lists(st.tuples(st.integers(-500, 700), st.booleans(), st.booleans()), max_size=80)


@given(steps, st.integers(1, 6), st.integers(6, 12))
@settings(max_examples=200, deadline=None)
def test_each_is_sent_once_and_none_is_left_out(steps: list[tuple[int, bool, bool]], kept: int, most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sent, "KEPT", kept)
        patch.setattr(sent, "MOST", most)
        state, begin, lost = Sent(), 10_000 * SECOND, 0
        there: list[int] = []
        done: list[int] = []
        for step, works, killed in steps:
            begin += step * SECOND
            while begin in there:
                begin += 1
            there.append(begin)
            lost += state.expect(begin)
            waiting = [one for one in there if not state.has(one)] if killed else [begin]
            if works:
                for one in list(waiting):
                    waiting.remove(one)
                    done.append(one)
                    state.add(one)
                    lost += state.settle(min(there) if step > 0 else None, [one for one in there if one not in done])
            if killed:
                state = msgspec.json.decode(msgspec.json.encode(state), type=Sent)
        left = [one for one in there if not state.has(one)]
        assert len(done) == len(set(done))
        assert len(done) + len(left) + lost == len(there)
        assert set(done).isdisjoint(left)
        assert len(state.beyond) <= most and len(state.missing) <= most


def test_what_was_sent_last_is_remembered_however_far_the_clock_is_set_back() -> None:
    state = Sent()
    for begin in range(0, 5_000 * SECOND, SECOND):
        state.add(begin)
        state.settle(None, [])
    assert len(state.beyond) == sent.KEPT
    assert state.has(7 * SECOND) and state.has(4_999 * SECOND)
    assert not state.has(4_999 * SECOND - 1)
    assert state.has(7 * SECOND + 1)  # nobody told of it
    state.expect(7 * SECOND + 1)
    assert not state.has(7 * SECOND + 1)
    state.add(7 * SECOND + 1)
    assert state.has(7 * SECOND + 1) and not state.missing


def test_nothing_is_taken_for_sent_behind_one_that_is_not_finished() -> None:
    state = Sent()
    for begin in range(100 * SECOND, 10_000 * SECOND, SECOND):
        state.add(begin)
        state.settle(100 * SECOND, [])
    assert state.upto == -1 and not state.has(100 * SECOND - 1)
