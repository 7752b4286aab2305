"""Putting what a run found into the tables. Each function is called inside a transaction of its caller."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from agent.workers.scan.found import Host, answered
from agent.workers.scan.memory.coverage import Asked, asked, joined, port_set, read_ports
from agent.workers.scan.memory.picture import PortSet, decode, encode, join, tidy
from agent.workers.scan.memory.picture import asked as asked_of
from agent.workers.scan.memory.place import Line, order, pack, unpack
from agent.workers.scan.memory.state import HOST

SWEPT: Final = 1
DETECTED: Final = 2
"""Stages of a host: its ports were asked; and what answers at those that are open."""


@dataclass(frozen=True, slots=True)
class Task:
    """What a run is to do. ``declared`` is JSON, for people and for whoever compares; ``hosts`` are addresses.

    Only a run of the same ``plan_hash`` goes on with what an interrupted one found; it goes on with its ``seed`` too.
    """

    plan_hash: str
    hosts: int
    chunks: int
    declared: str = "{}"
    argv: Sequence[str] = ()
    seed: int = 0
    profile: str = ""
    engine: str = ""
    nmap_version: str = ""


@dataclass(slots=True)
class Run:
    """A run under way. The counts include what an interrupted predecessor had done. ``done`` are the numbers of the
    chunks that are complete, ``discovered`` of those of which it is known who is there. ``failures``: how often it has
    failed so far, for ``failure`` the last time. ``sent`` and ``answered`` are the probes of its
    predecessors, as far as they were stored."""

    id: int
    done: set[int] = field(default_factory=set)
    discovered: set[int] = field(default_factory=set)
    hosts_done: int = 0
    hosts_up: int = 0
    ports_open: int = 0
    seed: int = 0
    started: float = 0.0
    site: str = ""
    resumed: bool = False
    failures: int = 0
    failure: str = ""
    sent: int = 0
    answered: int = 0

    def after(self) -> str:
        """What is to be told of that; empty when it has not failed."""
        times = "once" if self.failures == 1 else f"{self.failures} times"
        return f"has failed {times} and was continued: {self.failure}" if self.failures else ""


def add_run(connection: sqlite3.Connection, task: Task, site: str, started: float, status: str, now: float) -> Run:
    """A new run; ``now`` is when it is stored."""
    cursor = connection.execute(
        "INSERT INTO runs (site, started, stored, status, plan_hash, seed, profile, engine, nmap_version, declared,"
        " argv, hosts_total, chunks_total) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            site,
            started,
            now,
            status,
            task.plan_hash,
            task.seed,
            task.profile,
            task.engine,
            task.nmap_version,
            task.declared,
            json.dumps(list(task.argv)),
            task.hosts,
            task.chunks,
        ),
    )
    return Run(int(cursor.lastrowid or 0), seed=task.seed, started=started, site=site)


def add_host(connection: sqlite3.Connection, run: Run, host: Host, now: float, stage: int) -> tuple[int, int]:
    """Keep what was found out about one host, together with what this run knew of it already.

    Returns how many hosts up and open ports there are more than before. Raises ``ValueError`` for no address.
    """
    number = host_id(connection, run.site, host.address)
    row = connection.execute(
        "SELECT pictures.data, seen.stage FROM seen JOIN pictures ON pictures.id = seen.picture"
        " WHERE seen.run = ? AND seen.host = ?",
        (run.id, number),
    ).fetchone()
    before = decode(host.address, row[0]) if row else None
    host = tidy(host) if before is None else join(before, host)
    connection.execute(
        "INSERT OR REPLACE INTO seen (run, host, at, picture, stage) VALUES (?, ?, ?, ?, ?)",
        (run.id, number, int(now - run.started), _picture(connection, run.id, host), max(stage, row[1] if row else 0)),
    )
    old = (0, 0) if before is None else _counts(before)
    new = _counts(host)
    return new[0] - old[0], new[1] - old[1]


def add_asked(connection: sqlite3.Connection, run: int, parts: Iterable[Asked]) -> None:
    """Keep that addresses were asked and that there is no picture of them."""
    for part in joined(parts):
        ports = port_set(connection, part.ports)
        family, zone = part.line
        connection.executemany(
            "INSERT OR IGNORE INTO coverage VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                (run, family, zone, pack(family, low), pack(family, high), ports, part.outcome)
                for low, high in part.addresses
            ),
        )


def gather(connection: sqlite3.Connection, run: int) -> None:
    """Make one range of those that touch: each chunk has brought its own."""
    rows = connection.execute(
        "SELECT family, zone, low, high, port_sets.ports, outcome FROM coverage"
        " JOIN port_sets ON port_sets.id = coverage.ports WHERE run = ?",
        (run,),
    ).fetchall()
    parts = [
        Asked(Line(family, zone), ((unpack(low), unpack(high)),), read_ports(ports), outcome)
        for family, zone, low, high, ports, outcome in rows
    ]
    if sum(len(part.addresses) for part in joined(parts)) < len(rows):
        connection.execute("DELETE FROM coverage WHERE run = ?", (run,))
        add_asked(connection, run, parts)


def add_raw(connection: sqlite3.Connection, run: int, document: bytes, now: float) -> None:
    """Keep a document of nmap's."""
    connection.execute("INSERT INTO raw (run, made, xml) VALUES (?, ?, ?)", (run, now, zlib.compress(document, 6)))


