"""What changed, as events of the service: each once, and never so many that the journal drowns in them.

A change is marked as told after it was; so a worker that is killed between the two may tell it again, under the same
``change``, and never not at all.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from agent.telemetry.database import transaction
from agent.workers.scan.memory.beliefs import SERVICE, read_service

SINGLE: Final = 50
"""Changes of one run that are told one by one, the gravest first; the others are counted."""

GRAVITY: Final = (
    "tls_removed",
    "certificate_changed",
    "service_changed",
    "port_opened",
    "host_new",
    "port_closed",
    "host_gone",
    "version_changed",
    "tls_added",
    "flapping",
    "port_filtered",
)
"""Kinds of changes, those that most likely ask for somebody first."""

STEP: Final = 5_000
"""Changes that are marked as told at once."""

_FIELDS: Final = "id, run, site, address, proto, port, kind, old, new"
_UNTOLD: Final = "FROM changes INDEXED BY changes_untold WHERE NOT told AND run IS ? AND id <= ?"
_MARK: Final = f"UPDATE changes SET told = 1 WHERE id IN (SELECT id {_UNTOLD} ORDER BY id LIMIT ?)"  # noqa: S608 - from above


class Event(NamedTuple):
    """As ``Context.event`` takes it."""

    kind: str
    message: str
    data: dict[str, Any]


class _Change(NamedTuple):
    id: int
    run: int | None
    site: str
    address: str
    protocol: str
    number: int
    kind: str
    old: str
    new: str


def tell(connection: sqlite3.Connection, path: Path, event: Callable[[Event], None]) -> Iterator[None]:
    """Hand what was not told yet to ``event``, run by run, in steps of some 50 ms. Raises ``StorageFailure``.

    Many are marked in several steps: killed between two of them the rest is told once more, as changes of that run.
    """
    while rows := connection.execute(
        "SELECT run, max(id) FROM changes INDEXED BY changes_untold WHERE NOT told"
        " GROUP BY run ORDER BY min(id) LIMIT 1"
    ).fetchall():
        [(run, last)] = rows
        for one in _events(connection, run, last):
            event(one)
            yield
        marked = STEP
        while marked == STEP:
            with transaction(connection, path):
                marked = connection.execute(_MARK, (run, last, STEP)).rowcount
            yield


def _events(connection: sqlite3.Connection, run: int | None, last: int) -> Iterator[Event]:
    found: dict[str, int] = dict(connection.execute(f"SELECT kind, count(*) {_UNTOLD} GROUP BY kind", (run, last)))
    first = run is not None and _is_first(connection, run)
    grave = sorted(found, key=lambda kind: GRAVITY.index(kind) if kind in GRAVITY else len(GRAVITY))
    counts = Counter({kind: found[kind] for kind in grave})
    left = 0 if first else SINGLE
    for kind in grave:
        query = f"SELECT {_FIELDS} {_UNTOLD} AND kind = ? ORDER BY id LIMIT ?"
        single = [_Change(*row) for row in connection.execute(query, (run, last, kind, left)).fetchall()]
        left -= len(single)
        counts[kind] -= len(single)
        for change in single:
            yield Event(change.kind, _message(connection, change), _data(change))
    if others := counts.total():
        counts = +counts
        told = ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
        what = "the first scan of this network" if first else f"{others} more changes"
        yield Event("scan_changes", f"{what}: {told}", {"run": run, "first": first, "changes": others, **counts})


def _is_first(connection: sqlite3.Connection, run: int) -> bool:
    """Whether there was nothing to compare with."""
    earlier = connection.execute(
        "SELECT 1 FROM runs AS one JOIN runs AS other ON other.site = one.site AND other.id < one.id AND other.folded"
        " AND other.status IN ('finished', 'imported') WHERE one.id = ? LIMIT 1",
        (run,),
    ).fetchone()
    return earlier is None


def _message(connection: sqlite3.Connection, change: _Change) -> str:
    where = f"{change.address} {change.protocol}/{change.number}" if change.protocol else change.address
    match change.kind:
        case "host_new":
            return f"{where} answers" + (" again" if change.old == "gone" else "")
        case "host_gone":
            return f"{where} does not answer any more"
        case "port_opened":
            label = _label(connection, change)
            return f"{where} is open" + (f": {label}" if label else "")
        case "port_closed" | "port_filtered":
            return f"{where} is {change.new}, was {change.old}"
        case "flapping":
            return f"{where} comes and goes: {change.new}"
    return f"{where}: {change.old or 'nothing known'} -> {change.new or 'nothing known'}"


def _label(connection: sqlite3.Connection, change: _Change) -> str:
    found = connection.execute(
        "SELECT ports.service FROM hosts JOIN ports ON ports.host = hosts.id"
        " WHERE hosts.site = ? AND hosts.address = ? AND ports.proto = ? AND ports.port = ?",
        (change.site, change.address, change.protocol, change.number),
    ).fetchone()
    row = connection.execute(f"{SERVICE} WHERE id = ?", found or (None,)).fetchone()
    return read_service(row).label if row else ""


def _data(change: _Change) -> dict[str, Any]:
    data: dict[str, Any] = {"change": change.id, "run": change.run, "address": change.address}
    if change.protocol:
        data.update(protocol=change.protocol, port=change.number)
    return {**data, "old": change.old, "new": change.new}
