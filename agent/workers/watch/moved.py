"""Addresses that answer from another MAC than before: as captures saw it, and as scans found it. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

from agent.telemetry.kinds import DriftSeverity
from agent.workers.watch import evidence
from agent.workers.watch.expectation import Bearing, Bearings
from agent.workers.watch.row import Evidence, Row, graver
from agent.workers.watch.sources import Claim, Looks

WITHIN: Final = 86400.0
"""Seconds for which it is told that an address has changed hands. After that the new one is what is."""


def moved(claims: Iterable[Claim], looks: Looks, bearings: Bearings, now: float) -> Iterator[Row]:
    """A row for each address that has had more than one MAC on a link within a day.

    Two at the same time is somebody who answers for another, whoever of them is right. One after the other is a
    machine that was replaced, or an address that was given to somebody else: graver where somebody expects that host.
    """
    by_link: dict[tuple[str, str, int, str], list[Claim]] = defaultdict(list)
    for claim in claims:
        by_link[claim.capture, claim.interface, claim.vlan, claim.address].append(claim)
    told: set[str] = set()
    for (_, _, _, address), held in sorted(by_link.items()):
        row = None if address in told else _one(address, held, looks, bearings.of(address), now)
        if row is not None:
            told.add(address)
            yield row


def _one(address: str, held: list[Claim], looks: Looks, bearing: Bearing, now: float) -> Row | None:
    def row(severity: DriftSeverity, what: str, since: float, *shown: Evidence) -> Row:
        return Row(
            *("other_mac", graver(severity, bearing.weight), address, "", 0, what, since, shown),
            depends=evidence.depends(shown),
            expectations=bearing.names,
        )

    usual: DriftSeverity = "medium" if bearing.expectations else "low"
    *others, holder = sorted(held, key=lambda claim: (claim.last, claim.mac))
    if others and others[-1].last >= now - WITHIN:
        before = others[-1]
        shown = (evidence.claimed(before), evidence.claimed(holder))
        if before.last > holder.first:
            since = max(before.first, holder.first)
            return row("high", f"{before.mac} and {holder.mac} both answer for it", since, *shown)
        return row(usual, f"answered from {before.mac}, and now from {holder.mac}", holder.first, *shown)
    asked = looks.host(address)
    if asked is None or holder.last < now - WITHIN:
        return None
    scanned, known = asked
    mac = known.host.mac
    if not mac or mac in {claim.mac for claim in held} or max(known.at, holder.first) < now - WITHIN:
        return None
    shown = (evidence.claimed(holder), evidence.answered_from(scanned, known))
    if known.at > holder.last:
        return row(usual, f"answered from {holder.mac}, and then the scan from {mac}", known.at, *shown)
    return row(usual, f"answered the scan from {mac}, and others from {holder.mac}", holder.first, *shown)
