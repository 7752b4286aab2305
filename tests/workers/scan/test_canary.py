"""Canaries: what counts as missed, and who is one."""

from __future__ import annotations

import pytest

from agent.workers.scan.canary import EACH, MOST, Asking, Canaries
from agent.workers.scan.engine import Probe, Reply


def reply(probe: Probe, state: str = "open") -> Reply:
    return Reply(*probe, state, "syn-ack")  # type: ignore[arg-type]  # of a str


def due(asking: Asking, now: float) -> list[Probe]:
    """What is due, and is sent."""
    probes = asking.due(now)
    asking.asked(probes, now, 1.0)
    return probes


def test_what_is_asked_apart_is_asked_three_times_one_patience_apart() -> None:
    asking = Asking([(0, 22), (1, 80)])
    assert due(asking, 0.0) == [(0, 22), (1, 80)]
    assert due(asking, 0.5) == []
    assert asking.heard(reply((0, 22)))
    assert not asking.heard(reply((0, 23)))
    assert [due(asking, now) for now in (1.0, 2.0, 3.0)] == [[(1, 80)], [(1, 80)], []]
    assert not asking.over(2.5)
    assert asking.over(3.0)
    assert asking.silent == [(1, 80)]
    assert asking.answers == {(0, 22): "open"}


def test_what_could_not_be_sent_stays_due_and_each_has_its_own_patience() -> None:
    asking = Asking([(0, 22), (1, 80)], tries=2)
    assert asking.due(0.0) == [(0, 22), (1, 80)]
    asking.asked([(0, 22)], 0.0, 1.0)
    assert asking.due(0.5) == [(1, 80)]
    assert asking.due(1.0) == [(1, 80), (0, 22)], "who was asked less often comes first"
    asking.asked([(1, 80), (0, 22)], 1.0, 1.0)
    assert due(asking, 2.0) == [(1, 80)]
    assert not asking.over(2.9)
    assert asking.over(3.0)


def test_a_canary_that_may_not_go_was_not_asked_and_the_next_has_its_turn() -> None:
    canaries = Canaries(alive=[(0, 22), (1, 22)])
    refused: list[Probe] = []
    for turn in range(4):
        assert canaries.due(float(turn), 10_000, 0, 0, refused.append) is None
    assert refused == [(1, 22), (0, 22)] * 2
    assert not canaries.pending
    assert canaries.due(4.0, 10_000, 0, 0) == (1, 22)
    assert canaries.pending


def test_nothing_to_ask_is_over_at_once() -> None:
    assert Asking([]).over(0.0)


def stretch(seen: int, asked: int = EACH, rate: float = 10_000, state: str = "open") -> Canaries:
    """One whole stretch, in which that many were answered."""
    canaries = Canaries(alive=[(0, 22), (1, 22)])
    now, left = 0.0, seen
    for _ in range(1000):
        probe = canaries.due(now, rate, 0, int(now * rate))
        if probe is not None:
            asked -= 1
            if left:
                left -= 1
                canaries.heard(reply(probe, state))
        if not asked:
            break
        now += 0.01
    canaries.close(now)
    return canaries


@pytest.mark.parametrize(("seen", "missed"), [(8, False), (6, False), (4, False), (3, True), (0, True)])
def test_a_stretch_in_which_most_were_not_seen_is_missed(seen: int, missed: bool) -> None:
    canaries = stretch(seen)
    assert canaries.pending
    assert canaries.missed(0.5, 1.0) is None  # an answer may still come
    found = canaries.missed(9.0, 1.0)
    assert (found is not None) == missed
    assert found is None or (found.round, found.position) == (0, 0)
    assert canaries.missed(9.0, 1.0) is None
    assert not canaries.pending


@pytest.mark.parametrize(("state", "missed"), [("closed", False), ("filtered", True)])
def test_one_that_was_closed_meanwhile_shows_a_way_that_is_open(state: str, missed: bool) -> None:
    canaries = stretch(EACH, state=state)
    assert (canaries.missed(9.0, 1.0) is not None) == missed


def test_an_answer_counts_for_the_stretch_that_was_asked_last() -> None:
    canaries = Canaries(alive=[(0, 22)])
    now, lost = 0.0, True
    while now < 5.0:
        if (probe := canaries.due(now, 10_000, 0, 0)) is not None:
            lost = not lost and now > 1.0  # in the first second none is lost, then every other one
            if not lost:
                canaries.heard(reply(probe))
        assert canaries.missed(now, 0.3) is None
        now += 0.01


def test_one_that_was_lost_is_no_sign() -> None:
    assert stretch(0, asked=1).missed(9.0, 1.0) is None


def test_they_take_no_more_than_a_twentieth_of_the_rate() -> None:
    canaries = Canaries(alive=[(0, 22)])
    asked = sum(canaries.due(number / 100, 40.0, 0, 0) is not None for number in range(1000))
    assert asked <= 0.05 * 40 * 10 + 1


def test_those_of_different_hosts_are_taken_and_not_too_many() -> None:
    canaries = Canaries()
    for place in range(100):
        for port in (22, 80):
            canaries.found((place, port))
    assert len(canaries.alive) <= MOST
    assert len({place for place, _ in canaries.alive}) >= 3
