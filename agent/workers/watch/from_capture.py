"""What the inventory of a capture says, as drift takes it: who answers at which port, and which MAC has what."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from agent.workers.inventory import snapshot
from agent.workers.inventory.sighting import FLOW, SERVICE
from agent.workers.inventory.table import ADDRESS, Key, Row
from agent.workers.watch.sources import Claim, Sight

_NANO = 1e9


class Seen(NamedTuple):
    """``written`` is unix seconds."""

    sights: list[Sight]
    claims: list[Claim]
    written: float


def read(directory: Path, capture: str) -> Seen | None:
    """What ``hosts.json`` in the store of a capture says; ``None`` when there is none. Raises ``StorageFailure``."""
    found = snapshot.read(directory / snapshot.NAME)
    if found is None:
        return None
    table = snapshot.restore(found)
    sights = [sight for key, row in table.addresses.items() for sight in _sights(capture, key, row)]
    claims = [
        Claim(capture, key.interface, key.vlan, address, key.identity, first / _NANO, last / _NANO)
        for key, row in table.stations.items()
        for (address, _), (first, last, _) in row.facts.get(ADDRESS, {}).items()
    ]
    return Seen(sights, _merged(claims), found.written / _NANO)


def _sights(capture: str, key: Key, row: Row) -> list[Sight]:
    """Ports at which the address was seen to answer. What it only says that it offers is not one."""
    found = []
    for (value, source), (first, last, _) in row.facts.get(SERVICE, {}).items():
        protocol, _, port = value.partition("/")
        if source == FLOW and protocol in ("tcp", "udp") and port.isascii() and port.isdecimal() and len(port) < 6:
            place = (capture, key.interface, key.vlan, key.identity)
            found.append(Sight(*place, protocol, int(port), first / _NANO, last / _NANO))
    return found


def _merged(claims: list[Claim]) -> list[Claim]:
    """One of each MAC and address: ARP and others may both have told."""
    found: dict[tuple[str, int, str, str], Claim] = {}
    for claim in claims:
        key = (claim.interface, claim.vlan, claim.address, claim.mac)
        before = found.get(key, claim)
        found[key] = claim._replace(first=min(before.first, claim.first), last=max(before.last, claim.last))
    return list(found.values())
