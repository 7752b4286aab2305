"""The agent's events, read beside it: from the database that it writes, never written here, never waited for long.

The agent may begin a new database while this is open (a damaged one is moved aside): a file that is no longer the one
of its path is opened anew.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from agent.telemetry.events import BUSY_MILLISECONDS, Event

MOST = 500
"""Events of one look."""

_SELECT = "SELECT cursor, time, service, kind, message, data FROM event WHERE cursor > ? ORDER BY cursor LIMIT ?"


class EventSource:
    """The events at ``path``, which need not be there yet. ``problem`` says why they could not be read last, if so."""

    def __init__(self, path: Path) -> None:
        self.problem = ""
        self._path = path
        self._database: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None

    def forgotten(self) -> int:
        """The newest cursor that is gone, as the agent says; 0 when nothing is or it cannot be told."""
        found = self._ask("SELECT value FROM memory WHERE key = 'events.forgotten'")
        with suppress(ValueError, TypeError, IndexError):
            return int(msgspec.json.decode(found[0][0]))
        return 0

    def after(self, cursor: int) -> list[Event]:
        """At most ``MOST`` events newer than ``cursor``, oldest first; none when they cannot be read."""
        return [
            Event(int(number), float(moment), service, str(kind), str(message), _data(data))
            for number, moment, service, kind, message, data in self._ask(_SELECT, cursor, MOST)
        ]

    def close(self) -> None:
        """Let go of the file."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def _ask(self, sql: str, *arguments: int) -> list[Any]:
        try:
            self._open()
            rows = self._database.execute(sql, arguments).fetchall() if self._database is not None else []
        except (sqlite3.Error, OSError) as error:
            self.problem = f"{self._path}: {error.strerror if isinstance(error, OSError) else error}"
            self.close()
            return []
        self.problem = ""
        return rows

    def _open(self) -> None:
        found = self._path.stat()
        if self._database is not None and self._file == (found.st_dev, found.st_ino):
            return
        self.close()
        uri = f"file:{quote(os.fspath(self._path))}?mode=ro"
        self._database = sqlite3.connect(uri, uri=True, isolation_level=None)
        self._database.execute(f"PRAGMA busy_timeout={BUSY_MILLISECONDS}")
        self._database.execute("PRAGMA trusted_schema=OFF")
        self._file = (found.st_dev, found.st_ino)


def _data(raw: Any) -> dict[str, Any]:
    with suppress(ValueError, RecursionError, TypeError):
        value = msgspec.json.decode(raw)
        return value if isinstance(value, dict) else {}
    return {}
