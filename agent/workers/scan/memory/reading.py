"""Reading the memory of a scan service, also while its worker writes. Nothing is ever changed.

For ``agentctl`` and the watch. The files are somebody else's: root reads them inside ``seen_by`` of agent.linux.owner,
from the opening to the closing, because SQLite opens files beside the database when it needs them. Every method raises
``StorageFailure``, with one line for a person.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from agent.errors import StorageFailure
from agent.workers.scan.found import Host
from agent.workers.scan.memory.beliefs import SERVICE, read_json, read_service
from agent.workers.scan.memory.coverage import Coverage
from agent.workers.scan.memory.opening import open_memory, told
from agent.workers.scan.memory.picture import decode
from agent.workers.scan.memory.place import place
from agent.workers.scan.memory.rows import Canary, Change, HostNow, Pair, PortNow, Quarantined, Run
from agent.workers.scan.memory.state import Service
from agent.workers.scan.spans import Ranges

__all__ = ["Canary", "Change", "HostNow", "Memory", "Pair", "PortNow", "Quarantined", "Run", "canaries"]

LONGEST_XML: Final = 64 << 20
"""Bytes of one document of nmap's when it is inflated: what it says of some thousand addresses stays far below."""


_RUN: Final = (
    "SELECT id, site, started, ended, status, message, degraded, plan_hash, seed, profile, engine, nmap_version,"
    " declared, argv, sent, answered, loss, hosts_total, hosts_up, ports_open, chunks_total, chunks_done,"
    " everything, folded"
    " FROM runs"
)
_CHANGE: Final = "SELECT id, run, time, site, address, proto, port, kind, old, new, source FROM changes"
_SERVICES: Final = SERVICE.replace("SELECT", "SELECT id,", 1)
_UNKNOWN: Final = Service()
_NO_PORTS: Final[tuple[int, Iterator[tuple[Any, ...]]]] = (0, iter(()))
_RUN_FIELDS: Final = tuple(field.name for field in fields(Run))
_CHANGE_FIELDS: Final = tuple(field.name for field in fields(Change))
_HOST_FIELDS: Final = tuple(field.name for field in fields(HostNow))
_BOTH: Final = 0b11
"""In the history of a port: open at each of the last two looks, if there were two."""


_T = TypeVar("_T")


