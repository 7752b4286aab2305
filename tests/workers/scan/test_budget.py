"""No more is sent than the limits say, whoever asks and when; and nobody starves."""

from __future__ import annotations

from collections import defaultdict
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.workers.scan.budget import (
    AHEAD,
    DEBT,
    FIRST_NETWORK,
    FIRST_TARGET,
    HOST,
    SECOND,
    SLOTS,
    Claim,
    Grant,
    Limits,
    Places,
    Rules,
    charge,
    claim_after,
    places,
    take,
    yielded,
)

BOOT = 17 * SECOND
RATES = st.one_of(st.integers(1, 50), st.integers(51, 100_000))
LIMITS = st.builds(Limits, RATES, RATES, RATES)
FOUR = [ip_address(text) for text in ("10.0.0.1", "10.0.0.2", "10.0.1.1", "fd00::1")]
"""Three networks, of which one holds two of the addresses."""


class Slots(dict[int, int]):
    """All that were never written are 0."""

    def __missing__(self, slot: int) -> int:
        return 0


def burst(rate: int) -> int:
    return max(1, rate // 20)


def insist(sent: list[int], rate: int, over: int = 0) -> None:
    """No window of time holds more than ``rate x t + burst`` of these instants, and ``over`` more.

    Of any two of them the later one is the last of a window that begins with the earlier: with ``k`` probes in it, both
    included, ``k <= burst + rate x t``. It is enough to hold each against the earlier one that leaves it least.
    """
    most = 0.0
    for position, at in enumerate(sent):
        paid = position * SECOND - rate * at
        most = min(most, paid) if position else paid
        assert paid + SECOND - most <= (burst(rate) + over) * SECOND


@settings(max_examples=150)
@given(
    limits=LIMITS,
    turns=st.lists(st.tuples(st.integers(0, SECOND // 5), st.lists(st.integers(0, 3), max_size=60)), max_size=40),
    yielding=st.frozensets(st.sampled_from([HOST, *places(FOUR).targets, *places(FOUR).networks]), max_size=3),
)
def test_no_window_holds_more_than_its_rate_and_a_burst(
    limits: Limits, turns: list[tuple[int, list[int]]], yielding: frozenset[int]
) -> None:
    slots, there, now = Slots(), places(FOUR), BOOT
    sent: dict[int, list[int]] = defaultdict(list)
    for pause, asked in turns:
        now += pause
        grant = take(slots, Rules.of(limits), there, asked, now, yielding)
        assert grant.positions == sorted(set(grant.positions))
        for position in grant.positions:
            for slot in (HOST, there.networks[asked[position]], there.targets[asked[position]]):
                sent[slot].append(now)
        assert (len(grant.positions) == len(asked)) == (grant.slot < 0)
        assert grant.again > now or grant.slot < 0
    for slot, instants in sent.items():
        rate = limits.target if slot >= FIRST_TARGET else limits.network if slot >= FIRST_NETWORK else limits.host
        insist(instants, rate)


@given(
    limits=LIMITS,
    turns=st.lists(
        st.tuples(st.integers(0, SECOND // 5), st.lists(st.tuples(st.integers(0, 3), st.integers(1, 2)), max_size=60)),
        max_size=40,
    ),
)
def test_a_probe_of_two_packets_is_paid_for_as_two(
    limits: Limits, turns: list[tuple[int, list[tuple[int, int]]]]
) -> None:
    """So only the last of a burst can be one too many."""
    slots, there, now = Slots(), places(FOUR), BOOT
    sent: dict[int, list[int]] = defaultdict(list)
    for pause, asked in turns:
        now += pause
        row, packets = [place for place, _ in asked], [count for _, count in asked]
        for position in take(slots, Rules.of(limits), there, row, now, packets=packets).positions:
            for slot in (HOST, there.networks[row[position]], there.targets[row[position]]):
                sent[slot] += [now] * packets[position]
    for slot, instants in sent.items():
        rate = limits.target if slot >= FIRST_TARGET else limits.network if slot >= FIRST_NETWORK else limits.host
        insist(instants, rate, over=1)


@given(limits=LIMITS, asked=st.lists(st.integers(0, 3), min_size=1, max_size=60))
def test_whoever_comes_back_when_told_soon_gets_one_through_and_not_a_moment_before(
    limits: Limits, asked: list[int]
) -> None:
    slots, there, rules, now, left, refused = Slots(), places(FOUR), Rules.of(limits), BOOT, asked, 0
    while left:
        grant = take(slots, rules, there, left, now)
        refused = 0 if grant.positions else refused + 1
        assert refused <= 3 * len({*left})  # once for each level of each address
        left = [place for position, place in enumerate(left) if position not in grant.positions]
        if left:
            assert not take(slots, rules, there, left, grant.again - 1).positions
            now = grant.again


@given(
    limits=LIMITS, nonsense=st.dictionaries(st.integers(0, SLOTS - 1), st.integers(-(2**63), 2**63 - 1), max_size=20)
)
def test_numbers_that_no_scan_has_written_hold_up_nobody_for_long(limits: Limits, nonsense: dict[int, int]) -> None:
    there = places(FOUR)
    slots = Slots(nonsense | dict(zip([HOST, *there.targets], nonsense.values(), strict=False)))
    grant = take(slots, Rules.of(limits), there, [0, 1, 2, 3], BOOT)
    assert grant.positions or BOOT < grant.again <= BOOT + AHEAD


def test_the_whole_rate_is_had_by_who_asks_often_enough() -> None:
    limits, slots, there = Limits(20_000, 10_000, 5_000), Slots(), places(FOUR)
    got = sum(
        len(take(slots, Rules.of(limits), there, [0] * 500, BOOT + turn * SECOND // 100).positions)
        for turn in range(101)
    )
    assert got == 250 + 5_000


def test_each_level_binds_where_it_is_the_least() -> None:
    def granted(limits: Limits, asked: list[int]) -> list[int]:
        return take(Slots(), Rules.of(limits), places(FOUR), asked, BOOT).positions

    assert granted(Limits(10**6, 10**6, 60), [0, 0, 0, 0, 1]) == [0, 1, 2, 4]
    assert granted(Limits(10**6, 60, 10**6), [0, 1, 0, 1, 2]) == [0, 1, 2, 4]
    assert granted(Limits(60, 10**6, 10**6), [0, 1, 2, 3, 2]) == [0, 1, 2]


class Scan:
    """One of several that share the slots, and asks for the same target every ``every`` ns, or when it is told to."""

    def __init__(self, every: int | None, size: int) -> None:
        self.every, self.size = every, size
        self.due = BOOT
        self.claim: Claim | None = None
        self.last = BOOT

    def turn(self, now: int, slots: Slots, rules: Rules, there: Places, others: list[Scan]) -> None:
        claims = [other.claim for other in others if other is not self and other.claim]
        asked = [0] * self.size
        grant = take(slots, rules, there, asked, now, yielded(claims, self.claim, now))
        self.claim = claim_after(self.claim, there, asked, grant, now)
        if grant.positions:
            self.last = now
        # Nobody is woken to the nanosecond.
        self.due = now + self.every if self.every else grant.again + 50_000


@settings(max_examples=40)
@given(
    limits=st.builds(Limits, *[st.integers(20, 2_000)] * 3),
    greedy=st.integers(1, 3),
    every=st.integers(1, 10),
    size=st.integers(1, 120),
)
def test_nobody_starves_beside_somebody_who_asks_far_more_often(
    limits: Limits, greedy: int, every: int, size: int
) -> None:
    """The polite one has its turn as soon as each of the others has had one, and taken a burst at most."""
    rules, there, slots = Rules.of(limits), places(FOUR), Slots()
    polite = Scan(None, size)
    scans = [polite, *(Scan(every * SECOND // 1000, 60) for _ in range(greedy))]
    for _ in range(400):
        scan = min(scans, key=lambda one: one.due)
        now = scan.due
        scan.turn(now, slots, rules, there, scans)
        rate = min(limits)
        turn = max(map(burst, limits)) * SECOND // rate + every * SECOND // 1000
        assert now - polite.last <= (greedy + 2) * turn


def test_a_claim_is_for_one_slot_and_for_a_while() -> None:
    claims = [Claim(HOST, BOOT, BOOT + 100), Claim(7, BOOT, BOOT + 10), Claim(9, BOOT, BOOT + AHEAD + SECOND)]
    assert yielded(claims, None, BOOT) == {HOST, 7}
    assert yielded(claims, None, BOOT + 50) == {HOST}
    assert yielded(claims, Claim(HOST, BOOT - 1, BOOT + 100), BOOT) == {7}
    assert yielded(claims, Claim(HOST, BOOT + 1, BOOT + 100), BOOT) == {HOST, 7}


def test_who_got_something_through_waits_from_now_on() -> None:
    there, rules = places(FOUR), Rules.of(Limits(10**6, 10**6, 20))
    slot = there.targets[0]
    slots = Slots()
    first = take(slots, rules, there, [0, 0], BOOT)
    claim = claim_after(None, there, [0, 0], first, BOOT)
    assert claim is not None and (claim.slot, claim.since) == (slot, BOOT)
    refused = take(slots, rules, there, [0], BOOT + 1)
    assert claim_after(claim, there, [0], refused, BOOT + 1).since == BOOT  # type: ignore[union-attr]  # it was refused
    later = take(slots, rules, there, [0, 0], BOOT + SECOND)
    assert claim_after(claim, there, [0, 0], later, BOOT + SECOND).since == BOOT + SECOND  # type: ignore[union-attr]
    assert claim_after(claim, there, [1], Grant([0], BOOT, -1), BOOT) is None


@given(st.lists(st.integers(0, 3), max_size=5_000))
def test_what_is_sent_without_asking_is_paid_for_up_to_a_bound(sent: list[int]) -> None:
    limits, there, slots = Limits(1_000, 1_000, 1_000), places(FOUR), Slots()
    charge(slots, Rules.of(limits), there, sent, BOOT)
    heap = Slots()
    for place in range(4):
        charge(heap, Rules.of(limits), there, [place], BOOT, sent.count(place))
    assert {slot: paid for slot, paid in heap.items() if paid != BOOT} == slots
    assert slots[HOST] <= BOOT + DEBT
    if len(sent) > 50:
        grant = take(slots, Rules.of(limits), there, [0], BOOT)
        assert not grant.positions
        assert take(slots, Rules.of(limits), there, [0], grant.again).positions


def test_rows_of_addresses_get_slots_of_their_own_and_networks_too() -> None:
    row = [IPv4Address(0x0A000000 + number) for number in range(65_536)]
    there = places(row)
    assert len({*there.targets}) == 65_536
    assert len({*there.networks}) == 256
    six = places(IPv6Address(f"fd00:0:0:{net:x}::{host:x}") for net in range(64) for host in range(64))
    assert len({*six.networks}) == 64
    assert len({*six.targets}) > 4_000
    assert min(there.targets) >= FIRST_TARGET > max(there.networks) >= FIRST_NETWORK
    assert max([*there.targets, *six.targets]) < SLOTS


@pytest.mark.parametrize("rate", [1, 3, 7, 999, 1_000_000])
def test_an_interval_is_never_too_short(rate: int) -> None:
    assert Rules.of(Limits(rate, rate, rate)).host.interval * rate >= SECOND
