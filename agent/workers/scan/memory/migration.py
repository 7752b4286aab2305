"""Bringing a ``scan.db`` of an older version to the tables of this one.

Version 1 kept every host and port of every run in rows of their own, and the ports that were asked and not told of by
themselves not at all: of those it is known only that they were not open. Version 2 did not know
in which ways a host answers, and of a service that flaps what it was at the last look.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from agent.declaration.ports import parse_ports
from agent.errors import ConfigurationError, StorageFailure
from agent.workers.scan import spans
from agent.workers.scan.found import PROTOCOLS, UNTOLD, Host, Port, Rest
from agent.workers.scan.memory import schema, writing
from agent.workers.scan.memory.coverage import Asked
from agent.workers.scan.memory.place import Line, place
from agent.workers.scan.plan import make_plan
from agent.workers.scan.spans import Ranges, merge, without

_OLD: Final = ("runs", "chunks", "hosts", "ports")


def migrate(connection: sqlite3.Connection, found: int, *, site: str) -> None:
    """Bring the schema from version ``found`` to ``schema.VERSION``; what is there becomes that of ``site``."""
    if found == 0:
        schema.create(connection)
        return
    if found == 2:
        connection.execute("ALTER TABLE hosts ADD COLUMN discovery TEXT NOT NULL DEFAULT 'any'")
        connection.execute("ALTER TABLE hosts ADD COLUMN answers INTEGER NOT NULL DEFAULT 0")
        connection.execute("ALTER TABLE ports ADD COLUMN lately INTEGER")
        connection.execute("CREATE INDEX ports_flapping ON ports (lately) WHERE lately IS NOT NULL")
        return
    for table in _OLD:
        connection.execute(f"ALTER TABLE {table} RENAME TO old_{table}")
    schema.create(connection)
    connection.execute(
        "INSERT INTO runs (id, site, started, ended, stored, status, message, plan_hash, nmap_version, declared, argv,"
        " hosts_total, chunks_total, chunks_done, quiet)"
        " SELECT id, ?, started, ended, started, status, message, plan_hash, nmap_version, coverage, argv,"
        " hosts_total, chunks_total, chunks_done, 1 FROM old_runs ORDER BY id",
        (site,),
    )
    connection.execute(
        "INSERT INTO chunks (run, number, ended, hosts) SELECT run, number, ended, hosts FROM old_chunks"
    )
    for number, started, declared in connection.execute("SELECT id, started, declared FROM runs").fetchall():
        _run(connection, writing.Run(number, started=started, site=site), _declared(declared))
    for table in reversed(_OLD):
        connection.execute(f"DROP TABLE old_{table}")


def _run(connection: sqlite3.Connection, run: writing.Run, declared: Mapping[str, Any]) -> None:
    """What one run found and asked."""
    wanted = _ports(declared)
    ends = {}
    answered: dict[Line, list[tuple[int, int]]] = {}
    for low, high, ended in connection.execute("SELECT first, last, ended FROM old_chunks WHERE run = ?", (run.id,)):
        ends[low, high] = ended
    last = max(ends.values(), default=run.started)
    up = ports = 0
    for host in _hosts(connection, run.id, wanted):
        line, number = place(host.address)
        answered.setdefault(line, []).append((number, number))
        more_up, more_ports = writing.add_host(connection, run, host, last, writing.DETECTED)
        up, ports = up + more_up, ports + more_ports
    # Nobody answered at the others, so they were asked for a sign of life and nothing else.
    silent = (
        Asked(line, without(found, merge(answered.get(line, ()))), (), "silent")
        for line, found in _asked(declared, ends).items()
    )
    writing.add_asked(connection, run.id, silent)
    connection.execute(
        "UPDATE runs SET hosts_up = ?, ports_open = ?, profile = ? WHERE id = ?",
        (up, ports, str(declared.get("profile", ""))[:40], run.id),
    )


def _hosts(connection: sqlite3.Connection, run: int, wanted: Ranges) -> Iterator[Host]:
    query = "SELECT address, state, reason, mac, names FROM old_hosts WHERE run = ?"
    for address, state, reason, mac, names in connection.execute(query, (run,)).fetchall():
        ports = tuple(
            _port(row)
            for row in connection.execute(
                "SELECT proto, port, state, reason, service, product, version, extrainfo, tunnel, cpe FROM old_ports"
                " WHERE run = ? AND address = ?",
                (run, address),
            )
            if row[0] in PROTOCOLS
        )
        yield with_rest(Host(address, state, reason, mac, tuple(json.loads(names)), ports), wanted)


def _port(row: tuple[Any, ...]) -> Port:
    protocol, number, state, reason, service, product, version, extrainfo, tunnel, cpe = row
    return Port(protocol, number, state, reason, service, product, version, extrainfo, tunnel, tuple(json.loads(cpe)))


def with_rest(host: Host, wanted: Ranges) -> Host:
    """A host that was asked for all the TCP ports ``wanted`` and tells only of some: the others were not open."""
    untold = without(wanted, spans.of(port.number for port in host.ports if port.protocol == "tcp"))
    return replace(host, rest=(Rest("tcp", UNTOLD, "", untold),)) if host.state == "up" and untold else host


def _asked(declared: Mapping[str, Any], ends: Mapping[tuple[str, str], float]) -> dict[Line, Ranges]:
    """The addresses of the chunks that were done: of what was declared, what lies within one."""
    try:
        groups = make_plan(declared["targets"], declared["exclude"], declared["targets"]).groups
    except (ConfigurationError, KeyError, TypeError):
        return {}
    found = {}
    for group in groups:
        line = Line(group.family, group.zone)
        done = merge((place(low).number, place(high).number) for low, high in ends if place(low).line == line)
        found[line] = without(group.ranges, without(group.ranges, done))
    return found


def _ports(declared: Mapping[str, Any]) -> Ranges:
    try:
        return parse_ports(declared["ports"]).tcp if declared.get("ports") else ()
    except (ConfigurationError, TypeError):
        return ()


def _declared(written: str) -> Mapping[str, Any]:
    try:
        found = json.loads(written)
    except ValueError as error:
        raise StorageFailure(f"what run was declared to do cannot be read: {written[:40]!r}") from error
    return found if isinstance(found, dict) else {}
