"""Which evidence makes it credible that somebody is gone, as a function of what answered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.workers.scan.blind import (
    ALL_SETTLED,
    SETTLED,
    Sign,
    Tally,
    Witness,
    alive,
    along,
    blinded,
    credible,
    network_of,
    spread,
    without_silence,
)
from agent.workers.scan.found import Host, Port, Rest

A, B = network_of("10.0.1.1"), network_of("10.0.2.1")
SILENCE = Rest("tcp", "filtered", "no-response", ((1, 100),))
OPEN = Port("tcp", 22, "open", "syn-ack")
WITNESSES: tuple[Witness, ...] = ("steady", "went", "came", "never")
ADDRESSES = [f"10.0.{third}.{last}" for third in (1, 2, 3) for last in (1, 2, 3)]


def tally(*chunks: list[Sign]) -> Tally:
    made = Tally()
    for number, signs in enumerate(chunks):
        made.add(number, signs)
    return made


def known(network: object, lives: int, of: int) -> list[Sign]:
    return [Sign(network, True, number < lives) for number in range(of)]  # type: ignore[arg-type]  # A or B


@pytest.mark.parametrize(
    ("chunks", "parts", "reason"),
    [
        ([known(A, 2, 9)], set(), ""),
        ([known(A, 0, 2)], {(0, A)}, "none of 2 known hosts answered"),
        ([known(A, 0, 1)], set(), ""),  # alone: nothing tells it from a cable
        ([known(A, 0, 1), known(A, 3, 3)], set(), ""),  # alone in its chunk, and others of its network answered
        ([known(A, 0, 1), known(A, 0, 1), known(B, 1, 1)], {(0, A), (1, A)}, "in 10.0.1.0/24 (2)"),
        ([known(A, 0, 1), known(B, 0, 1)], {(0, A), (1, B)}, "none of 2 known hosts answered"),
        ([known(A, 0, 5), known(A, 9, 9)], {(0, A)}, "in 10.0.1.0/24 (5)"),
        ([[*known(A, 0, 5), Sign(A, False, True)]], set(), ""),  # a newcomer shows that the way is open
        ([known(A, 0, 5) + known(B, 1, 5)], {(0, A)}, "in 10.0.1.0/24 (5)"),
        ([[Sign(A, False, False)] * 5], set(), ""),
        ([], set(), ""),
    ],
)
def test_several_that_vanish_together_are_not_believed_to_be_gone(
    chunks: list[list[Sign]], parts: set[object], reason: str
) -> None:
    found = tally(*chunks).dark()
    assert found.parts == parts
    assert found.reason.endswith(reason)
    assert bool(found.reason) == bool(parts)


@pytest.mark.parametrize(("others", "runs"), [(1, SETTLED), (0, ALL_SETTLED)])
def test_what_stays_dark_is_believed_after_some_runs_in_a_row(others: int, runs: int) -> None:
    for before in range(runs):
        dark = [Sign(A, True, False, before), Sign(A, True, False, before + 1)]
        found = tally(dark, known(B, others, others)).dark()
        assert found.parts == ({(0, A)} if before + 1 < runs else set())
        assert found.settled == {(0, A)} - found.parts
        assert bool(found.reason) == bool(found.parts)


SIGN = st.builds(Sign, st.sampled_from([A, B]), st.booleans(), st.booleans())
SIGNS = st.lists(st.lists(SIGN, max_size=6), max_size=4)


@given(SIGNS)
def test_nobody_is_dark_where_somebody_answered(chunks: list[list[Sign]]) -> None:
    found = tally(*chunks).dark()
    for number, network in found.parts | found.settled:
        part = [sign for sign in chunks[number] if sign.network == network]
        assert any(sign.known for sign in part)
        assert not any(sign.alive for sign in part)
    every = [sign for signs in chunks for sign in signs]
    if sum(sign.known for sign in every) >= 2 and not any(sign.alive for sign in every):
        assert found.parts | found.settled == {
            (number, s.network) for number, signs in enumerate(chunks) for s in signs if s.known
        }


@pytest.mark.parametrize(
    ("observed", "expected", "lives"),
    [
        (None, (), False),
        (Host("10.0.0.1", "down", "no-response"), (), False),
        (Host("10.0.0.1", "up", "echo-reply"), (), True),
        (Host("10.0.0.1", "up", "echo-reply", rest=(SILENCE,)), (), True),
        (Host("10.0.0.1", "up", "echo-reply", rest=(SILENCE,)), (("tcp", 22),), False),
        (Host("10.0.0.1", "up", "syn-ack", ports=(OPEN,), rest=(SILENCE,)), (("tcp", 80),), True),
        (Host("10.0.0.1", "up", "reset", rest=(Rest("tcp", "closed", "reset", ((22, 22),)),)), (("tcp", 22),), True),
        (
            Host("10.0.0.1", "up", "echo-reply", rest=(Rest("tcp", "filtered", "admin-prohibited", ((22, 22),)),)),
            (("tcp", 22),),
            False,
        ),
    ],
)
def test_a_sign_of_life_is_an_answer_of_the_host_where_one_was_expected(
    observed: Host | None, expected: tuple[tuple[str, int], ...], lives: bool
) -> None:
    assert alive(observed, expected) == lives


HOW = st.dictionaries(st.sampled_from(ADDRESSES), st.lists(st.sampled_from(WITNESSES), min_size=1, max_size=3))


@given(HOW)
def test_what_canaries_saw_only_for_a_part_of_the_time_is_not_all_there_is(how: dict[str, list[Witness]]) -> None:
    torn, reason = blinded(ADDRESSES, how)
    assert bool(torn) == bool(reason)
    for address in ADDRESSES:
        fared = {each for other, rest in how.items() if network_of(other) == network_of(address) for each in rest}
        assert (address in torn) == (bool(fared & {"went", "came"}) and "steady" not in fared)


@given(HOW)
def test_a_second_look_is_believed_only_while_others_answer(how: dict[str, list[Witness]]) -> None:
    believed = credible(ADDRESSES, how)
    everything = [each for rest in how.values() for each in rest]
    assert not believed or "steady" in everything
    for address in ADDRESSES:
        own = [each for other, rest in how.items() if network_of(other) == network_of(address) for each in rest]
        assert (address in believed) == ("steady" in (own or everything))


def test_canaries_asked_along_are_of_the_same_line_and_not_in_doubt_themselves() -> None:
    canaries = [("10.0.1.1", 22), ("10.0.1.9", 22), ("10.0.9.9", 80), ("fd00::1", 22)]
    assert along(["10.0.1.1", "10.0.1.2"], canaries) == [("10.0.1.9", 22), ("10.0.9.9", 80)]
    assert along(["fe80::1%eth0"], [("fe80::2%eth1", 22), ("fe80::2%eth0", 22)]) == [("fe80::2%eth0", 22)]


@given(st.lists(st.sampled_from(ADDRESSES), unique=True), st.integers(1, 6))
def test_canaries_are_of_as_many_networks_as_may_be(addresses: list[str], most: int) -> None:
    chosen = spread([(address, 22) for address in addresses], most)
    assert len(chosen) == min(most, len(addresses)) == len(set(chosen))
    assert len({network_of(one) for one, _ in chosen}) == min(most, len({network_of(one) for one in addresses}))


def test_what_a_host_said_itself_stays_without_its_silence() -> None:
    reset = Rest("tcp", "closed", "reset", ((80, 80),))
    host = Host("10.0.0.1", "up", "syn-ack", ports=(OPEN,), rest=(SILENCE, reset))
    assert without_silence(host) == Host("10.0.0.1", "up", "syn-ack", ports=(OPEN,), rest=(reset,))
    assert without_silence(Host("10.0.0.1", "down", "no-response", rest=(SILENCE,))) is None


def test_networks_are_told_as_people_write_them() -> None:
    assert str(network_of("10.0.1.77")) == "10.0.1.0/24"
    assert str(network_of("fe80::1%eth0")) == "fe80::/64%eth0"
