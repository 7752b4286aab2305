"""What captures on this machine saw answer: a source beside the scans, which may open or refresh a port.

Captures write down what they know in ``hosts.json`` beside their segments. It is read as anybody's file: in the forms
and bounds of ``inventory.snapshot``.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Final, NamedTuple

from agent.errors import StorageFailure
from agent.linux.files import why
from agent.telemetry.database import transaction
from agent.workers.inventory import snapshot
from agent.workers.inventory.sighting import FLOW, SERVICE
from agent.workers.scan.memory import writing
from agent.workers.scan.memory.beliefs import Beliefs
from agent.workers.scan.memory.coverage import Coverage
from agent.workers.scan.memory.fold import fold_passive
from agent.workers.scan.memory.settling import tell

FRESH: Final = 7 * 86400.0
"""Seconds after which a sighting says nothing about what is so now."""

AHEAD: Final = 300.0
"""Seconds that a sighting may lie in the future; beyond that some clock was wrong."""

_NANOSECONDS: Final = 1e9
_SERVICE = re.compile(r"(tcp|udp)/([0-9]{1,5})", re.ASCII)
_NAME = re.compile(r"[a-z][a-z0-9_]*", re.ASCII)


class Sighting(NamedTuple):
    """A port that answered to somebody, first and last in unix seconds."""

    address: str
    protocol: str
    number: int
    first: float
    last: float


def sightings(spool: Path, complain: Callable[[str], None]) -> list[Sighting]:
    """What all captures with a directory in ``spool`` saw answer.

    ``complain`` gets a line for each inventory that cannot be read.
    """
    found: dict[tuple[str, str, int], tuple[float, float]] = {}
    for path in _inventories(spool, complain):
        try:
            read = snapshot.read(path)
        except StorageFailure as error:
            complain(str(error))
            continue
        for address, protocol, number, first, last in _of(read) if read else ():
            before = found.get((address, protocol, number), (first, last))
            found[address, protocol, number] = min(first, before[0]), max(last, before[1])
    return [Sighting(*key, *when) for key, when in sorted(found.items())]


def take_in(
    connection: sqlite3.Connection, path: Path, site: str, seen: Iterable[Sighting], now: float
) -> Iterator[None]:
    """Fold what was sighted at addresses that the last finished run of ``site`` covered, a host at a time.

    Raises ``StorageFailure``.
    """
    row = connection.execute(
        "SELECT id, ended FROM runs WHERE status = 'finished' AND site = ? ORDER BY id DESC LIMIT 1", (site,)
    ).fetchone()
    if row is None:
        return
    run, ended = row
    coverage, beliefs = Coverage(connection, run, site), Beliefs(connection)
    fresh = (one for one in seen if now - FRESH <= one.last <= now + AHEAD)
    for address, ports in groupby(fresh, key=lambda one: one.address):
        if coverage.looked(address) or coverage.withheld(address):
            with transaction(connection, path):
                _host(connection, site, address, ports, coverage, beliefs, ended)
            yield


def _host(
    connection: sqlite3.Connection,
    site: str,
    address: str,
    ports: Iterable[Sighting],
    coverage: Coverage,
    beliefs: Beliefs,
    ended: float,
) -> None:
    number = writing.host_id(connection, site, address)
    before = state = beliefs.load(number)
    at = state.last_looked or ended
    for one in ports:
        if state.state != "up" and one.last <= at:
            continue  # the run asked since, and there was nobody
        looked = at if coverage.asked(address, one.protocol, one.number) else 0.0
        folded = fold_passive(state, (one.protocol, one.number), one.first, one.last, looked)
        state = folded.state
        tell(connection, None, site, address, folded.changes, one.last, source="passive")
    beliefs.save(number, before, state)


def _inventories(spool: Path, complain: Callable[[str], None]) -> list[Path]:
    try:
        with os.scandir(spool) as entries:
            names = sorted(entry.name for entry in entries if _NAME.fullmatch(entry.name) and entry.is_dir())
    except OSError as error:
        complain(f"{spool}: cannot be looked into: {why(error)}")
        return []
    return [spool / name / snapshot.NAME for name in names]


def _of(read: snapshot.Snapshot) -> Iterator[Sighting]:
    """The services in an inventory: who answered by what stands in flows, not who said that it would."""
    for key, row in snapshot.restore(read).addresses.items():
        for (value, source), (first, last, _) in row.facts.get(SERVICE, {}).items():
            match = _SERVICE.fullmatch(value) if source == FLOW else None
            if match and 0 < int(match[2]) <= 65535:
                yield Sighting(key.identity, match[1], int(match[2]), first / _NANOSECONDS, last / _NANOSECONDS)
