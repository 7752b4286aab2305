"""``spool/NAME/hosts.json``: what the inventory of a capture knows, for its successor and for ``agentctl hosts``.

Written whole or not at all. What is read is not believed: it is held to the same bounds and forms as what comes from
packets, so a file that somebody else has written can say what is untrue, and no more.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import msgspec

from agent.errors import StorageFailure
from agent.linux.files import open_regular, why, write_atomic
from agent.workers.capture.naming import valid_interface
from agent.workers.inventory.sighting import FACTS, LONGEST, SOURCES, station, unicast
from agent.workers.inventory.table import ADDRESS, USUAL, Key, Limits, Rows, Table

NAME = "hosts.json"
VERSION = 1

LONGEST_FILE = 64 << 20
"""Bytes: more than the bounds of a table allow to be written."""

MOST_OWN = 4096
"""MACs and addresses of this machine that are written down."""

Instant = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Count = Annotated[int, msgspec.Meta(ge=0)]


class Fact(msgspec.Struct, frozen=True, array_like=True):
    """As in ``table``: kind, value, source, first and last time; for hearsay who was told so last."""

    kind: str
    value: str
    source: str
    first: Instant
    last: Instant
    asker: str = ""


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One row of a table. ``identity`` is a MAC among stations, else an address."""

    identity: str
    first: Instant
    last: Instant
    interface: str = ""
    vlan: Annotated[int, msgspec.Meta(ge=0, le=4095)] = 0
    facts: list[Fact] = []


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The file. Times are nanoseconds since the epoch.

    ``counters``: ``dissected``, ``skipped``, ``crashed`` … packets, and what was ``evicted``. ``progress``: by
    interface the time of the last packet that was taken in. ``own``: MACs and addresses of this machine.
    """

    version: int = VERSION
    written: Instant
    counters: dict[str, Count]
    progress: dict[str, Instant]
    own: list[str]
    stations: list[Entry]
    addresses: list[Entry]
    heard: list[Entry]


class _Version(msgspec.Struct):
    version: int


class Damaged(StorageFailure):
    """The file is not what it should be."""


def write(path: Path, snapshot: Snapshot) -> int:
    """Replace the file; returns how many bytes it has. Raises ``StorageFailure``."""
    data = msgspec.json.encode(snapshot) + b"\n"
    write_atomic(path, data, mode=0o640)
    return len(data)


def read(path: Path) -> Snapshot | None:
    """The file; ``None`` when there is none. Raises ``StorageFailure``, and of it ``Damaged``."""
    try:
        with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
            data = file.read(LONGEST_FILE + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageFailure(f"{path}: cannot be read: {why(error)}") from error
    if len(data) > LONGEST_FILE:
        raise Damaged(f"{path}: longer than an inventory can be; remove it, and it is made anew")
    try:
        version = msgspec.json.decode(data, type=_Version).version
        if version > VERSION:
            raise StorageFailure(f"{path}: of version {version}; this program knows up to {VERSION}")
        return msgspec.json.decode(data, type=Snapshot)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Damaged(f"{path}: no inventory ({error}); remove it, and it is made anew") from error


def entries(rows: Rows) -> list[Entry]:
    """Rows of a table as they are written."""
    return [
        Entry(
            identity=key.identity,
            first=row.first,
            last=row.last,
            interface=key.interface,
            vlan=key.vlan,
            facts=[
                Fact(kind, value, source, *when)
                for kind, told in row.facts.items()
                for (value, source), when in told.items()
            ],
        )
        for key, row in rows.items()
    ]


def restore(snapshot: Snapshot, limits: Limits = USUAL) -> Table:
    """The tables that were written, without what cannot have been in them."""
    table = Table(limits)
    for rows, written, identify in (
        (table.stations, snapshot.stations, station),
        (table.addresses, snapshot.addresses, unicast),
        (table.heard, snapshot.heard, unicast),
    ):
        for entry in written:
            proper = entry.interface == "" if rows is table.heard else valid_interface(entry.interface)
            if proper and entry.identity and identify(entry.identity) == entry.identity:
                _put(table, rows, entry)
    return table


def _put(table: Table, rows: Rows, entry: Entry) -> None:
    key = Key(entry.interface, entry.vlan, entry.identity)
    for at in sorted((entry.first, entry.last)):
        table.put(rows, key, "", "", "", (at, at, ""))
    for fact in entry.facts:
        if _sensible(fact, rows, table):
            table.put(rows, key, fact.kind, fact.value, fact.source, (fact.first, fact.last, fact.asker))


def _sensible(fact: Fact, rows: Rows, table: Table) -> bool:
    if fact.first > fact.last or fact.source not in SOURCES or not 0 < len(fact.value) <= LONGEST:
        return False
    if fact.kind == ADDRESS:
        return rows is table.stations and unicast(fact.value) == fact.value
    hearsay = rows is table.heard
    return fact.kind in FACTS and bool(fact.asker) == hearsay and unicast(fact.asker) == fact.asker
