"""What a scan costs that is killed and continued, counted in hosts, and what the page says of it."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["discovery", "sweep", "services"]
"""Who is there, which ports are open, and what answers on those."""
KINDS: tuple[Kind, ...] = ("discovery", "sweep", "services")
Sent = Counter[tuple[str, Kind]]
"""Probes that were on the wire, by the host they were for and what they were to find out."""

Target = tuple[str, str, str, bool]


@dataclass(frozen=True)
class Kill:
    """One kill, and how its scan ended.

    ``engine`` asked the ports; ``twice`` are the probes that were sent again because of it, in hosts. What its scan
    came to stands in each kill of it: ``complete``, and how many changes it ``told`` of a network that did not change,
    ``closing`` of which say that something has closed or gone.
    """

    engine: str
    twice: Mapping[Kind, float]
    complete: bool
    closing: int = 0
    told: int = 0

    @property
    def hosts(self) -> float:
        return sum(self.twice.values())


def repeated(before: Sent, after: Sent, undisturbed: Sent) -> dict[Kind, float]:
    """How many hosts' probes were sent again because of a kill: ``before`` it, and ``after`` the life that follows.

    A host's probes of one kind are what it got in an undisturbed scan: a third of them more is a third of a host. Only
    who was asked both before and after can have been asked again. Of a host that was not asked undisturbed, any are
    one host.
    """
    twice: dict[Kind, float] = dict.fromkeys(KINDS, 0.0)
    for (host, kind), count in after.items():
        if 0 < (asked := before[host, kind]) < count:
            once = undisturbed[host, kind]
            twice[kind] += max(0.0, count / once - 1) - max(0.0, asked / once - 1) if once else 1.0
    return twice


def by_chance(sent: Sent, undisturbed: Sent) -> float:
    """How many hosts' probes one scan that nobody killed has beyond others."""
    return sum(max(0.0, count / once - 1) for key, count in sent.items() if (once := undisturbed[key]))


def kill_targets(kills: Sequence[Kill], differ: float) -> Iterator[Target]:
    """What was promised of a scan that is killed. ``differ``: what of that is chance, as nobody killed shows."""
    complete = sum(each.complete for each in kills)
    yield "kills after which the scan is complete", f"{len(kills)}", f"{complete}", complete == len(kills)
    most = max(each.hosts for each in kills)
    reached = f"{most:.2f} hosts'" + (f", up to {differ:.2f} of them by chance" if differ else "")
    yield "probes sent twice because of one kill, at most", "≤ 1 host's", reached, most <= 1 + differ
    closing = sum(each.closing for each in kills)
    yield "events of a port closed or a host gone", "0", f"{closing}", closing == 0


def kills_in_words(kills: Sequence[Kill], differ: float) -> str:
    """Where the probes that were sent twice come from."""
    within = sum(each.hosts <= 1 + differ for each in kills)
    typical = statistics.median(each.hosts for each in kills)
    most = ", ".join(f"{kind} {max(each.twice[kind] for each in kills):.2f}" for kind in KINDS)
    told = max(each.told for each in kills)
    engines = ", ".join(f"{count} by {engine}" for engine, count in Counter(each.engine for each in kills).items())
    return (
        f"Probes sent twice because of one kill of {len(kills)} ({engines}), in hosts: median {typical:.2f}; at most by"
        f" kind: {most}."
        f" A scan that nobody killed has {differ:.2f} more than two others: so much may be chance. All but"
        f" {len(kills) - within} kills cost no more than one host on top of that."
        f" Changes told of a network that did not change: at most {told} by one scan."
    )
