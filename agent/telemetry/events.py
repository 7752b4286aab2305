"""What happened, in order: a bounded store of events that never holds up the agent.

An event is in memory as soon as it is appended and in SQLite at most ``COMMIT_DELAY`` later, many in one transaction.
A disk that is full, slow to mend or broken costs history, never supervision: the store says ``degraded`` and why, keeps
the newest events in memory, tries again with growing pauses, and stores what it still has when the disk is back.

Everything runs in the agent's only thread. Timers are asked for through ``schedule`` (``loop.call_later`` fits), and
only while something waits to be stored: an idle agent is not woken.

Cursors only grow, over restarts and over a database that had to be moved aside: each is the larger of the one before
plus 1 and the unix time in milliseconds (so below 2**53, which JSON readers need).
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from agent.errors import StorageFailure
from agent.telemetry.database import is_damage, open_database, storage_failure, transaction

Schedule = Callable[[float, Callable[[], None]], object]
"""``schedule(seconds, callback)`` calls back once, later, in the same thread."""

COMMIT_DELAY = 0.2
"""Seconds an event may wait in memory for company."""

COMMIT_AT = 500
"""Events that are stored at once, without waiting; half the ring, so that a burst does not push out what waits."""

RING = 1000
"""Events kept in memory, stored or not."""

FIRST_RETRY, LAST_RETRY = 0.5, 30.0
"""Seconds before a failed disk is tried again: doubled from the first to the last."""

BUSY_MILLISECONDS = 50
"""How long a statement may wait for another program's lock; the whole agent waits with it."""

MESSAGE_LIMIT = 4 * 1024
"""Characters of a message, and of a service's or a kind's name; what is longer is cut."""

DATA_LIMIT = 16 * 1024
"""Bytes of an event's data as JSON; larger data is replaced by a note of its size."""

_SCHEMA_VERSION = 1
_SELECT = "SELECT cursor, time, service, kind, message, data FROM event WHERE"
_REMEMBER = "INSERT OR REPLACE INTO memory (key, value) VALUES (?, ?)"
_LAST = 2**63 - 1
_FORGOTTEN = "events.forgotten"
_KEEP_CONNECTION = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

log = logging.getLogger(__name__)


class Event(msgspec.Struct):
    """One thing that happened. ``time`` is unix seconds; ``data`` is plain JSON."""

    cursor: int
    time: float
    service: str | None
    kind: str
    message: str
    data: dict[str, Any]


class History(msgspec.Struct, frozen=True):
    """A store between two programs in one process.

    ``events`` and ``unsaved`` are the events and the keys of ``memory`` (or, if it has them no more, forgotten ones)
    that have not got to the disk yet.
    """

    events: list[Event] = []
    memory: dict[str, Any] = {}
    unsaved: list[str] = []
    newest: int = 0


