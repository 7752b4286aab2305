"""The memory of one scan service as its worker writes it: ``spool/NAME/scan.db``.

What a chunk or a host told is stored whole, in one transaction, once it is known to be complete; so a run that is
killed at any point leaves only what can be trusted, and the next run of the same plan does the rest. A run goes so::

    run = store.begin(task, now)            # a new one, or the rest of one that was cut short: run.done, run.seed
    store.canaries(...), store.silent()     # what should answer, and what should be left alone
    store.store(run, hosts, now, chunk=…)   # for each chunk; then for each host whose services were looked at,
                                            #   with stage=DETECTED: store.waiting(run, DETECTED) are those to do
    store.tally(run, sent=…)                # now and then
    await look_again(store, run, …)         # of agent.workers.scan.again: a second look at what one left open
    store.end(run, "finished", now, degraded=…)
    afterwards(context, store, …)           # of agent.workers.scan.afterwards: tells, and forgets
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

from agent.errors import ScanFailure, StorageFailure
from agent.linux.files import open_regular
from agent.telemetry.database import Opened, close_database, open_database, storage_failure, transaction
from agent.workers.scan.found import Host, Protocol
from agent.workers.scan.memory import passive, reading, schema, writing
from agent.workers.scan.memory.coverage import Asked, asked
from agent.workers.scan.memory.migration import migrate
from agent.workers.scan.memory.passive import Sighting
from agent.workers.scan.memory.picture import decode
from agent.workers.scan.memory.retention import prune
from agent.workers.scan.memory.settling import FAILURES, Doubt, doubts, settle
from agent.workers.scan.memory.signs import signs
from agent.workers.scan.memory.telling import Event, tell
from agent.workers.scan.memory.writing import DETECTED, SWEPT, Run, Task
from agent.workers.scan.spans import Ranges

__all__ = ["DETECTED", "FAILURES", "RESUME_WITHIN", "SWEPT", "Ending", "Run", "ScanStore", "Task"]

RESUME_WITHIN = 24 * 3600.0
"""Seconds. What an interrupted run found before that is too old to be part of a new picture."""

MISSES: Final = 2
"""Looks in a row that miss something until it counts as closed or gone."""

_UNFINISHED: Final = (
    "SELECT id, started, seed, hosts_up, ports_open, failures, failure, sent, answered, plan_hash FROM runs"
    " WHERE id = (SELECT max(id) FROM runs WHERE status != 'imported') AND site = ? AND NOT folded"
    " AND (status = 'interrupted' OR status = 'failed' AND failures < ?) AND abs(? - started) <= ?"
)
"""The last run, if it may be continued."""

Ending = Literal["finished", "failed", "interrupted", "stopped"]
"""``interrupted`` is to be continued, and ``failed`` a few times; ``stopped``, by a person, is not."""


def _nothing() -> None:
    pass


class ScanStore:
    """Opened by one process at a time; a second one is refused. Every method raises ``StorageFailure``."""

    def __init__(
        self, path: Path, *, site: str = "", misses: int = MISSES, turn: Callable[[], None] | None = None
    ) -> None:
        """Open or create the database at ``path``; ``opened`` tells whether a damaged one was moved aside.

        ``site`` tells one 192.168.0.1 from another. ``misses``: looks in a row until something that was there counts
        as closed or gone. ``turn`` is called now and then where all of the file has to be looked through for damage:
        after a kill, and once a week. Raises ``ScanFailure`` while another process has it open.
        """
        self.path = path
        self.site = site
        self._misses = misses
        self._lock = _lock(path)
        try:
            self.opened: Opened = open_database(
                path, schema.VERSION, lambda *found: migrate(*found, site=site), turn=turn
            )
        except BaseException:
            os.close(self._lock)
            raise
        self._connection = self.opened.connection
        self._sound = True

    def close(self) -> None:
        """Let go of the file. Twice does no harm."""
        if self._lock >= 0:
            if self._sound:
                close_database(self.opened, self.path)
            self._connection.close()
            fd, self._lock = self._lock, -1
            os.close(fd)

    def begin(self, task: Task, now: float, turn: Callable[[], None] = _nothing) -> Run:
        """Start a run, or continue the last one if it was interrupted, or has failed, and had the same plan.

        Whatever is still marked as running was killed: only one process has the file open. Runs before that one are
        folded if they were not yet; ``turn`` is called between two steps of that, some 50 ms each.
        """
        run = self._begin(task, now)
        self.settle(turn)
        return run

    def _begin(self, task: Task, now: float) -> Run:
        with self._transaction():
            execute = self._connection.execute
            execute("UPDATE runs SET status = 'interrupted', ended = ? WHERE status = 'running'", (now,))
            last = execute(_UNFINISHED, (self.site, FAILURES, now, RESUME_WITHIN)).fetchone()
            if last is None or last[-1] != task.plan_hash:
                return writing.add_run(self._connection, task, self.site, now, "running", now)
            number, started, seed, hosts_up, ports_open, failures, failure, *probes, _ = last
            chunks = execute("SELECT number, hosts FROM chunks WHERE run = ?", (number,)).fetchall()
            done, hosts = {chunk for chunk, _ in chunks}, sum(hosts for _, hosts in chunks)
            known = {chunk for [chunk] in execute("SELECT number FROM discovered WHERE run = ?", (number,))}
            figures = (hosts, hosts_up, ports_open)
            run = Run(number, done, known, *figures, seed, started, self.site, True, failures, failure, *probes)
            execute("UPDATE runs SET status = 'running', ended = NULL, message = ? WHERE id = ?", (run.after(), number))
            return run

    def store(
        self,
        run: Run,
        hosts: Iterable[Host],
        now: float,
        *,
        chunk: int | None = None,
        addresses: int = 0,
        asked: Iterable[Asked] = (),
        stage: int = SWEPT,
        discovered: Collection[int] = (),
        raw: bytes = b"",
    ) -> None:
        """Keep what a chunk, or one host, told, or nothing of it.

        ``chunk``: mark this one, of so many ``addresses``, as done. ``discovered``: of these chunks it is known now who
        is there: ``present``, and nobody else. ``asked``: the addresses of which there is nothing
        to tell, by what came of them; those that nobody answered at belong there, or they were not covered (hosts that
        are down count as such). A host that was stored in this run already gets what is new added. ``raw`` is nmap's
        XML.
        """
        kept, silent = writing.split(hosts)
        more_up = more_open = 0
        with self._transaction():
            for host in kept:
                up, ports = self._add(run, host, now, stage)
                more_up, more_open = more_up + up, more_open + ports
            writing.add_asked(self._connection, run.id, [*silent, *asked])
            if raw:
                writing.add_raw(self._connection, run.id, raw, now)
            fresh = chunk is not None and chunk not in run.done
            if fresh:
                self._connection.execute("INSERT INTO chunks VALUES (?, ?, ?, ?)", (run.id, chunk, now, addresses))
            self._connection.executemany(
                "INSERT OR IGNORE INTO discovered VALUES (?, ?)", ((run.id, number) for number in discovered)
            )
            self._connection.execute(
                "UPDATE runs SET chunks_done = chunks_done + ?, hosts_up = ?, ports_open = ? WHERE id = ?",
                (int(fresh), run.hosts_up + more_up, run.ports_open + more_open, run.id),
            )
        run.hosts_up += more_up
        run.ports_open += more_open
        run.discovered.update(discovered)
        if fresh and chunk is not None:
            run.done.add(chunk)
            run.hosts_done += addresses

    def present(self, run: Run, addresses: Iterable[str]) -> set[str]:
        """Those of the addresses that have answered in this run."""
        with self._told():
            return writing.with_picture(self._connection, run, addresses)

    def tally(
        self, run: Run, *, sent: int, answered: int, loss: float | None = None, engine: str = "", nmap_version: str = ""
    ) -> None:
        """Keep the figures of a run: all of its probes so far, and with what they were sent.

        ``loss`` is the share (0 to 1) that got lost in the part that was asked last, ``None`` if this is not known:
        then what was kept before stays, as it does for what is empty.
        """
        with self._transaction():
            self._connection.execute(
                "UPDATE runs SET sent = ?, answered = ?, loss = ifnull(?, loss),"
                " engine = CASE ?4 WHEN '' THEN engine ELSE ?4 END,"
                " nmap_version = CASE ?5 WHEN '' THEN nmap_version ELSE ?5 END WHERE id = ?6",
                (sent, answered, loss, engine, nmap_version, run.id),
            )

    def waiting(self, run: Run, stage: int) -> Iterator[Host]:
        """The hosts of a run that have not got to this stage, by address. A checkpoint: what ``store`` took is done."""
        with self._told():
            rows = self._connection.execute(
                "SELECT hosts.address, pictures.data FROM seen JOIN hosts ON hosts.id = seen.host"
                " JOIN pictures ON pictures.id = seen.picture WHERE seen.run = ? AND seen.stage < ?"
                " ORDER BY hosts.place",
                (run.id, stage),
            ).fetchall()
        return self._decoded(rows)

    def _decoded(self, rows: Iterable[tuple[str, bytes]]) -> Iterator[Host]:
        for address, data in rows:
            with self._told():
                host = decode(address, data)
            yield host

    def canaries(self, addresses: Iterable[str], protocol: Protocol, within: Ranges) -> list[reading.Canary]:
        """The ports at these ``addresses`` that the last runs found open without fail, one of each host, of those
        ``within``: what a scan may ask, for more is known than that."""
        with self._told():
            return reading.canaries(self._connection, addresses, protocol, self.site, within)

    def canaries_met(self, run: Run, protocol: Protocol, within: Ranges) -> list[reading.Canary]:
        """The same of all hosts that this run has met so far."""
        with self._told():
            return reading.canaries_met(self._connection, run.id, protocol, within)

    def signs(self, run: Run, within: Mapping[Protocol, Ranges]) -> Iterator[tuple[str, bool, bool, int]]:
        """``(address, known, alive, dark)`` of each host that is known to be up or that this run has met.

        ``within`` are the ports that it asks. See ``blind.Sign``.
        """
        with self._told():
            yield from signs(self._connection, run.id, self.site, within)

    def withhold(self, run: Run, addresses: Iterable[str], outcome: Literal["blind", "dark", "settled"]) -> None:
        """Note how far it is to be believed what this run does not see at these ``addresses``; see ``Outcome``."""
        with self._transaction():
            writing.add_asked(self._connection, run.id, asked(addresses, (), outcome))

    def doubts(self, run: Run) -> Iterator[list[Doubt]]:
        """Where a second look now would settle what this run has left open so far; for ``recheck``. In steps of some
        50 ms, many of which find nothing."""
        with self._told():
            yield from doubts(self._connection, run.id, self._misses)

    def intend(self, run: Run, lots: Iterable[str]) -> None:
        """Keep what the run is to look at twice; they are numbered from 0."""
        with self._transaction():
            self._connection.executemany(
                "INSERT INTO again VALUES (?, ?, ?)", ((run.id, number, lot) for number, lot in enumerate(lots))
            )

    def again(self, run: Run) -> list[tuple[int, str]]:
        """What of that it has not looked at yet."""
        with self._told():
            rows = self._connection.execute("SELECT number, lot FROM again WHERE run = ? ORDER BY number", (run.id,))
            return rows.fetchall()

    def recheck(self, run: Run, hosts: Iterable[Host], now: float, lot: int | None = None) -> None:
        """Keep what second looks told: hosts with nothing but the ports that were asked again.

        A host that did not answer again is one that is ``down``. ``lot``: which of ``again`` is done with that.
        """
        with self._transaction():
            self._connection.execute("DELETE FROM again WHERE run = ? AND number = ?", (run.id, lot))
            for host in hosts:
                if host.state == "up" or writing.has_picture(self._connection, run, host.address):
                    found = {port.key for port in host.open_ports()}
                    fresh = found and found - writing.known_open(self._connection, run, host.address)[1]
                    more = self._add(run, host, now, SWEPT)
                    run.hosts_up, run.ports_open = run.hosts_up + more[0], run.ports_open + more[1]
                    if fresh:
                        writing.unfinished(self._connection, run, host.address)
                writing.add_rechecked(self._connection, run, host)
            self._connection.execute(
                "UPDATE runs SET hosts_up = ?, ports_open = ? WHERE id = ?", (run.hosts_up, run.ports_open, run.id)
            )

    def identified(self, run: Run, address: str) -> frozenset[tuple[str, int]]:
        """The open ports of a host of a run, if all of them are identified; of any other, none."""
        with self._told():
            stage, ports = writing.known_open(self._connection, run, address)
        return ports if stage >= DETECTED else frozenset()

    def settle(self, turn: Callable[[], None] = _nothing) -> None:
        """Fold what runs have found into what is so now. ``begin`` and ``end`` do it."""
        with self._told():
            for _ in settle(self._connection, self.path, self._misses):
                turn()

    def tell(self, event: Callable[[Event], None], turn: Callable[[], None] = _nothing) -> None:
        """Hand each change that was not told yet to ``event``, many of one run as one. After ``begin`` and ``end``.

        ``turn`` as for ``begin``.
        """
        with self._told():
            for _ in tell(self._connection, self.path, event):
                turn()

    def sighted(self, seen: Iterable[Sighting], now: float, turn: Callable[[], None] = _nothing) -> None:
        """Take in what captures saw answer (``passive.sightings``); only ``tell`` what that changed comes after it."""
        with self._told():
            for _ in passive.take_in(self._connection, self.path, self.site, seen, now):
                turn()

    def everything(self, run: Run) -> int:
        """How many hosts of a run that has ended say open to everything."""
        with self._told():
            [number] = self._connection.execute("SELECT everything FROM runs WHERE id = ?", (run.id,)).fetchone()
        return int(number)

    def silent(self) -> list[reading.Quarantined]:
        """The ports of this site that accept and say nothing: not to be asked what they are before ``next_try``."""
        with self._told():
            rows = self._connection.execute(
                "SELECT address, proto, port, since, tries, next_try FROM quarantine WHERE site = ?", (self.site,)
            ).fetchall()
        return [reading.Quarantined(*row) for row in rows]

    def longest_silent(self, most: int, now: float) -> frozenset[str]:
        """The hosts with silent ports that are due, those first that have waited longest, and no more than ``most``.

        Only of those that the last run has looked at and that are up: others would be waited for in vain.
        """
        with self._told():
            rows = self._connection.execute(
                "SELECT quarantine.address FROM quarantine JOIN hosts USING (site, address)"
                " WHERE site = ?1 AND next_try <= ?2 AND hosts.state = 'up' AND hosts.last_looked >="
                " ifnull((SELECT max(started) FROM runs WHERE site = ?1 AND folded AND status != 'imported'), 0)"
                " GROUP BY quarantine.address ORDER BY min(next_try), hosts.place LIMIT ?3",
                (self.site, now, most),
            ).fetchall()
        return frozenset(address for (address,) in rows)

    def silence(self, ports: Iterable[reading.Quarantined], heard: Iterable[tuple[str, str, int]] = ()) -> None:
        """Put these ports under quarantine, in place of what was known of them; those that were ``heard`` are free."""
        with self._transaction():
            self._connection.executemany(
                "INSERT OR REPLACE INTO quarantine (site, address, proto, port, since, tries, next_try)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                ((self.site, *port) for port in ports),
            )
            self._connection.executemany(
                "DELETE FROM quarantine WHERE site = ? AND address = ? AND proto = ? AND port = ?",
                ((self.site, *key) for key in heard),
            )

    def prune(self, max_age: float, size: int, raw: float, now: float, turn: Callable[[], None] = _nothing) -> None:
        """Forget what is older than declared (seconds) or too much (bytes), in small steps; see ``retention``."""
        with self._told():
            for _ in prune(self._connection, self.path, max_age=max_age, size=size, raw=raw, now=now):
                turn()

    def end(
        self,
        run: Run,
        status: Ending,
        now: float,
        message: str = "",
        *,
        degraded: str = "",
        turn: Callable[[], None] = _nothing,
    ) -> None:
        """Close a run, and fold what it found into what is so now, unless it is to be continued: one that was
        interrupted, and one that has failed, until it has ``FAILURES`` times. Why it did stands in its message, also
        when it is continued and comes to its end.

        One that has ended already stays as it ended: what goes wrong afterwards makes no failure of it. ``degraded``:
        why what it did not find may well be there. ``turn`` as for ``begin``.
        """
        told = [part for part in (message, run.after()) if part]
        failures, failure = (run.failures + 1, message) if status == "failed" else (run.failures, run.failure)
        with self._transaction():
            writing.gather(self._connection, run.id)
            self._connection.execute(
                "UPDATE runs SET status = ?, ended = ?, message = ?, degraded = ?, failures = ?, failure = ?"
                " WHERE id = ? AND status = 'running'",
                (status, now, "; ".join(told), degraded, failures, failure, run.id),
            )
        run.failures, run.failure = failures, failure
        self.settle(turn)

    def take_in(
        self,
        task: Task,
        hosts: Iterable[Host],
        *,
        started: float,
        ended: float,
        asked: Iterable[Asked] = (),
        message: str = "",
        now: float,
    ) -> int:
        """Keep another program's scan as a run of its own, whole or not at all; returns its id.

        It is kept as long as a run of ``now``, whatever its age.
        """
        kept, silent = writing.split(hosts)
        with self._transaction():
            run = writing.add_run(self._connection, task, self.site, started, "imported", now)
            for host in kept:
                up, ports = self._add(run, host, ended, DETECTED)
                run.hosts_up, run.ports_open = run.hosts_up + up, run.ports_open + ports
            writing.add_asked(self._connection, run.id, [*silent, *asked])
            self._connection.execute(
                "UPDATE runs SET ended = ?, message = ?, hosts_up = ?, ports_open = ?, chunks_done = chunks_total,"
                " quiet = 1 WHERE id = ?",
                (ended, message, run.hosts_up, run.ports_open, run.id),
            )
        self.settle()
        return run.id

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Errors of the database as ``StorageFailure``; after one it has to be looked through for damage."""
        try:
            yield
        except sqlite3.Error as error:
            self._sound = False
            raise storage_failure(self.path, error) from error
        except StorageFailure:
            self._sound = False
            raise

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._told(), transaction(self._connection, self.path):
            yield

    def _add(self, run: Run, host: Host, now: float, stage: int) -> tuple[int, int]:
        try:
            return writing.add_host(self._connection, run, host, now, stage)
        except ValueError as error:
            raise StorageFailure(f"{self.path}: {host.address[:60]!r} is not an address: {error}") from error


def _lock(path: Path) -> int:
    """The lock that makes a process the only one on this database; the kernel lets go of it when we die, flock(2)."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = open_regular(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o640)
    except OSError as error:
        raise StorageFailure(f"{path}: the database cannot be opened: {error.strerror}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise ScanFailure(f"{path}: another scan of this service is running") from error
    return fd
