"""Forgetting: what is old, and the oldest of what is too much. In small steps, each a transaction of its own.

What is there now is never forgotten, nor the last run of a site that finished, nor one that is under way or to be
continued. Pages that are freed are used again; the file itself does not shrink.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from agent.telemetry.database import transaction

DOCUMENTS: Final = 20
CHANGES: Final = 2000
HOSTS: Final = 50
"""Rows of which one step removes at most so many: documents of nmap's, changes, and hosts that have gone."""


def prune(
    connection: sqlite3.Connection, path: Path, *, max_age: float, size: int, raw: float, now: float
) -> Iterator[None]:
    """Forget step by step. ``max_age`` and ``raw`` (of nmap's XML) are seconds, ``size`` is bytes of the database.

    Raises ``StorageFailure``.
    """
    removed = False
    before = now - max_age
    for old in (_old_documents(now - raw), _old_runs(before), _old_changes(before), _old_hosts(before)):
        while _step(connection, path, *old):
            removed = True
            yield
    too_much = (_old_documents(1e300), _old_runs(1e300), _old_changes(1e300), _old_hosts(1e300))
    while _used(connection) > size and any(_step(connection, path, *oldest) for oldest in too_much):
        removed = True
        yield
    if removed:
        with transaction(connection, path):
            connection.execute(
                "DELETE FROM services WHERE NOT EXISTS (SELECT 1 FROM ports WHERE ports.service = services.id)"
                " AND NOT EXISTS (SELECT 1 FROM ports WHERE ports.lately = services.id)"
            )
            connection.execute(
                "DELETE FROM port_sets WHERE NOT EXISTS (SELECT 1 FROM pictures WHERE pictures.ports = port_sets.id)"
                " AND id NOT IN (SELECT ports FROM coverage) AND id NOT IN (SELECT answers FROM hosts)"
            )
        yield


_Oldest = tuple[str, float, int, str]
"""A query for the rows to remove next, its bound and limit, and the table."""


def _old_documents(before: float) -> _Oldest:
    return "SELECT id FROM raw WHERE made < ? ORDER BY made LIMIT ?", before, DOCUMENTS, "raw"


def _old_changes(before: float) -> _Oldest:
    return "SELECT id FROM changes WHERE time < ? AND told ORDER BY time, id LIMIT ?", before, CHANGES, "changes"


def _old_runs(before: float) -> _Oldest:
    query = (
        "SELECT id FROM runs WHERE stored < ? AND folded AND id NOT IN"
        " (SELECT max(id) FROM runs WHERE status = 'finished' GROUP BY site) ORDER BY id LIMIT ?"
    )
    return query, before, 1, "runs"


def _old_hosts(before: float) -> _Oldest:
    """Those that went, or never were more than an address, and that no run has seen that is kept."""
    query = (
        "SELECT id FROM hosts WHERE state != 'up' AND max(last_changed, last_seen) < ?"
        " AND NOT EXISTS (SELECT 1 FROM runs CROSS JOIN seen ON seen.run = runs.id AND seen.host = hosts.id)"
        " AND NOT EXISTS (SELECT 1 FROM runs CROSS JOIN rechecked"
        " ON rechecked.run = runs.id AND rechecked.host = hosts.id) LIMIT ?"
    )
    return query, before, HOSTS, "hosts"


def _step(connection: sqlite3.Connection, path: Path, query: str, before: float, limit: int, table: str) -> bool:
    """Remove the oldest; whether there were any."""
    with transaction(connection, path):
        oldest = connection.execute(query, (before, limit)).fetchall()
        for (number,) in oldest:
            if table == "runs":
                _drop_pictures(connection, number)
            elif table == "hosts":
                _drop_details(connection, number)
            connection.execute(f"DELETE FROM {table} WHERE id = ?", (number,))  # noqa: S608 - one of four names above
    return bool(oldest)


def _drop_pictures(connection: sqlite3.Connection, run: int) -> None:
    """Remove the pictures that this run was the last to have, but for those that an older one that is kept has too."""
    for (older,) in connection.execute("SELECT id FROM runs WHERE id < ? ORDER BY id DESC", (run,)).fetchall():
        connection.execute(
            "UPDATE pictures SET last_run = ?1 WHERE last_run = ?2"
            " AND id IN (SELECT picture FROM seen WHERE seen.run = ?1)",
            (older, run),
        )
    connection.execute("DELETE FROM pictures WHERE last_run = ?", (run,))


def _drop_details(connection: sqlite3.Connection, host: int) -> None:
    """Remove what is known of a host."""
    connection.execute("DELETE FROM ports WHERE host = ?", (host,))
    connection.execute(
        "DELETE FROM quarantine WHERE (site, address) = (SELECT site, address FROM hosts WHERE id = ?)", (host,)
    )


def _used(connection: sqlite3.Connection) -> int:
    """Bytes of the database that hold something."""
    [pages], [free], [page] = (
        connection.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "freelist_count", "page_size")
    )
    return int(pages - free) * int(page)
