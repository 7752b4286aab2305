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

    ``engine`` asked the ports, ``after`` is when the kill came, as part of what an undisturbed scan takes (it may be
    more than 1); ``twice`` are the probes that were sent again because of it, in hosts. What its scan came to stands in
    each kill of it: ``complete``, and how many changes it ``told`` of a network that did not change, ``closing`` of
    which say that something has closed or gone.
    """

    engine: str
    after: float
    twice: Mapping[Kind, float]
    complete: bool
    closing: int = 0
    told: int = 0

    @property
    def hosts(self) -> float:
        return sum(self.twice.values())


def repeated(sent: Sent, undisturbed: Sent) -> dict[Kind, float]:
    """How many hosts' probes are among ``sent`` beyond what an undisturbed scan sends.

    A host's probes of one kind are what it got in the undisturbed scan: a third of them more is a third of a host. Of
    a host that got none there, any are one host.
    """
    over: dict[Kind, float] = dict.fromkeys(KINDS, 0.0)
    for (host, kind), count in sent.items():
        once = undisturbed[host, kind]
        over[kind] += max(0.0, count / once - 1) if once else 1.0
    return over


def kill_targets(kills: Sequence[Kill]) -> Iterator[Target]:
    """What was promised of a scan that is killed."""
    complete = sum(each.complete for each in kills)
    yield "kills after which the scan is complete", f"{len(kills)}", f"{complete}", complete == len(kills)
    most = max(each.hosts for each in kills)
    yield "probes sent twice because of one kill, at most", "≤ 1 host's", f"{most:.2f} hosts'", most <= 1
    closing = sum(each.closing for each in kills)
    yield "events of a port closed or a host gone", "0", f"{closing}", closing == 0


def kills_in_words(kills: Sequence[Kill], differ: float) -> str:
    """Where the probes that were sent twice come from."""
    within = sum(each.hosts <= 1 for each in kills)
    typical = statistics.median(each.hosts for each in kills)
    most = ", ".join(f"{kind} {max(each.twice[kind] for each in kills):.2f}" for kind in KINDS)
    told = max(each.told for each in kills)
    return (
        f"Probes sent twice because of one of {len(kills)} kills, in hosts: median {typical:.2f}, at most 1 after"
        f" {within} of them; at most by kind: {most}. Two scans that nobody killed differ by {differ:.2f}."
        f" Changes told of a network that did not change: at most {told} by one scan."
    )
