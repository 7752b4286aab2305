"""The memory of one scan service: ``spool/NAME/scan.db``.

A chunk is stored whole, in one transaction, once it is known to be complete; so a run that is killed at any point
leaves only chunks that can be trusted, and the next run of the same plan does the rest.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agent.errors import ScanFailure, StorageFailure
from agent.telemetry.database import Opened, open_database, transaction
from agent.workers.scan.plan import Chunk, Plan
from agent.workers.scan.results import ChunkResult

SCHEMA_VERSION = 1
KEEP_RUNS = 100
"""Runs that are kept, besides the last one that finished."""

RESUME_WITHIN = 24 * 3600.0
"""Seconds. What an interrupted run found before that is too old to be part of a new picture."""

Ending = Literal["finished", "failed", "interrupted", "stopped"]

_SCHEMA = (
    """
    CREATE TABLE runs (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        started REAL NOT NULL,      -- unix seconds, as all times here
        ended REAL,
        status TEXT NOT NULL CHECK (status IN ('running', 'finished', 'failed', 'interrupted', 'stopped')),
        message TEXT NOT NULL DEFAULT '',
        plan_hash TEXT NOT NULL,
        coverage TEXT NOT NULL,     -- JSON: what was declared; with the chunks done, what was covered
        nmap_version TEXT NOT NULL DEFAULT '',
        argv TEXT NOT NULL,         -- JSON: of the first chunk
        hosts_total INTEGER NOT NULL,
        chunks_total INTEGER NOT NULL,
        chunks_done INTEGER NOT NULL DEFAULT 0
    )
    """,
    """
    CREATE TABLE chunks (
        run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
        number INTEGER NOT NULL,
        ended REAL NOT NULL,
        first TEXT NOT NULL,        -- addresses
        last TEXT NOT NULL,
        hosts INTEGER NOT NULL,
        hosts_up INTEGER NOT NULL,
        ports_open INTEGER NOT NULL,
        PRIMARY KEY (run, number)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE hosts (
        run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
        address TEXT NOT NULL,
        state TEXT NOT NULL,
        reason TEXT NOT NULL,
        mac TEXT NOT NULL,
        names TEXT NOT NULL,        -- JSON list
        PRIMARY KEY (run, address)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE ports (
        run INTEGER NOT NULL,
        address TEXT NOT NULL,
        proto TEXT NOT NULL,
        port INTEGER NOT NULL,
        state TEXT NOT NULL,
        reason TEXT NOT NULL,
        service TEXT NOT NULL,
        product TEXT NOT NULL,
        version TEXT NOT NULL,
        extrainfo TEXT NOT NULL,
        tunnel TEXT NOT NULL,
        cpe TEXT NOT NULL,          -- JSON list
        PRIMARY KEY (run, address, proto, port),
        FOREIGN KEY (run, address) REFERENCES hosts ON DELETE CASCADE
    ) WITHOUT ROWID
    """,
)


@dataclass(slots=True)
class Run:
    """A run under way. The counts include what an interrupted predecessor had done."""

    id: int
    done: set[int]
    hosts_done: int = 0
    hosts_up: int = 0
    ports_open: int = 0

    @property
    def resumed(self) -> bool:
        return bool(self.done)


class ScanStore:
    """Opened by one process at a time; a second one is refused. Every method raises ``StorageFailure``."""

    def __init__(self, path: Path) -> None:
        """Open or create the database at ``path``; ``opened`` tells whether a damaged one was moved aside.

        Raises ``ScanFailure`` while another process has it open.
        """
        self.path = path
        self._lock = _lock(path)
        try:
            self.opened: Opened = open_database(path, SCHEMA_VERSION, _migrate)
        except BaseException:
            os.close(self._lock)
            raise
        self._connection = self.opened.connection

    def close(self) -> None:
        """Let go of the file. Twice does no harm."""
        self._connection.close()
        if self._lock >= 0:
            fd, self._lock = self._lock, -1
            os.close(fd)

    def begin(self, plan: Plan, coverage: str, argv: Sequence[str], now: float) -> Run:
        """Start a run, or continue the last one if it was interrupted and had the same plan.

        Whatever is still marked as running was killed: only one process has the file open.
        """
        with transaction(self._connection, self.path):
            execute = self._connection.execute
            execute("UPDATE runs SET status = 'interrupted', ended = ? WHERE status = 'running'", (now,))
            last = execute("SELECT id, status, plan_hash, started FROM runs ORDER BY id DESC LIMIT 1").fetchone()
            if last and last[1:3] == ("interrupted", plan.plan_hash) and abs(now - last[3]) <= RESUME_WITHIN:
                execute("UPDATE runs SET status = 'running', ended = NULL WHERE id = ?", (last[0],))
                return self._resumed(last[0])
            cursor = execute(
                "INSERT INTO runs (started, status, plan_hash, coverage, argv, hosts_total, chunks_total)"
                " VALUES (?, 'running', ?, ?, ?, ?, ?)",
                (now, plan.plan_hash, coverage, json.dumps(list(argv)), plan.hosts, plan.chunk_count),
            )
            return Run(int(cursor.lastrowid or 0), set())

    def store(self, run: Run, chunk: Chunk, result: ChunkResult, now: float) -> None:
        """Keep what one chunk found and mark it done, or nothing of it."""
        with transaction(self._connection, self.path):
            execute, many = self._connection.execute, self._connection.executemany
            execute(
                "INSERT INTO chunks VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    run.id,
                    chunk.number,
                    now,
                    chunk.addresses[0],
                    chunk.addresses[-1],
                    len(chunk.addresses),
                    result.hosts_up,
                    result.ports_open,
                ),
            )
            many(
                "INSERT INTO hosts VALUES (?, ?, ?, ?, ?, ?)",
                (
                    (run.id, host.address, host.state, host.reason, host.mac, json.dumps(host.names))
                    for host in result.hosts
                ),
            )
            many(
                "INSERT INTO ports VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    (
                        run.id,
                        host.address,
                        port.protocol,
                        port.number,
                        port.state,
                        port.reason,
                        port.service,
                        port.product,
                        port.version,
                        port.extrainfo,
                        port.tunnel,
                        json.dumps(port.cpe),
                    )
                    for host in result.hosts
                    for port in host.ports
                ),
            )
            execute(
                "UPDATE runs SET chunks_done = chunks_done + 1, nmap_version = ? WHERE id = ?",
                (result.nmap_version, run.id),
            )
        run.done.add(chunk.number)
        run.hosts_done += len(chunk.addresses)
        run.hosts_up += result.hosts_up
        run.ports_open += result.ports_open

    def end(self, run: Run, status: Ending, now: float, message: str = "") -> None:
        """Close a run and forget the oldest ones."""
        with transaction(self._connection, self.path):
            self._connection.execute(
                "UPDATE runs SET status = ?, ended = ?, message = ? WHERE id = ?", (status, now, message, run.id)
            )
            self._connection.execute(
                "DELETE FROM runs WHERE id NOT IN (SELECT id FROM runs ORDER BY id DESC LIMIT ?)"
                " AND id NOT IN (SELECT id FROM runs WHERE status = 'finished' ORDER BY id DESC LIMIT 1)",
                (KEEP_RUNS,),
            )

    def _resumed(self, run: int) -> Run:
        rows = self._connection.execute(
            "SELECT number, hosts, hosts_up, ports_open FROM chunks WHERE run = ?", (run,)
        ).fetchall()
        numbers, hosts, hosts_up, ports_open = zip(*rows, strict=True) if rows else ((), (), (), ())
        return Run(run, set(numbers), sum(hosts), sum(hosts_up), sum(ports_open))


def _migrate(connection: sqlite3.Connection, found: int) -> None:
    if found < 1:
        for statement in _SCHEMA:
            connection.execute(statement)


def _lock(path: Path) -> int:
    """The lock that makes a process the only one on this database; the kernel lets go of it when we die, flock(2)."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise StorageFailure(f"{path}: the database cannot be opened: {error.strerror}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise ScanFailure(f"{path}: another scan of this service is running") from error
    return fd
