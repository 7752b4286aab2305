"""Opening an SQLite database that survives: power cuts, full disks, damage, and files that are not ours.

A database here is a memory, not a reason to stand still. One that cannot be read is moved aside (never deleted: a
person may want to look at it) and a new one takes its place. One that a newer program wrote is left alone, because an
older program could only harm it. Anything else that is wrong (full, read-only, locked) is said in one line.

One program at a time opens a given file for writing; that is for the caller to see to.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from agent.errors import StorageFailure
from agent.linux.files import open_regular, write_atomic

APPLICATION_ID = 0x41474E54
"""``AGNT``, in the header field that tells whose database a file is (sqlite.org/fileformat.html, 1.3.8)."""

BUSY_TIMEOUT = 1.0
"""Seconds that a statement waits for another connection. Bounded and short: an event loop stands still meanwhile."""

JOURNAL_LIMIT = 4 * 1024 * 1024
"""Bytes to which the write-ahead log is cut back after a checkpoint."""

MAGIC = b"SQLite format 3\0"
"""The first 16 bytes of every database (sqlite.org/fileformat.html, 1.3.1)."""

SIDECARS = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside a database and would replay into whichever file has its name (sqlite.org/tempfiles.html)."""

CLOSED = ".closed"
"""At the end of the name of the file that tells of a database that it was closed well, and when it was checked last."""

CHECKED_WITHIN = 7 * 86400.0
"""Seconds for which a check counts, while the database is closed well each time."""

_STEPS = 100_000  # of SQLite's virtual machine between two turns of whoever waits for a check: some 10 ms

Migrate = Callable[[sqlite3.Connection, int], None]
"""``migrate(connection, found)`` brings the schema from version ``found`` (0: an empty file) to the one asked for.

It runs inside a transaction that it must not end: ``execute``, not ``executescript`` (which commits first).
"""


@dataclass(frozen=True, slots=True)
class Opened:
    """An open database; ``moved_aside`` is where an unreadable predecessor went, ``reason`` what was wrong with it."""

    connection: sqlite3.Connection
    moved_aside: Path | None = None
    reason: str = ""
    checked: float = 0.0
    """Unix seconds when it was last looked through for damage."""


class _Unusable(Exception):
    """The file is damaged or another program's: to be moved aside."""


def open_database(
    path: Path,
    schema_version: int,
    migrate: Migrate,
    *,
    clock: Callable[[], float] = time.time,
    turn: Callable[[], None] | None = None,
) -> Opened:
    """Open or create the database at ``path`` with the schema ``schema_version`` (1 or more).

    The connection is in autocommit mode (use ``transaction``), with a write-ahead log, ``synchronous=NORMAL`` (a power
    cut may lose the last transactions, never the file) and foreign keys enforced. ``clock`` gives unix seconds for the
    name of a file moved aside: ``NAME.corrupt-YYYYMMDDTHHMMSSZ``. ``turn`` is called now and then while it is looked
    through for damage: that takes a second for each 200 MB or so, and is done always, but for one that
    ``close_database`` has closed and nobody has touched since, of which it was done within ``CHECKED_WITHIN``.

    Raises ``StorageFailure`` when the disk is full or read-only, the file is locked or not a regular file, or its
    schema is newer than ``schema_version``; the file is then as it was.
    """
    path = Path(os.path.realpath(path))
    try:
        now = clock()
        checked = _closed_well(path)
        if not 0 <= now - checked <= CHECKED_WITHIN:
            checked = 0.0
        with suppress(OSError):  # whoever writes makes it another file than the one noted anyway
            path.with_name(path.name + CLOSED).unlink()
        try:
            return Opened(_open(path, schema_version, migrate, check=not checked, turn=turn), checked=checked or now)
        except _Unusable as unusable:
            reason = str(unusable)
        moved = _move_aside(path, now)
        try:
            return Opened(_open(path, schema_version, migrate), moved, reason, now)
        except _Unusable as unusable:
            raise StorageFailure(f"{path}: a database made anew cannot be used either: {unusable}") from unusable
    except sqlite3.Error as error:
        raise storage_failure(path, error) from error
    except OSError as error:
        raise StorageFailure(f"{path}: the database cannot be opened: {error.strerror or error}") from error


def close_database(opened: Opened, path: Path) -> None:
    """Close it, and note that this was done well, so that the next one who opens it need not look through all of it.

    Not for one of which an error was heard: it is closed by its connection alone, and looked through the next time.
    Raises nothing: without the note it is looked through once more.
    """
    path = Path(os.path.realpath(path))
    opened.connection.close()
    with suppress(OSError, StorageFailure):
        if not _log_of(path):
            write_atomic(
                path.with_name(path.name + CLOSED), f"{_identity(path)} {int(opened.checked)}\n".encode(), mode=0o640
            )


def _closed_well(path: Path) -> float:
    """When a database that was closed well, and is as it was then, was checked last; 0 for any other."""
    try:
        with os.fdopen(open_regular(path.with_name(path.name + CLOSED), os.O_RDONLY), "rb") as file:
            identity, _, checked = file.read(200).decode("ascii", "replace").rpartition(" ")
        if identity == _identity(path) and not _log_of(path) and checked.strip().isdecimal():
            return float(checked)
    except (OSError, ValueError):
        pass
    return 0.0