class Memory:
    """One ``scan.db``, open for reading; a context manager."""

    def __init__(self, path: Path) -> None:
        """Raises ``StorageFailure`` when there is none, or it cannot be read, or is of another version."""
        self.path = path
        self._connection = open_memory(path)

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Memory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def runs(self, limit: int = 50, *, before: int | None = None) -> list[Run]:
        """The newest runs, newest first; ``before``: only those with a lower id."""
        below = 2**63 - 1 if before is None else before
        return [self._run(row) for row in self._rows(f"{_RUN} WHERE id < ? ORDER BY id DESC LIMIT ?", below, limit)]

    def run(self, number: int) -> Run | None:
        """One run; ``None`` when there is none of this id, or no more."""
        return next((self._run(row) for row in self._rows(f"{_RUN} WHERE id = ?", number)), None)

    def hosts(self, run: int) -> Iterator[Host]:
        """What a run found, by address. Hosts that did not answer are in its ``coverage`` only."""
        query = (
            "SELECT hosts.address, pictures.data FROM seen JOIN hosts ON hosts.id = seen.host"
            " JOIN pictures ON pictures.id = seen.picture WHERE seen.run = ? ORDER BY hosts.place"
        )
        return (self._host(address, data) for address, data in self._each(query, run))

    def host(self, run: int, address: str) -> Host | None:
        """What a run found at one address."""
        query = (
            "SELECT pictures.data FROM hosts JOIN seen ON seen.host = hosts.id AND seen.run = ?"
            " JOIN pictures ON pictures.id = seen.picture"
            " WHERE hosts.site = (SELECT site FROM runs WHERE id = ?) AND hosts.address = ?"
        )
        return next((self._host(address, data) for (data,) in self._rows(query, run, run, address)), None)

    def differing(self, before: int, after: int) -> Iterator[Pair]:
        """The hosts that do not look the same in two runs, by address, those that only one of them has among them.

        Whether the other one would have seen such a host is for its ``coverage`` to say.
        """
        query = """
            SELECT address, old.data, new.data FROM (
                SELECT hosts.address, hosts.place, one.picture AS before, other.picture AS after
                FROM seen AS one JOIN hosts ON hosts.id = one.host
                LEFT JOIN seen AS other ON other.run = ?2 AND other.host = one.host
                WHERE one.run = ?1 AND other.picture IS NOT one.picture
                UNION ALL
                SELECT hosts.address, hosts.place, NULL, other.picture
                FROM seen AS other JOIN hosts ON hosts.id = other.host
                WHERE other.run = ?2 AND NOT EXISTS (SELECT 1 FROM seen WHERE run = ?1 AND host = other.host)
            ) LEFT JOIN pictures AS old ON old.id = before LEFT JOIN pictures AS new ON new.id = after ORDER BY place
        """
        for address, old, new in self._each(query, before, after):
            yield Pair(self._host(address, old) if old else None, self._host(address, new) if new else None)

    def now(self, *, site: str | None = None, gone: bool = False) -> Iterator[HostNow]:
        """What is so now, by address: hosts with their ports, of ``site`` or of all. ``gone``: also those that went."""
        query = (
            "SELECT id, address, site, state, source, mac, names, os, first_seen, last_seen, last_looked,"
            " last_changed, misses, flapping, everything FROM hosts WHERE state IN ('up', ?)"
            " AND (?2 IS NULL OR site = ?2) ORDER BY site, place"
        )
        ports = (
            "SELECT address, proto, port,"
            " CASE ports.state WHEN '' THEN 'open' ELSE ports.state END, reason, ports.source, ports.first_seen,"
            " ports.last_seen, ports.last_looked, ports.last_changed, ports.misses,"
            " CASE WHEN ports.state = '' THEN 'likely' WHEN ports.misses OR ports.flapping THEN 'doubtful'"
            " WHEN ports.source = 'passive' THEN 'likely' ELSE 'certain' END, service, ports.flapping, hosts.id"
            " FROM hosts CROSS JOIN ports ON ports.host = hosts.id"
            " WHERE hosts.state IN ('up', ?) AND (?2 IS NULL OR site = ?2) ORDER BY site, place, proto, port"
        )
        wanted = ("gone" if gone else "up", site)
        services = {number: self._service(row) for number, *row in self._rows(_SERVICES)}
        # Both are read as of one moment: a connection looks at one as long as any of its statements is under way.
        by_host = groupby(self._each(ports, *wanted), itemgetter(-1))
        following, rows = next(by_host, _NO_PORTS)
        for number, address, *rest in self._each(query, *wanted):
            found: list[tuple[Any, ...]] = []
            if following == number:
                found = [(*row[:-3], services.get(row[-3], _UNKNOWN), row[-2] != 0) for row in rows]
                following, rows = next(by_host, _NO_PORTS)
            yield self._host_now((address, *rest, found))

    def changes(
        self,
        *,
        since: float | None = None,
        until: float | None = None,
        run: int | None = None,
        after: int | None = None,
        limit: int = 1000,
    ) -> list[Change]:
        """Changes in the order in which they were told.

        ``since`` and ``until`` (not included) are unix seconds. With ``after``, the id of a change, the first ``limit``
        beyond it, for a reader that goes on where it was; otherwise the last ``limit``.
        """
        wanted = ["time >= ?", "time < ?"]
        values: list[object] = [since if since is not None else -1e300, until if until is not None else 1e300]
        if run is not None:
            wanted.append("run = ?")
            values.append(run)
        if after is not None:
            wanted.append("id > ?")
            values.append(after)
        way = "ASC" if after is not None else "DESC"
        query = f"{_CHANGE} WHERE {' AND '.join(wanted)} ORDER BY id {way} LIMIT ?"
        rows = self._rows(query, *values, limit)
        found = [self._typed(dict(zip(_CHANGE_FIELDS, row, strict=True)), Change) for row in rows]
        return found if after is not None else found[::-1]

    def coverage(self, run: int) -> Coverage:
        """What a run asked; an unknown one asked nothing."""
        row = next(self._rows("SELECT site FROM runs WHERE id = ?", run), None)
        return Coverage(self._connection, run, row[0] if row else "")

    def canaries(
        self, addresses: Iterable[str], protocol: str = "tcp", *, site: str = "", within: Ranges | None = None
    ) -> list[Canary]:
        """The ports at these ``addresses`` that the last runs found open without fail, one of each host, those known
        longest first; of those ``within``, or of all."""
        return canaries(self._connection, addresses, protocol, site, within)

    def quarantine(self) -> list[Quarantined]:
        """The silent ports."""
        query = "SELECT address, proto, port, since, tries, next_try FROM quarantine ORDER BY address, proto, port"
        return [Quarantined(*row) for row in self._rows(query)]

    def raw(self, run: int) -> Iterator[bytes]:
        """nmap's own XML, one document after the other, as long as it is kept."""
        for (xml,) in self._each("SELECT xml FROM raw WHERE run = ? ORDER BY id", run):
            inflater = zlib.decompressobj()
            try:
                document = inflater.decompress(xml, LONGEST_XML)
            except zlib.error as error:
                raise StorageFailure(f"{self.path}: nmap's XML of run {run} cannot be inflated: {error}") from error
            if not inflater.eof:
                raise StorageFailure(f"{self.path}: nmap's XML of run {run} is cut short, or too much")
            yield document

    def _typed(self, values: object, kind: type[_T]) -> _T:
        """Values out of the database as what they should be. Raises ``StorageFailure`` for what they cannot be."""
        try:
            return msgspec.convert(values, kind)
        except msgspec.ValidationError as error:
            raise StorageFailure(f"{self.path}: it holds what does not belong there: {error}") from error

    def _run(self, row: tuple[Any, ...]) -> Run:
        values = dict(zip(_RUN_FIELDS, row, strict=True))
        values["declared"] = read_json(values["declared"], dict[str, Any])
        values["argv"] = read_json(values["argv"], list[str])
        values["folded"] = bool(values["folded"])
        return self._typed(values, Run)

    def _host(self, address: Any, data: bytes) -> Host:
        try:
            place(address)
        except (AttributeError, TypeError, ValueError) as error:
            raise StorageFailure(f"{self.path}: it holds a host without an address") from error
        return decode(address, data)

    def _host_now(self, row: Sequence[Any]) -> HostNow:
        values = dict(zip(_HOST_FIELDS, row, strict=True))
        for name in ("names", "os"):
            values[name] = read_json(values[name], tuple[str, ...])
        values["flapping"] = bool(values["flapping"])
        return self._typed(values, HostNow)

    def _service(self, row: Sequence[Any]) -> Service:
        return self._typed(msgspec.structs.asdict(read_service(row)), Service)

    def _rows(self, query: str, *values: object) -> Iterator[tuple[Any, ...]]:
        """All rows at once: for few of them."""
        with told(self.path):
            return iter(self._connection.execute(query, values).fetchall())

    def _each(self, query: str, *values: object) -> Iterator[tuple[Any, ...]]:
        """Row by row: for many of them."""
        with told(self.path):
            for row in self._connection.execute(query, values):  # noqa: UP028 - a cursor does not close a closed database
                yield row


