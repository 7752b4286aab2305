"""Who gave a sign of life in a run under way, of those that are known and those that it met."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping

from agent.workers.scan.blind import alive
from agent.workers.scan.found import Host, Protocol, answered
from agent.workers.scan.memory.beliefs import Beliefs
from agent.workers.scan.memory.coverage import Coverage
from agent.workers.scan.memory.picture import decode
from agent.workers.scan.memory.settling import covered
from agent.workers.scan.memory.ways import discovery_of
from agent.workers.scan.spans import Ranges


def signs(
    connection: sqlite3.Connection, run: int, site: str, within: Mapping[Protocol, Ranges]
) -> Iterator[tuple[str, bool, bool, int]]:
    """``(address, known, alive, dark)`` of each host of ``site`` that is believed to be up, or that ``run`` has met.

    Not known is one that the run did not ask in any way in which it is known to answer: its silence says nothing.
    """
    declared = connection.execute(_DISCOVERY, (run,)).fetchone()
    discovery = discovery_of(declared[0] if declared else None)
    coverage, beliefs = Coverage(connection, run, site), Beliefs(connection)
    rows = connection.execute(
        "SELECT hosts.id, hosts.address, hosts.state = 'up', hosts.dark, seen.picture FROM hosts"
        " LEFT JOIN seen ON seen.run = ? AND seen.host = hosts.id"
        " WHERE hosts.site = ? AND (hosts.state = 'up' OR seen.host IS NOT NULL) ORDER BY hosts.place",
        (run, site),
    ).fetchall()
    for number, address, known, dark, picture in rows:
        observed = _picture(connection, address, picture)
        lives = observed is not None and alive(observed, ())
        if lives and not alive(observed, _SOME):  # only then it matters what was expected of it
            lives = not _expected(connection, number, within)
        if known and not (observed and answered(observed)) and (silent := coverage.unseen(address)[0]) is not None:
            known = covered(beliefs.load(number), observed, silent, discovery)
        yield address, bool(known), lives, dark


_DISCOVERY = (
    "SELECT CASE WHEN json_valid(declared) THEN json_extract(declared, '$.discovery') END FROM runs WHERE id = ?"
)

_SOME = (("tcp", 1),)  # any port


def _picture(connection: sqlite3.Connection, address: str, picture: int | None) -> Host | None:
    if picture is None:
        return None
    row = connection.execute("SELECT data FROM pictures WHERE id = ?", (picture,)).fetchone()
    return decode(address, row[0]) if row else None


def _expected(connection: sqlite3.Connection, host: int, within: Mapping[Protocol, Ranges]) -> bool:
    """Whether it is known to have an open port of those that are asked."""
    rows = connection.execute("SELECT proto, port FROM ports WHERE host = ? AND state = 'open'", (host,)).fetchall()
    return any(low <= port <= high for protocol, port in rows for low, high in within.get(protocol, ()))