def _identity(path: Path) -> str:
    found = path.stat()
    return f"{found.st_dev} {found.st_ino} {found.st_size} {found.st_mtime_ns}"


def _log_of(path: Path) -> int:
    """Bytes in its write-ahead log."""
    try:
        return path.with_name(path.name + "-wal").stat().st_size
    except FileNotFoundError:
        return 0


@contextmanager
def transaction(connection: sqlite3.Connection, path: Path) -> Iterator[None]:
    """Everything inside is stored together or not at all. ``path`` is for the message.

    Raises ``StorageFailure`` for any error of the database, with nothing of this transaction stored.
    """
    try:
        with _atomic(connection):
            yield
    except sqlite3.Error as error:
        raise storage_failure(path, error) from error


def storage_failure(path: Path, error: sqlite3.Error) -> StorageFailure:
    """The one line for a person about an error of SQLite."""
    code = _primary_code(error)
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and _is_full(path)):
        return StorageFailure(f"{path}: the disk is full: free some space, nothing was stored")
    if code == sqlite3.SQLITE_READONLY:
        return StorageFailure(f"{path}: the database is read-only: its file and directory must be writable")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StorageFailure(f"{path}: the database is locked by another program")
    if is_damage(error):
        return StorageFailure(f"{path}: the database is damaged ({error}): it is moved aside at the next start")
    return StorageFailure(f"{path}: the database failed: {error}")


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the error says that the file itself is broken, so that opening it again would move it aside."""
    return _primary_code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _is_full(path: Path) -> bool:
    """Whether nothing more fits there. SQLite calls it an I/O error where it cannot even make its index of the log."""
    try:
        return os.statvfs(path.parent).f_bavail == 0
    except OSError:
        return False


def _primary_code(error: sqlite3.Error) -> int:
    """The low byte of an extended result code; 0 for errors that the module raised itself (sqlite.org/rescode.html)."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _open(
    path: Path,
    schema_version: int,
    migrate: Migrate,
    *,
    check: bool = True,
    turn: Callable[[], None] | None = None,
) -> sqlite3.Connection:
    """One attempt. Raises ``_Unusable`` when the file should be moved aside."""
    _prepare(path)
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None)
    try:
        found = _inspect(connection, path, schema_version)
        if check:
            _look_through(connection, turn)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(f"PRAGMA journal_size_limit={JOURNAL_LIMIT}")
        connection.execute("PRAGMA foreign_keys=ON")
        if found < schema_version:
            # Both header fields are part of the transaction, so a crash leaves the old schema or the new one.
            with _atomic(connection):
                migrate(connection, found)
                connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version={schema_version}")
    except BaseException as error:
        connection.close()
        if isinstance(error, sqlite3.Error) and is_damage(error):
            raise _Unusable(str(error)) from error
        raise
    return connection


def _prepare(path: Path) -> None:
    """Make the directory and an empty file of mode 0640, which SQLite's own files beside it then inherit.

    Judges what SQLite must not be let near: it deletes a write-ahead log that does not fit its database, and takes a
    file of a few bytes for an empty database.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():
        raise StorageFailure(f"{path}: not a regular file, so not a database")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        start = os.read(descriptor, len(MAGIC))
    finally:
        os.close(descriptor)
    if start and start != MAGIC:
        raise _Unusable("file is not a database")
    log = path.with_name(path.name + "-wal")
    if not start and log.exists() and log.stat().st_size:
        raise _Unusable("the database is empty but its write-ahead log is not")


def _inspect(connection: sqlite3.Connection, path: Path, schema_version: int) -> int:
    """The schema version found, having judged the file without writing to it."""
    connection.execute("PRAGMA trusted_schema=OFF")
    application = int(connection.execute("PRAGMA application_id").fetchone()[0])
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    empty = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
    if application != APPLICATION_ID and not (empty and application == 0 and version == 0):
        raise _Unusable("it is another program's database")
    if version > schema_version:
        raise StorageFailure(
            f"{path}: written by a newer version of this program (schema {version}, this one knows {schema_version}):"
            " upgrade, or move the file away"
        )
    return version


def _look_through(connection: sqlite3.Connection, turn: Callable[[], None] | None) -> None:
    """Raise ``_Unusable`` for damage in any page."""
    if turn is not None:
        connection.set_progress_handler(turn, _STEPS)
    try:
        verdict = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    finally:
        connection.set_progress_handler(None, 0)
    if verdict != "ok":
        raise _Unusable(" ".join(verdict.split())[:200])


@contextmanager
def _atomic(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # Some errors (a full disk among them) have already rolled back.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _move_aside(path: Path, now: float) -> Path:
    """Rename the database and what SQLite keeps beside it, under one new name that nothing has yet."""
    stem = f"{path.name}.corrupt-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now))}"
    target = path.with_name(stem)
    count = 1
    while os.path.lexists(target):
        count += 1
        target = path.with_name(f"{stem}.{count}")
    # The log goes first: interrupted half-way, a log without its database must not meet a new one.
    for suffix in (*SIDECARS, ""):
        try:
            Path(f"{path}{suffix}").rename(f"{target}{suffix}")
        except FileNotFoundError:
            continue
    return target