def unfinished(connection: sqlite3.Connection, run: Run, address: str) -> None:
    """An open port more is known of a host that was thought to be done: it has the services of its ports to tell yet.

    Not one that says open to everything: it is not asked what it means.
    """
    row = connection.execute(
        "SELECT hosts.id, pictures.data FROM hosts JOIN seen ON seen.run = ? AND seen.host = hosts.id"
        " JOIN pictures ON pictures.id = seen.picture WHERE site = ? AND address = ?",
        (run.id, run.site, address),
    ).fetchone()
    if row is not None and not decode(address, row[1]).everything:
        connection.execute("UPDATE seen SET stage = min(stage, ?) WHERE run = ? AND host = ?", (SWEPT, run.id, row[0]))


def known_open(connection: sqlite3.Connection, run: Run, address: str) -> tuple[int, frozenset[tuple[str, int]]]:
    """The stage of a host in a run, 0 when it has none, and the ports at which it was found open so far."""
    row = connection.execute(
        "SELECT seen.stage, pictures.data FROM hosts JOIN seen ON seen.run = ? AND seen.host = hosts.id"
        " JOIN pictures ON pictures.id = seen.picture WHERE site = ? AND address = ?",
        (run.id, run.site, address),
    ).fetchone()
    return (row[0], frozenset(port.key for port in decode(address, row[1]).open_ports())) if row else (0, frozenset())


def has_picture(connection: sqlite3.Connection, run: Run, address: str) -> bool:
    """Whether a run has found out anything about a host."""
    row = connection.execute(
        "SELECT 1 FROM hosts JOIN seen ON seen.run = ? AND seen.host = hosts.id WHERE site = ? AND address = ?",
        (run.id, run.site, address),
    ).fetchone()
    return row is not None


def with_picture(connection: sqlite3.Connection, run: Run, addresses: Iterable[str]) -> set[str]:
    """Those of the addresses of which a run has found out anything."""
    return {address for address in addresses if has_picture(connection, run, address)}


def add_rechecked(connection: sqlite3.Connection, run: Run, host: Host) -> None:
    """Note that this host, and the ports it was asked for, were looked at twice in this run."""
    number = host_id(connection, run.site, host.address)
    ports = [(protocol, at) for protocol, found in asked_of(host) for low, high in found for at in range(low, high + 1)]
    connection.executemany(
        "INSERT OR IGNORE INTO rechecked VALUES (?, ?, ?, ?)", ((run.id, number, *key) for key in (HOST, *ports))
    )


def split(hosts: Iterable[Host]) -> tuple[list[Host], list[Asked]]:
    """Those of which a picture is worth keeping, and the others as addresses that were asked in vain."""
    kept: list[Host] = []
    silent: dict[PortSet, list[str]] = {}
    for host in hosts:
        if host.state == "up" or host.ports:
            kept.append(host)
        else:
            silent.setdefault(asked_of(host), []).append(host.address)
    return kept, [part for ports, addresses in silent.items() for part in asked(addresses, ports)]


def host_id(connection: sqlite3.Connection, site: str, address: str) -> int:
    """The number of an address at a site. Raises ``ValueError`` for text that is none."""
    row = connection.execute("SELECT id FROM hosts WHERE site = ? AND address = ?", (site, address)).fetchone()
    if row is None:
        cursor = connection.execute(
            "INSERT INTO hosts (site, address, place) VALUES (?, ?, ?)", (site, address, order(address))
        )
        return int(cursor.lastrowid or 0)
    return int(row[0])


def _picture(connection: sqlite3.Connection, run: int, host: Host) -> int:
    key, data = encode(host)
    row = connection.execute("SELECT id, last_run FROM pictures WHERE key = ?", (key,)).fetchone()
    if row is None:
        cursor = connection.execute(
            "INSERT INTO pictures (key, ports, last_run, data) VALUES (?, ?, ?, ?)",
            (key, port_set(connection, asked_of(host)), run, data),
        )
        return int(cursor.lastrowid or 0)
    if row[1] < run:
        connection.execute("UPDATE pictures SET last_run = ? WHERE id = ?", (run, row[0]))
    return int(row[0])


def _counts(host: Host) -> tuple[int, int]:
    """Whether it was met, and how many of its ports are open."""
    return int(answered(host)), sum(port.state == "open" for port in host.ports)
