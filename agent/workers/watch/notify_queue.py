"""What is to be told, on disk: events that wait for company, and messages that wait to be delivered.

How far the agent's events were read is stored in the transaction that stores what they are to become. So a watch that
is killed at any point tells nothing twice that it had not begun to deliver, and forgets nothing: a message is removed
when it has been delivered, and one that was being delivered just then is delivered again, with the ``id`` it had.
Who cannot be told is known here as well: one watch after the other tells of it once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from agent.telemetry.database import open_database, storage_failure, transaction
from agent.telemetry.events import Event

MOST_HELD: Final = 5_000
"""Events that wait for company, for each notification; what comes then is only counted."""

MOST_MESSAGES: Final = 1_000
"""Messages that wait to be delivered, for each notification; the oldest go then, but for the one being tried."""

LONGEST: Final = 3 * 86_400.0
"""Seconds after which a message that could not be delivered is given up."""

FIRST_RETRY, LAST_RETRY = 5.0, 900.0
"""Seconds until a message is tried again: doubled from the first to the last."""

_VERSIONS = (
    (
        "CREATE TABLE state (key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID",
        "CREATE TABLE held (notify TEXT NOT NULL, cursor INTEGER NOT NULL, arrived REAL NOT NULL, event BLOB NOT NULL,"
        " PRIMARY KEY (notify, cursor)) STRICT, WITHOUT ROWID",
        "CREATE TABLE missed (notify TEXT PRIMARY KEY, count INTEGER NOT NULL) STRICT, WITHOUT ROWID",
        # A number is never given twice: that of the message before may be known as delivered.
        "CREATE TABLE message (number INTEGER PRIMARY KEY AUTOINCREMENT, notify TEXT NOT NULL, id TEXT NOT NULL,"
        " created REAL NOT NULL, due REAL NOT NULL, attempts INTEGER NOT NULL, refusals INTEGER NOT NULL,"
        " body BLOB NOT NULL) STRICT",
        "CREATE INDEX message_of ON message (notify, number)",
    ),
    (
        "CREATE TABLE failing (notify TEXT PRIMARY KEY, why TEXT NOT NULL, dropped INTEGER NOT NULL) STRICT,"
        " WITHOUT ROWID",
    ),
)
"""What each version of the schema adds to the one before."""


_NEXT = (
    "SELECT number, id, created, due, attempts, refusals, body FROM message WHERE notify = ? AND number > ?"
    " ORDER BY number LIMIT 1"
)
_MAKE_ROOM = (
    "DELETE FROM message WHERE notify = :notify"
    " AND number != (SELECT min(number) FROM message WHERE notify = :notify)"
    " AND number NOT IN (SELECT number FROM message WHERE notify = :notify ORDER BY number DESC LIMIT :newest)"
)


class Waiting(NamedTuple):
    """The next message of a notification. ``due`` is unix seconds, ``body`` its JSON."""

    number: int
    id: str
    created: float
    due: float
    attempts: int
    refusals: int
    body: bytes


class Failing(NamedTuple):
    """A notification that does not work: why, and how many of its messages are gone since it does not."""

    why: str
    dropped: int = 0


class Queue:
    """The queue at ``path``. Raises ``StorageFailure`` when it cannot be opened or written; it is then as it was."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self.opened = open_database(path, len(_VERSIONS), _migrate, clock=clock)
        self._path = path
        self._database = self.opened.connection

    @property
    def cursor(self) -> int | None:
        """How far the agent's events were read; ``None`` before the first time."""
        found = self._ask("SELECT value FROM state WHERE key = 'cursor'")
        return int(found[0][0]) if found else None

    def begin(self, cursor: int, notifies: Collection[str]) -> None:
        """Read on from ``cursor``, and forget what is for notifications that are not declared any more."""
        marks = ", ".join("?" * len(notifies))
        with transaction(self._database, self._path):
            self._database.execute("INSERT OR REPLACE INTO state VALUES ('cursor', ?)", (cursor,))
            for table in ("held", "missed", "message", "failing"):
                self._database.execute(
                    f"DELETE FROM {table} WHERE notify NOT IN ({marks})",  # noqa: S608  # our own words
                    tuple(notifies),
                )

    def take(self, cursor: int, found: Mapping[str, Iterable[Event]], now: float) -> None:
        """Hold the events that each notification is about, and have read up to ``cursor``."""
        with transaction(self._database, self._path):
            execute = self._database.execute
            execute("INSERT OR REPLACE INTO state VALUES ('cursor', ?)", (cursor,))
            for notify, events in found.items():
                room = MOST_HELD - execute("SELECT count(*) FROM held WHERE notify = ?", (notify,)).fetchone()[0]
                taken = list(events)
                self._database.executemany(
                    "INSERT OR IGNORE INTO held VALUES (?, ?, ?, ?)",
                    [
                        (notify, event.cursor, min(event.time, now), msgspec.json.encode(event))
                        for event in taken[: max(room, 0)]
                    ],
                )
                if missed := len(taken[max(room, 0) :]):
                    execute(
                        "INSERT INTO missed VALUES (?, ?) ON CONFLICT (notify) DO UPDATE SET count = count + ?",
                        (notify, missed, missed),
                    )

    def held(self, notify: str, number: int = MOST_HELD) -> list[Event]:
        """The first of the events that wait, in the order in which they came."""
        rows = self._ask("SELECT event FROM held WHERE notify = ? ORDER BY cursor LIMIT ?", notify, number)
        return [msgspec.json.decode(event, type=Event) for (event,) in rows]

    def arrivals(self, notify: str) -> list[float]:
        """When they came, and nothing else of them."""
        return [float(row[0]) for row in self._ask("SELECT arrived FROM held WHERE notify = ? ORDER BY cursor", notify)]

    def missed(self, notify: str) -> int:
        """How many events were only counted since the last message."""
        rows = self._ask("SELECT count FROM missed WHERE notify = ?", notify)
        return int(rows[0][0]) if rows else 0

    def put(self, notify: str, message: Mapping[str, Any], upto: int, now: float) -> int:
        """Queue a message in place of the held events up to the cursor ``upto``. How many others had to go for it."""
        with transaction(self._database, self._path):
            execute = self._database.execute
            execute("DELETE FROM held WHERE notify = ? AND cursor <= ?", (notify, upto))
            execute("DELETE FROM missed WHERE notify = ?", (notify,))
            execute(
                "INSERT INTO message (notify, id, created, due, attempts, refusals, body) VALUES (?, ?, ?, ?, 0, 0, ?)",
                (notify, str(message["id"]), now, now, msgspec.json.encode(message)),
            )
            gone = execute(_MAKE_ROOM, {"notify": notify, "newest": MOST_MESSAGES - 1}).rowcount
            if gone:
                execute("UPDATE failing SET dropped = dropped + ? WHERE notify = ?", (gone, notify))
        return gone

    def room(self, notify: str) -> int:
        """How many messages can be queued without any that has to go."""
        return MOST_MESSAGES - int(self._ask("SELECT count(*) FROM message WHERE notify = ?", notify)[0][0])

    def next(self, notify: str, after: int = 0) -> Waiting | None:
        """The oldest message that waits, of those with a number greater than ``after``."""
        rows = self._ask(_NEXT, notify, after)
        return Waiting(*rows[0]) if rows else None

    def waiting(self) -> int:
        """How many messages wait, of all notifications."""
        return int(self._ask("SELECT count(*) FROM message")[0][0])

    def failing(self) -> dict[str, Failing]:
        """The notifications that do not work, by name."""
        return {
            name: Failing(why, dropped) for name, why, dropped in self._ask("SELECT notify, why, dropped FROM failing")
        }

    def delivered(self, notify: str, upto: int) -> None:
        """The messages up to the number ``upto`` have been delivered: it works."""
        with transaction(self._database, self._path):
            self._database.execute("DELETE FROM message WHERE notify = ? AND number <= ?", (notify, upto))
            self._database.execute("DELETE FROM failing WHERE notify = ?", (notify,))

    def give_up(self, notify: str, message: Waiting, why: str) -> None:
        """A message is not tried again."""
        with transaction(self._database, self._path):
            self._database.execute("DELETE FROM message WHERE number = ?", (message.number,))
            self._fails(notify, why, dropped=1)

    def retry(self, notify: str, message: Waiting, due: float, why: str, *, refused: bool) -> None:
        """Try a message again at ``due``."""
        with transaction(self._database, self._path):
            self._database.execute(
                "UPDATE message SET due = ?, attempts = attempts + 1, refusals = refusals + ? WHERE number = ?",
                (due, int(refused), message.number),
            )
            self._fails(notify, why)

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def _fails(self, notify: str, why: str, dropped: int = 0) -> None:
        self._database.execute(
            "INSERT INTO failing VALUES (:notify, :why, :dropped)"
            " ON CONFLICT (notify) DO UPDATE SET why = :why, dropped = dropped + :dropped",
            {"notify": notify, "why": why, "dropped": dropped},
        )

    def _ask(self, sql: str, *arguments: str | int) -> list[Any]:
        try:
            return self._database.execute(sql, arguments).fetchall()
        except sqlite3.Error as error:
            raise storage_failure(self._path, error) from error


def delay_after(attempts: int) -> float:
    """Seconds until a message is tried again that has been tried so many times before."""
    return min(LAST_RETRY, FIRST_RETRY * 2.0 ** min(attempts, 20))


def _migrate(connection: sqlite3.Connection, found: int) -> None:
    for statements in _VERSIONS[found:]:
        for statement in statements:
            connection.execute(statement)