class EventStore:
    """The events of one agent at ``path``, and its small memory of keys and values.

    ``limit`` bounds the events on disk (up to 1 % more between two trims). ``clock`` gives unix seconds. Opening never
    raises: a database that cannot be opened leaves the store ``degraded``, working from memory.
    """

    def __init__(
        self, path: Path, *, limit: int = 50_000, schedule: Schedule, clock: Callable[[], float] = time.time
    ) -> None:
        self.storage = "ok"
        self._path = path
        self._limit = limit
        self._schedule = schedule
        self._clock = clock
        self._database: sqlite3.Connection | None = None
        self._ring: deque[Event] = deque(maxlen=RING)
        self._subscribers: list[Callable[[Event], None]] = []
        self._memory: dict[str, Any] = {}
        self._unsaved_keys: set[str] = set()
        self._newest = self._stored = self._rows = self._lost = 0
        self._armed = self._closed = False
        self._retry = FIRST_RETRY
        try:
            self._open()
        except StorageFailure as failure:
            self._degrade(failure)

    # -- writing ------------------------------------------------------------------------------------------------------

    def append(self, kind: str, message: str, service: str | None = None, /, **data: Any) -> Event:
        """Record an event now. Never raises for want of disk, nor for what a subscriber does."""
        now = self._clock()
        cursor = max(self._newest + 1, int(now * 1000))
        event = Event(cursor, now, service and _text(service), _text(kind), _text(message), _plain(data))
        if len(self._ring) == RING and self._ring[0].cursor > self._stored:
            self._lost += 1
            self._forget(self._ring[0].cursor)
        self._newest = cursor
        self._ring.append(event)
        if self.storage == "ok" and len(self._ring) >= COMMIT_AT and self._ring[-COMMIT_AT].cursor > self._stored:
            self.flush()
        else:
            self._arm(COMMIT_DELAY)
        for callback in tuple(self._subscribers):
            try:
                callback(event)
            except Exception:
                log.exception("a subscriber failed on event %d", cursor)
        return event

    def subscribe(self, callback: Callable[[Event], None]) -> Callable[[], None]:
        """Call back with each new event, at once and in order; returns what ends it (calling that twice is fine)."""
        self._subscribers.append(callback)

        def unsubscribe() -> None:
            if callback in self._subscribers:
                self._subscribers.remove(callback)

        return unsubscribe

    def flush(self) -> bool:
        """Store everything now; whether that worked."""
        return self._closed or self._save()

    def freeze(self) -> History:
        """Store everything, and tell what the disk would not take, or may not give back."""
        self.flush()
        return History(self._since(self._stored), self._memory, sorted(self._unsaved_keys), self._newest)

    def thaw(self, history: History) -> None:
        """Go on with what an earlier program knew; before anything is appended."""
        self._memory |= history.memory
        for key in {*history.unsaved} - history.memory.keys():
            self._memory.pop(key, None)
        self._unsaved_keys |= {*history.unsaved}
        self._ring.extend(history.events)
        self._newest = max(self._newest, history.newest)
        if self._ring or self._unsaved_keys:
            self._arm(COMMIT_DELAY)

    def close(self) -> None:
        """Store what can be stored, and let go of the file. Events appended afterwards live in memory only."""
        if not self._closed:
            self._save()
            self._closed = True
            self._disconnect()

    # -- reading ------------------------------------------------------------------------------------------------------

    @property
    def newest(self) -> int:
        """The cursor of the newest event there ever was; 0 when there was none."""
        return self._newest

    @property
    def oldest(self) -> int:
        """The cursor of the oldest event that can still be read; 0 when there is none."""
        rows = self._query("cursor > ?", -1, None, None, "ORDER BY cursor", 1)
        first = rows or list(self._ring)[:1]
        return first[0].cursor if first else 0

    @property
    def forgotten(self) -> int:
        """The newest cursor that is gone (trimmed, or lost with a disk): a reader who stopped before it has a gap."""
        return int(self._memory.get(_FORGOTTEN, 0))

    def read(
        self, after: int = 0, limit: int = 100, service: str | None = None, kind: str | None = None
    ) -> list[Event]:
        """At most ``limit`` events newer than the cursor ``after``, oldest first."""
        found: list[Event] = []
        if not self._ring or after < self._ring[0].cursor:
            found = self._query("cursor > ?", min(after, _LAST), service, kind, "ORDER BY cursor", max(limit, 0))
            after = max(after, self._stored if self._database else 0)
        fresh = [event for event in self._since(after) if _matches(event, service, kind)]
        return (found + fresh)[: max(limit, 0)]

    def last(self, n: int, service: str | None = None) -> list[Event]:
        """The newest ``n`` events, oldest first."""
        recent = [event for event in self._ring if _matches(event, service, None)]
        if len(recent) < n:
            start = self._ring[0].cursor if self._ring else _LAST
            older = self._query("cursor < ?", start, service, None, "ORDER BY cursor DESC", n - len(recent))
            recent = older[::-1] + recent
        return recent[-n:] if n > 0 else []

    # -- memory -------------------------------------------------------------------------------------------------------

    def remember(self, key: str, value: Any) -> bool:
        """Keep a JSON value under ``key``, at once; whether it is on disk (if not, it will be when the disk is back).

        Raises ``TypeError`` for what is not JSON.
        """
        msgspec.json.encode(value)
        self._memory[key] = value
        self._unsaved_keys.add(key)
        return self.flush()

    def recall(self, key: str) -> Any:
        """The value last remembered under ``key``; ``None`` when there is none."""
        return self._memory.get(key)

    def forget(self, key: str) -> bool:
        """Drop ``key``, at once; whether that is on disk. An unknown key is no error."""
        if key not in self._memory:
            return True
        del self._memory[key]
        self._unsaved_keys.add(key)
        return self.flush()

    # -- the disk -----------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        """Open the database and take in what it knows. Raises ``StorageFailure``."""
        opened = open_database(self._path, _SCHEMA_VERSION, _migrate, clock=self._clock)
        try:
            opened.connection.execute(f"PRAGMA busy_timeout={BUSY_MILLISECONDS}")
            count, newest = opened.connection.execute("SELECT count(*), coalesce(max(cursor), 0) FROM event").fetchone()
            memory = dict(opened.connection.execute("SELECT key, value FROM memory"))
        except sqlite3.Error as error:
            opened.connection.close()
            raise storage_failure(self._path, error) from error
        for key, value in memory.items():
            if key not in self._unsaved_keys:
                self._memory.setdefault(key, _decoded(value))
        self._database, self._rows, self._stored = opened.connection, count, newest
        self._newest = max(self._newest, newest)
        if opened.moved_aside:
            self._unsaved_keys |= self._memory.keys()
            self._forget((self._ring[0].cursor if self._ring else int(self._clock() * 1000)) - 1)
            self.append(
                "storage",
                f"{self._path} was damaged ({opened.reason}): it is kept as {opened.moved_aside.name}, a new one begun",
            )

    def _save(self) -> bool:
        """Bring the disk up to date, in one transaction; a database found damaged is replaced and tried once more."""
        for _ in range(2):
            try:
                if self._database is None:
                    self._open()
                self._write()
            except StorageFailure as failure:
                self._degrade(failure)
                if self._database is None and _damaged(failure):
                    continue
                return False
            self._recovered()
            return True
        return False

    def _write(self) -> None:
        database, events, keys = self._database, self._since(self._stored), tuple(self._unsaved_keys)
        if database is None or not (events or keys):
            return
        rows, forgotten = self._rows + len(events), self.forgotten
        with transaction(database, self._path):
            database.executemany(
                "INSERT INTO event (cursor, time, service, kind, message, data) VALUES (?, ?, ?, ?, ?, ?)",
                [(e.cursor, e.time, e.service, e.kind, e.message, msgspec.json.encode(e.data)) for e in events],
            )
            if rows > self._limit + self._limit // 100:
                sql = "SELECT cursor FROM event ORDER BY cursor LIMIT 1 OFFSET ?"
                forgotten = database.execute(sql, (rows - self._limit - 1,)).fetchone()[0]
                database.execute("DELETE FROM event WHERE cursor <= ?", (forgotten,))
                database.execute(_REMEMBER, (_FORGOTTEN, msgspec.json.encode(forgotten)))
                rows = self._limit
            for key in keys:
                if key in self._memory:
                    database.execute(_REMEMBER, (key, msgspec.json.encode(self._memory[key])))
                else:
                    database.execute("DELETE FROM memory WHERE key = ?", (key,))
        if rows == self._limit:
            self._memory[_FORGOTTEN] = max(self.forgotten, forgotten)
        self._rows = rows
        self._unsaved_keys.clear()
        if events:
            self._stored = events[-1].cursor

    def _query(
        self, bound: str, cursor: int, service: str | None, kind: str | None, order: str, limit: int
    ) -> list[Event]:
        """Events from disk; none when the disk cannot be asked, which then is known in ``storage``."""
        if self._database is None:
            return []
        filters = {"AND service = ?": service, "AND kind = ?": kind}
        chosen = {condition: _text(value) for condition, value in filters.items() if value is not None}
        sql = " ".join((_SELECT, bound, *chosen, order, "LIMIT ?"))
        try:
            rows = self._database.execute(sql, (cursor, *chosen.values(), limit)).fetchall()
        except sqlite3.Error as error:
            failure = storage_failure(self._path, error)
            failure.__cause__ = error
            self._degrade(failure)
            return []
        return [
            Event(cursor, moment, service, kind, message, _decoded(data))
            for cursor, moment, service, kind, message, data in rows
        ]

    def _degrade(self, failure: StorageFailure) -> None:
        code = getattr(failure.__cause__, "sqlite_errorcode", 0) & 0xFF
        if code not in _KEEP_CONNECTION:
            self._disconnect()
        self.storage = f"degraded: {failure}"
        if not self._armed:
            self._arm(self._retry)
            self._retry = min(self._retry * 2, LAST_RETRY)

    def _recovered(self) -> None:
        self._retry = FIRST_RETRY
        if self.storage == "ok":
            return
        self.storage = "ok"
        lost, self._lost = self._lost, 0
        missing = f"; {lost} events in between are lost" if lost else ""
        self.append("storage", f"{self._path} can be written again{missing}", lost=lost)

    def _disconnect(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _arm(self, delay: float) -> None:
        if not self._armed and not self._closed:
            self._armed = True
            self._schedule(delay, self._fire)

    def _fire(self) -> None:
        self._armed = False
        self.flush()

    def _forget(self, cursor: int) -> None:
        self._memory[_FORGOTTEN] = max(self.forgotten, cursor)
        self._unsaved_keys.add(_FORGOTTEN)

    def _since(self, cursor: int) -> list[Event]:
        """What the ring holds after ``cursor``, found from its young end."""
        found = []
        for event in reversed(self._ring):
            if event.cursor <= cursor:
                break
            found.append(event)
        return found[::-1]


def _migrate(connection: sqlite3.Connection, found: int) -> None:
    """The only schema so far, so ``found`` is 0."""
    connection.execute(
        "CREATE TABLE event (cursor INTEGER PRIMARY KEY, time REAL NOT NULL, service TEXT, kind TEXT NOT NULL,"
        " message TEXT NOT NULL, data BLOB NOT NULL) STRICT"
    )
    connection.execute("CREATE INDEX event_by_service ON event (service)")
    connection.execute("CREATE INDEX event_by_kind ON event (kind)")
    connection.execute("CREATE TABLE memory (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID")


def _damaged(failure: StorageFailure) -> bool:
    return isinstance(failure.__cause__, sqlite3.Error) and is_damage(failure.__cause__)


def _matches(event: Event, service: str | None, kind: str | None) -> bool:
    return (service is None or event.service == service) and (kind is None or event.kind == kind)


def _text(value: str) -> str:
    """Cut, and free of lone surrogates (from undecodable file names), which neither UTF-8 nor SQLite can hold."""
    return value[:MESSAGE_LIMIT].encode("utf-8", "replace").decode()


def _plain(data: dict[str, Any]) -> dict[str, Any]:
    """The data as JSON will give it back; what JSON cannot say is said in words."""
    try:
        encoded = msgspec.json.encode(data, enc_hook=repr)
        if len(encoded) > DATA_LIMIT:
            return {"omitted": f"{len(encoded)} bytes of data"}
        return _decoded(encoded)  # type: ignore[no-any-return]  # a dict went in, so a JSON object comes out
    except (TypeError, ValueError, RecursionError) as error:
        return {"omitted": f"data that JSON cannot hold: {type(error).__name__}"}


def _decoded(raw: bytes) -> Any:
    """JSON from disk. A row that another hand has changed is not worth an error."""
    try:
        return msgspec.json.decode(raw)
    except (ValueError, RecursionError):
        return {}