_CANARY: Final = "SELECT hosts.address, ports.proto, min(ports.port) FROM"
_STEADY: Final = (
    "CROSS JOIN ports ON ports.host = hosts.id AND ports.proto = ?3"
    " WHERE hosts.state = 'up' AND NOT hosts.misses AND ports.state = 'open' AND NOT ports.misses"
    " AND NOT ports.flapping AND ports.source != 'passive' AND ports.history > ?4 AND ports.history & ?4 = ?4"
    " AND (?5 IS NULL OR ports.port IN (SELECT value FROM json_each(?5)))"
    " GROUP BY hosts.id ORDER BY min(ports.first_seen), hosts.place"
)


def canaries(
    connection: sqlite3.Connection, addresses: Iterable[str], protocol: str, site: str, within: Ranges | None
) -> list[Canary]:
    """See ``Memory.canaries``; the worker asks on its own connection."""
    rows = connection.execute(
        f"{_CANARY} json_each(?1) AS wanted CROSS JOIN hosts ON hosts.site = ?2 AND hosts.address = wanted.value"
        f" {_STEADY}",
        (json.dumps(list(addresses)), site, protocol, _BOTH, _numbers(within)),
    )
    return [Canary(*row) for row in rows]


def canaries_met(connection: sqlite3.Connection, run: int, protocol: str, within: Ranges | None) -> list[Canary]:
    """The same of the hosts that a run has met so far."""
    rows = connection.execute(
        f"{_CANARY} seen CROSS JOIN hosts ON hosts.id = seen.host AND seen.run = ?1 AND ?2 IS NULL {_STEADY}",
        (run, None, protocol, _BOTH, _numbers(within)),
    )
    return [Canary(*row) for row in rows]


def _numbers(within: Ranges | None) -> str | None:
    """Each port by itself, as JSON: SQLite makes an index of them, which it could not of ranges."""
    if within is None:
        return None
    return json.dumps([number for low, high in within for number in range(low, high + 1)])
