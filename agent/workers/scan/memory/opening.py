"""Opening the memory of a scan service for reading, also where the reader may write nothing."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from agent.errors import StorageFailure
from agent.linux.files import open_regular
from agent.telemetry.database import APPLICATION_ID, BUSY_TIMEOUT, MAGIC, storage_failure
from agent.workers.scan.memory import schema


def open_memory(path: Path) -> sqlite3.Connection:
    """Open it for reading. Raises ``StorageFailure``.

    Without a write-ahead log nobody writes, and the file is read as one that does not change.

    That is also the only way where the reader may not make the files that come with a log.
    """
    with told(path):
        try:
            # A link is followed, as by whoever writes; a pipe would be waited for.
            with os.fdopen(open_regular(Path(os.path.realpath(path)), os.O_RDONLY), "rb") as file:
                start = file.read(len(MAGIC))
        except FileNotFoundError as error:
            raise StorageFailure(f"{path}: there is none: nothing was scanned yet") from error
        except OSError as error:
            raise StorageFailure(f"{path}: cannot be read: {error.strerror}") from error
        if start != MAGIC:
            raise StorageFailure(f"{path}: not a database: the next scan moves it aside and makes a new one")
        try:
            return _connect(path, "mode=ro")
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
                raise
            log = path.with_name(path.name + "-wal")
            if log.exists() and log.stat().st_size:
                raise
            return _connect(path, "mode=ro&immutable=1")


def _connect(path: Path, how: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"file:{quote(str(path.absolute()))}?{how}", uri=True, timeout=BUSY_TIMEOUT, isolation_level=None
    )
    try:
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.execute("PRAGMA query_only=ON")
        application, version = (
            int(connection.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("application_id", "user_version")
        )
        if application != APPLICATION_ID:
            raise StorageFailure(f"{path}: another program's database")
        if version > schema.VERSION:
            raise StorageFailure(
                f"{path}: written by a newer version of this program (schema {version}, this one knows"
                f" {schema.VERSION}): upgrade"
            )
        if version < schema.VERSION:
            raise StorageFailure(
                f"{path}: written by an older version of this program (schema {version}): the next scan brings it up"
                " to date"
            )
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Errors of the database and of its file as ``StorageFailure``, with one line for a person."""
    try:
        yield
    except sqlite3.Error as error:
        raise storage_failure(path, error) from error
    except OSError as error:
        raise StorageFailure(f"{path}: cannot be read: {error.strerror}") from error
