"""How much may be sent at all: to one target, to one network, from this host, by all scans together. Pure.

Each limit is a generic cell rate algorithm: a slot holds the instant up to which what was sent is paid for (the
"theoretical arrival time" of ITU-T I.371, annex A), and a probe may go when that lies less than a burst ahead of now.
So in any span of ``t`` seconds no more than ``rate x t + burst`` probes go, however many ask, and one number is all
there is to keep. Scans with different limits may share a slot: each then takes its part of the time.

Targets and networks find their slots by a hash. Two that share one are held to the limit of one: stricter, never laxer.

Who is refused leaves a claim: until it has come back, others leave it the upper half of the burst in that one slot. So
nobody starves beside somebody who asks more often.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple, Protocol

SECOND = 1_000_000_000
"""Instants and durations are nanoseconds here."""

BURST_SECONDS = 0.05
"""What may go at once, in seconds of a rate: whoever asks at least that often gets the whole of it."""

NETWORK_BITS, TARGET_BITS = 14, 17
HOST = 0
FIRST_NETWORK = 1
FIRST_TARGET = FIRST_NETWORK + (1 << NETWORK_BITS)
SLOTS = FIRST_TARGET + (1 << TARGET_BITS)
"""One slot for the host, those of networks, those of targets."""

AHEAD = 5 * SECOND
"""No slot is ever paid for that far ahead: one that seems to be holds nonsense, and counts as free."""

DEBT = 2 * SECOND
"""So far at most goes what was sent without asking (``charge``)."""

CLAIM_GRACE = SECOND // 10
"""For how long after it could have come back whoever was refused is waited for."""

_GOLDEN = 0x9E3779B97F4A7C15F39CC0605CEDC835
"""2^128 divided by the golden ratio, odd: multiples of it spread rows of addresses evenly (Knuth, TAOCP 6.4)."""


class Slots(Protocol):
    """``SLOTS`` instants: a list, or numbers in a file."""

    def __getitem__(self, slot: int, /) -> int: ...
    def __setitem__(self, slot: int, paid: int, /) -> None: ...


class Limits(NamedTuple):
    """Probes per second at most, each at least 1."""

    host: int
    network: int
    target: int


class Rule(NamedTuple):
    """What a rate means for a slot: ``interval`` is the time that one probe pays for, ``reach`` how far ahead of now a
    slot may be paid for so that one more may go, ``yielding`` the same beside somebody who has waited for longer."""

    interval: int
    reach: int
    yielding: int


def rule(rate: int) -> Rule:
    """The rule of a rate, in probes per second."""
    interval = -(-SECOND // rate)
    burst = max(1, int(rate * BURST_SECONDS))
    return Rule(interval, (burst - 1) * interval, (burst // 2 - 1) * interval)


class Rules(NamedTuple):
    """Those of the three levels."""

    host: Rule
    network: Rule
    target: Rule

    @classmethod
    def of(cls, limits: Limits) -> Rules:
        """Those of these limits."""
        return cls(*map(rule, limits))


class Places(NamedTuple):
    """The slots of a row of addresses, each known by where it stands in the row."""

    targets: array[int]
    networks: array[int]


class Claim(NamedTuple):
    """Somebody was refused at ``slot``, has waited since ``since``, and is waited for until ``until``."""

    slot: int
    since: int
    until: int


class Grant(NamedTuple):
    """``positions`` of those among the asked that may go now, in order; none of the others may before ``again``.

    ``slot`` is the first that refused, -1 when all may go.
    """

    positions: list[int]
    again: int
    slot: int


def places(addresses: Iterable[IPv4Address | IPv6Address]) -> Places:
    """Where these are accounted for. The network of an address is its /24, or of IPv6 its /64."""
    found = Places(array("I"), array("I"))
    for address in addresses:
        key, other = int(address), address.version << 64
        network = key >> (8 if address.version == 4 else 64)
        found.targets.append(FIRST_TARGET + _spread(key ^ other, TARGET_BITS))
        found.networks.append(FIRST_NETWORK + _spread(network ^ other, NETWORK_BITS))
    return found


def _spread(key: int, bits: int) -> int:
    return (key * _GOLDEN & ((1 << 128) - 1)) >> (128 - bits)


def yielded(claims: Iterable[Claim], mine: Claim | None, now: int) -> frozenset[int]:
    """The slots in which others have waited for longer than whoever has the claim ``mine``."""
    return frozenset(
        claim.slot
        for claim in claims
        if now < claim.until <= now + AHEAD and (mine is None or mine.slot != claim.slot or claim.since < mine.since)
    )


def claim_after(mine: Claim | None, there: Places, asked: Sequence[int], grant: Grant, now: int) -> Claim | None:
    """What is claimed after a ``grant``: who got something through the slot that refused waits from now on."""
    slot = grant.slot
    if slot < 0:
        return None
    since = now
    if mine is not None and mine.slot == slot:
        level = there.targets if slot >= FIRST_TARGET else there.networks
        got = grant.positions if slot == HOST else [at for at in grant.positions if level[asked[at]] == slot]
        since = now if got else mine.since
    return Claim(slot, since, grant.again + CLAIM_GRACE)


def take(
    slots: Slots,
    rules: Rules,
    there: Places,
    asked: Sequence[int],
    now: int,
    yielding: frozenset[int] = frozenset(),
    packets: Sequence[int] = (),
) -> Grant:
    """Which of the probes to the addresses ``asked`` may go now; those are paid for. The first come first.

    ``yielding`` are the slots of which others are to be left the half. ``packets`` says of how many packets each probe
    is, when that is not one: it may go when one may, and is paid for whole.
    """
    granted: list[int] = []
    again, refused = now + AHEAD, -1
    of_host, of_network, of_target = rules
    targets, networks = there
    host, host_reach = _sane(slots[HOST], now), of_host.yielding if HOST in yielding else of_host.reach
    nonsense = now + AHEAD
    for position, place in enumerate(asked):
        if host - host_reach > now:
            again, refused = min(again, host - host_reach), HOST
            break
        target = targets[place]
        target_paid = slots[target]
        if target_paid < now or target_paid > nonsense:
            target_paid = now
        when = target_paid - (of_target.yielding if target in yielding else of_target.reach)
        if when > now:
            again = min(again, when)
            refused = target if refused < 0 else refused
            continue
        network = networks[place]
        network_paid = slots[network]
        if network_paid < now or network_paid > nonsense:
            network_paid = now
        when = network_paid - (of_network.yielding if network in yielding else of_network.reach)
        if when > now:
            again = min(again, when)
            refused = network if refused < 0 or refused >= FIRST_TARGET else refused
            continue
        count = packets[position] if packets else 1
        slots[target] = target_paid + count * of_target.interval
        slots[network] = network_paid + count * of_network.interval
        slots[HOST] = host = host + count * of_host.interval
        granted.append(position)
    return Grant(granted, again if refused >= 0 else now, refused)


def charge(slots: Slots, rules: Rules, there: Places, sent: Iterable[int], now: int, each: int = 1) -> None:
    """Pay for ``each`` probes to these that somebody sends who cannot ask, such as nmap: others then wait for them."""
    targets, networks = there
    of_host, of_network, of_target = rules
    owed: Counter[int] = Counter()
    for place, count in Counter(sent).items():
        owed[HOST] += count * of_host.interval
        owed[targets[place]] += count * of_target.interval
        owed[networks[place]] += count * of_network.interval
    for slot, interval in owed.items():
        slots[slot] = min(_sane(slots[slot], now) + each * interval, now + DEBT)


def _sane(paid: int, now: int) -> int:
    """Up to when a slot is paid for; now, when that is over or cannot be."""
    return paid if now <= paid <= now + AHEAD else now
