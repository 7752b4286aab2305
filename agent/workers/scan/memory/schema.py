"""The tables of ``scan.db``, version 3.

Three layers. What was done: ``runs``, ``chunks``, ``coverage``, ``raw``. What was seen, only ever added to: ``seen``,
which points to ``pictures`` that many hosts and runs share. What is so now, folded from that: ``hosts``, ``ports``,
``services``, and the ``changes`` that led there. All times are unix seconds.

Identity is the address within a site, and for a port its protocol and number. A MAC or a name is told of a host and
never decides which host it is: both move.
"""

from __future__ import annotations

import sqlite3
from typing import Final

VERSION: Final = 3

TABLES: Final = (
    """
    CREATE TABLE runs (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        site TEXT NOT NULL,
        started REAL NOT NULL,
        ended REAL,
        stored REAL NOT NULL,               -- when it was begun here, or taken in
        status TEXT NOT NULL
            CHECK (status IN ('running', 'finished', 'failed', 'interrupted', 'stopped', 'imported')),
        message TEXT NOT NULL DEFAULT '',
        degraded TEXT NOT NULL DEFAULT '',  -- why what it did not find is not to be believed; empty: it is
        plan_hash TEXT NOT NULL,
        seed INTEGER NOT NULL DEFAULT 0,    -- in which order it is asked, with plan_hash
        profile TEXT NOT NULL DEFAULT '',
        engine TEXT NOT NULL DEFAULT '',
        nmap_version TEXT NOT NULL DEFAULT '',
        declared TEXT NOT NULL,             -- JSON: what was declared
        argv TEXT NOT NULL,                 -- JSON: of an imported report, its command line
        sent INTEGER NOT NULL DEFAULT 0,    -- probes
        answered INTEGER NOT NULL DEFAULT 0,
        loss REAL,                          -- of probes, from 0 to 1; NULL: not measured
        hosts_total INTEGER NOT NULL,       -- addresses
        hosts_up INTEGER NOT NULL DEFAULT 0,
        ports_open INTEGER NOT NULL DEFAULT 0,
        chunks_total INTEGER NOT NULL,
        chunks_done INTEGER NOT NULL DEFAULT 0,
        quiet INTEGER NOT NULL DEFAULT 0,   -- 1: of the past, so that its changes are no events
        failures INTEGER NOT NULL DEFAULT 0, -- how often it has failed, if it was continued after that
        failure TEXT NOT NULL DEFAULT '',   -- why, the last time
        everything INTEGER NOT NULL DEFAULT 0, -- hosts that say open to everything, counted when they are folded
        folded_to INTEGER NOT NULL DEFAULT 0, -- hosts up to this id were folded into what is so now
        folded INTEGER NOT NULL DEFAULT 0   -- 1: all were
    )
    """,
    "CREATE INDEX runs_to_fold ON runs (id) WHERE NOT folded",
    "CREATE INDEX runs_by_status ON runs (status, id)",
    """
    CREATE TABLE chunks (                   -- parts of a run that are complete
        run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
        number INTEGER NOT NULL,
        ended REAL NOT NULL,
        hosts INTEGER NOT NULL,             -- addresses
        PRIMARY KEY (run, number)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE discovered (               -- parts of a run of which it is known who is there, until it is folded
        run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
        number INTEGER NOT NULL,            -- as in chunks
        PRIMARY KEY (run, number)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE again (                    -- what a run is to look at twice and has not yet
        run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
        number INTEGER NOT NULL,
        lot TEXT NOT NULL,                  -- JSON
        PRIMARY KEY (run, number)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE port_sets (                -- what a host was asked for
        id INTEGER PRIMARY KEY,
        ports TEXT NOT NULL UNIQUE          -- JSON: [["tcp", [[1, 1024]]]]; []: only whether it is there
    )
    """,
    """
    CREATE TABLE coverage (                 -- addresses that were asked and of which there is no picture
        run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
        family INTEGER NOT NULL,            -- 4 or 6
        zone TEXT NOT NULL,
        low BLOB NOT NULL,                  -- 4 or 16 bytes, big-endian
        high BLOB NOT NULL,
        ports INTEGER NOT NULL,             -- of port_sets
        outcome TEXT NOT NULL,              -- silent: nobody answered. What else: it is not known, and why.
        -- blind, dark: of these addresses, with a picture or not, nothing is said to be closed or gone.
        -- settled: one look is enough for that
        PRIMARY KEY (run, family, zone, low, high, ports, outcome)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE pictures (                 -- all that was found out about a host, without its address
        id INTEGER PRIMARY KEY,
        key BLOB NOT NULL UNIQUE,
        ports INTEGER NOT NULL,             -- of port_sets: what the host was asked for
        last_run INTEGER NOT NULL,          -- the last that has it
        data BLOB NOT NULL
    )
    """,
    "CREATE INDEX pictures_by_last_run ON pictures (last_run)",
    "CREATE INDEX pictures_by_ports ON pictures (ports)",
    """
    CREATE TABLE hosts (
        id INTEGER PRIMARY KEY,
        site TEXT NOT NULL,
        address TEXT NOT NULL,
        place BLOB NOT NULL,                -- sorts as addresses do
        state TEXT NOT NULL DEFAULT '',     -- up, gone; empty: never seen, or not known yet
        source TEXT NOT NULL DEFAULT '',    -- sweep, nmap, passive, import: who told last
        mac TEXT NOT NULL DEFAULT '',
        names TEXT NOT NULL DEFAULT '[]',   -- JSON
        os TEXT NOT NULL DEFAULT '[]',      -- JSON
        first_seen REAL NOT NULL DEFAULT 0,
        last_seen REAL NOT NULL DEFAULT 0,
        last_looked REAL NOT NULL DEFAULT 0, -- when a run last covered it
        last_changed REAL NOT NULL DEFAULT 0,
        misses INTEGER NOT NULL DEFAULT 0,  -- looks in a row that covered it and did not see it
        history INTEGER NOT NULL DEFAULT 1, -- bits below a leading one: seen or not; the lowest is the last look
        flapping INTEGER NOT NULL DEFAULT 0,
        dark INTEGER NOT NULL DEFAULT 0,    -- runs in a row in which nobody around it answered
        everything INTEGER NOT NULL DEFAULT 0, -- ports that it says open to as to any; 0: it does not
        discovery TEXT NOT NULL DEFAULT 'any', -- raw, connect: it last answered who asked so whether it is there;
        -- empty: it did not; any: not known
        answers INTEGER NOT NULL DEFAULT 0, -- of port_sets: the ports at which it last answered; 0: none
        UNIQUE (site, address)
    )
    """,
    "CREATE INDEX hosts_in_order ON hosts (site, place)",
    """
    CREATE TABLE seen (
        run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
        host INTEGER NOT NULL,
        at INTEGER NOT NULL,                -- seconds after the run began
        picture INTEGER NOT NULL,
        stage INTEGER NOT NULL,             -- how far the host is done
        PRIMARY KEY (run, host)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE rechecked (                -- what the run looked at twice, until it is folded
        run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
        host INTEGER NOT NULL,
        proto TEXT NOT NULL,                -- empty: the host itself
        port INTEGER NOT NULL,
        PRIMARY KEY (run, host, proto, port)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE services (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL,
        product TEXT NOT NULL,
        version TEXT NOT NULL,
        extrainfo TEXT NOT NULL,
        tunnel TEXT NOT NULL,
        cpe TEXT NOT NULL,                  -- JSON
        method TEXT NOT NULL,
        certificate TEXT NOT NULL,          -- JSON; empty: none
        UNIQUE (name, product, version, extrainfo, tunnel, cpe, method, certificate)
    )
    """,
    """
    CREATE TABLE ports (
        host INTEGER NOT NULL,
        proto TEXT NOT NULL,
        port INTEGER NOT NULL,
        state TEXT NOT NULL,                -- open, closed, filtered …; empty: open once, not confirmed yet
        reason TEXT NOT NULL,
        service INTEGER,
        source TEXT NOT NULL,
        first_seen REAL NOT NULL,           -- open
        last_seen REAL NOT NULL,            -- open
        last_looked REAL NOT NULL,
        last_changed REAL NOT NULL,
        pending TEXT NOT NULL,              -- the state that the last looks saw instead
        misses INTEGER NOT NULL,            -- how many looks in a row did
        history INTEGER NOT NULL,           -- bits: open or not
        service_history INTEGER NOT NULL,   -- bits: another service than before or not
        flapping INTEGER NOT NULL,          -- bits: 1 the state, 2 the service
        lately INTEGER,                     -- of services: what the last look found while the service flaps
        PRIMARY KEY (host, proto, port)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX ports_by_service ON ports (service)",
    "CREATE INDEX ports_flapping ON ports (lately) WHERE lately IS NOT NULL",
    """
    CREATE TABLE changes (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        run INTEGER,                        -- may be forgotten already; NULL: seen by a capture
        time REAL NOT NULL,
        site TEXT NOT NULL,
        address TEXT NOT NULL,
        proto TEXT NOT NULL,                -- empty: of the host
        port INTEGER NOT NULL,
        kind TEXT NOT NULL,
        old TEXT NOT NULL,
        new TEXT NOT NULL,
        source TEXT NOT NULL,
        told INTEGER NOT NULL DEFAULT 0     -- 1: as an event
    )
    """,
    "CREATE INDEX changes_by_time ON changes (time, id)",
    "CREATE INDEX changes_by_run ON changes (run, id)",
    "CREATE INDEX changes_untold ON changes (id) WHERE NOT told",
    """
    CREATE TABLE quarantine (               -- ports that accept and say nothing
        site TEXT NOT NULL,
        address TEXT NOT NULL,
        proto TEXT NOT NULL,
        port INTEGER NOT NULL,
        since REAL NOT NULL,
        tries INTEGER NOT NULL,
        next_try REAL NOT NULL,
        PRIMARY KEY (site, address, proto, port)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE raw (
        id INTEGER PRIMARY KEY,
        run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
        made REAL NOT NULL,
        xml BLOB NOT NULL                   -- zlib (RFC 1950)
    )
    """,
    "CREATE INDEX raw_by_run ON raw (run)",
    "CREATE INDEX raw_by_age ON raw (made)",
)


def create(connection: sqlite3.Connection) -> None:
    """Make the tables in an empty database."""
    for statement in TABLES:
        connection.execute(statement)
