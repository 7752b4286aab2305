"""Databases survive: real files, damaged in the ways that disks and people damage them."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from agent.errors import StorageFailure
from agent.telemetry import database
from agent.telemetry.database import (
    APPLICATION_ID,
    CHECKED_WITHIN,
    close_database,
    is_damage,
    open_database,
    transaction,
)

NOON = 1_750_000_000.0  # 2025-06-15T15:06:40Z


def schema(connection: sqlite3.Connection, found: int) -> None:
    if found < 1:
        connection.execute("CREATE TABLE memory (id INTEGER PRIMARY KEY, text TEXT NOT NULL)")
    if found < 2:
        connection.execute("CREATE TABLE detail (memory INTEGER NOT NULL REFERENCES memory ON DELETE CASCADE)")


def fill(path: Path, rows: int = 500) -> None:
    opened = open_database(path, 2, schema)
    with transaction(opened.connection, path):
        opened.connection.executemany("INSERT INTO memory (text) VALUES (?)", [("x" * 100,)] * rows)
    opened.connection.close()


def count(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM memory").fetchone()[0])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", disk], check=True)
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_new_database_is_made_with_its_directory_and_settings(tmp_path: Path) -> None:
    path = tmp_path / "spool" / "x.db"
    opened = open_database(path, 2, schema)
    assert (opened.moved_aside, opened.reason) == (None, "")

    def pragma(name: str) -> object:
        return opened.connection.execute(f"PRAGMA {name}").fetchone()[0]

    assert pragma("journal_mode") == "wal"
    assert pragma("synchronous") == 1
    assert pragma("foreign_keys") == 1
    assert pragma("application_id") == APPLICATION_ID
    assert pragma("user_version") == 2
    assert 0 < int(str(pragma("busy_timeout"))) <= 5000
    assert path.stat().st_mode & 0o007 == 0
    opened.connection.close()


def test_what_was_stored_is_there_when_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    fill(path, 7)
    opened = open_database(path, 2, schema)
    assert count(opened.connection) == 7
    assert opened.moved_aside is None
    opened.connection.close()


def test_an_older_schema_is_migrated_and_keeps_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "x.db"

    def first(connection: sqlite3.Connection, found: int) -> None:
        assert found == 0
        connection.execute("CREATE TABLE memory (id INTEGER PRIMARY KEY, text TEXT NOT NULL)")

    old = open_database(path, 1, first).connection
    old.execute("INSERT INTO memory (text) VALUES ('kept')")
    old.close()
    new = open_database(path, 2, schema).connection
    assert new.execute("SELECT text FROM memory").fetchall() == [("kept",)]
    assert new.execute("SELECT count(*) FROM detail").fetchone() == (0,)
    new.close()


def test_a_migration_that_fails_half_way_leaves_the_old_schema(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    fill(path, 3)

    def broken(connection: sqlite3.Connection, found: int) -> None:
        connection.execute("CREATE TABLE more (x)")
        connection.execute("INSERT INTO nowhere VALUES (1)")

    with pytest.raises(StorageFailure, match="nowhere"):
        open_database(path, 3, broken)
    opened = open_database(path, 2, schema)
    assert count(opened.connection) == 3
    assert opened.connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'more'").fetchone() == (0,)
    opened.connection.close()


def test_a_newer_schema_is_refused_and_left_untouched(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    fill(path)
    before = path.read_bytes()
    with pytest.raises(StorageFailure, match=r"x\.db: written by a newer version .*schema 2, this one knows 1"):
        open_database(path, 1, schema)
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.db"]


@pytest.mark.parametrize(
    "content",
    [b"x", b"not a database at all\n" * 400, b"\0" * 8192, b"SQLite format 3\0" + b"\xff" * 4080],
    ids=["one byte", "text", "zeros", "bad header"],
)
def test_a_file_that_is_no_database_is_moved_aside_unchanged(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.db"
    path.write_bytes(content)
    opened = open_database(path, 2, schema, clock=lambda: NOON)
    assert opened.moved_aside == tmp_path / "x.db.corrupt-20250615T150640Z"
    assert opened.moved_aside.read_bytes() == content
    assert opened.reason
    assert "\n" not in opened.reason
    assert count(opened.connection) == 0
    opened.connection.close()


def test_another_programs_database_is_moved_aside_and_still_readable(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs AS SELECT 42 AS answer")
    other.commit()
    other.close()
    opened = open_database(path, 2, schema)
    assert opened.reason == "it is another program's database"
    assert opened.moved_aside is not None
    with closing(sqlite3.connect(opened.moved_aside)) as theirs:
        assert theirs.execute("SELECT answer FROM theirs").fetchall() == [(42,)]
    opened.connection.close()


def test_a_truncated_database_is_moved_aside(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    fill(path)
    os.truncate(path, path.stat().st_size // 2)
    opened = open_database(path, 2, schema)
    assert opened.moved_aside is not None
    assert count(opened.connection) == 0
    opened.connection.close()


def test_no_damage_to_a_page_gets_past_opening_with_more_than_a_stated_error(tmp_path: Path) -> None:
    whole = tmp_path / "whole.db"
    fill(whole)
    content = whole.read_bytes()
    dice = random.Random(1)
    moved = 0
    for attempt in range(60):
        path = tmp_path / f"{attempt}.db"
        damaged = bytearray(content)
        start = dice.randrange(100, len(content) - 200)
        damaged[start : start + 200] = dice.randbytes(200)
        path.write_bytes(damaged)
        opened = open_database(path, 2, schema)
        moved += opened.moved_aside is not None
        if opened.moved_aside is not None:
            assert opened.moved_aside.read_bytes() == bytes(damaged)
        with transaction(opened.connection, path):
            opened.connection.execute("INSERT INTO memory (text) VALUES ('after')")
        opened.connection.close()
    assert moved > 20


def damage(path: Path) -> None:
    """Such as a disk does to a file that nobody writes to: without a trace in its directory."""
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(status.st_size - 3000)
        file.write(bytes(range(256)) * 8)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def closed_well(path: Path, now: float = NOON) -> None:
    fill(path)
    close_database(open_database(path, 2, schema, clock=lambda: now), path)


def test_one_that_was_closed_well_is_not_looked_through_at_each_start(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    closed_well(path)
    damage(path)
    opened = open_database(path, 2, schema, clock=lambda: NOON + 60)
    assert (opened.moved_aside, opened.checked) == (None, NOON)
    with pytest.raises(sqlite3.DatabaseError) as heard:
        opened.connection.execute("SELECT sum(length(text)) FROM memory").fetchone()
    assert is_damage(heard.value)
    opened.connection.close()  # as whoever hears of damage does: it is looked through the next time
    opened = open_database(path, 2, schema, clock=lambda: NOON + 120)
    assert opened.moved_aside is not None
    opened.connection.close()


@pytest.mark.parametrize("how", ["killed", "written to", "long ago", "clock set back", "not a note", "copied"])
def test_any_other_is_looked_through(tmp_path: Path, how: str) -> None:
    path, now = tmp_path / "x.db", NOON
    closed_well(path)
    damage(path)
    note = path.with_name("x.db.closed")
    if how == "killed":
        writer = open_database(path, 2, schema, clock=lambda: NOON)  # and is never closed
        assert not note.exists()
        assert writer.moved_aside is None
    elif how == "written to":
        os.utime(path)
    elif how == "long ago":
        now += CHECKED_WITHIN + 1
    elif how == "clock set back":
        now -= 1
    elif how == "not a note":
        note.write_bytes(b"\xff" * 300)
    else:
        path.replace(tmp_path / "y.db")
        (tmp_path / "x.db").write_bytes((tmp_path / "y.db").read_bytes())
    opened = open_database(path, 2, schema, clock=lambda: now)
    assert opened.moved_aside is not None
    opened.connection.close()


def test_whoever_waits_while_it_is_looked_through_gets_a_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.db"
    fill(path)
    monkeypatch.setattr(database, "_STEPS", 100)
    turns: list[None] = []
    opened = open_database(path, 2, schema, turn=lambda: turns.append(None))
    assert len(turns) > 3
    before = len(turns)
    assert count(opened.connection) == 500
    assert len(turns) == before
    opened.connection.close()


def test_the_log_beside_a_damaged_database_goes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.write_bytes(b"garbage" * 1000)
    (tmp_path / "x.db-wal").write_bytes(b"old log")
    opened = open_database(path, 2, schema, clock=lambda: NOON)
    assert (tmp_path / "x.db.corrupt-20250615T150640Z-wal").read_bytes() == b"old log"
    assert count(opened.connection) == 0
    opened.connection.close()


def test_a_log_whose_database_is_gone_is_kept_aside(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    (tmp_path / "x.db-wal").write_bytes(b"all that is left")
    opened = open_database(path, 2, schema, clock=lambda: NOON)
    assert (tmp_path / "x.db.corrupt-20250615T150640Z-wal").read_bytes() == b"all that is left"
    opened.connection.close()


def test_two_files_moved_aside_in_one_second_both_remain(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    kept = []
    for content in (b"first" * 500, b"second" * 500, b"third" * 500):
        path.write_bytes(content)
        opened = open_database(path, 2, schema, clock=lambda: NOON)
        opened.connection.close()
        assert opened.moved_aside is not None
        kept.append(opened.moved_aside.read_bytes())
    assert kept == [b"first" * 500, b"second" * 500, b"third" * 500]


def test_a_process_killed_while_writing_loses_no_committed_row(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    fill(path, 0)
    writer = (
        "import os, sqlite3, signal, sys\n"
        "c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "for i in range(100): c.execute(\"INSERT INTO memory (text) VALUES ('x')\")\n"
        "c.execute('BEGIN'); c.execute(\"INSERT INTO memory (text) VALUES ('lost')\")\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", writer, path]).returncode == -9
    opened = open_database(path, 2, schema)
    assert opened.moved_aside is None
    assert count(opened.connection) == 100
    opened.connection.close()


def test_a_full_disk_is_one_line_and_the_transaction_leaves_nothing(small_disk: Path) -> None:
    path = small_disk / "x.db"
    opened = open_database(path, 2, schema)
    opened.connection.execute("INSERT INTO memory (text) VALUES ('before')")
    with (
        pytest.raises(StorageFailure, match=r"x\.db: the disk is full") as failure,
        transaction(opened.connection, path),
    ):
        for _ in range(2000):
            opened.connection.execute("INSERT INTO memory (text) VALUES (?)", ("x" * 1000,))
    assert "\n" not in str(failure.value)
    assert count(opened.connection) == 1
    opened.connection.execute("INSERT INTO memory (text) VALUES ('after')")
    opened.connection.close()


def test_a_disk_that_is_full_from_the_start_is_one_line(small_disk: Path) -> None:
    with (small_disk / "filler").open("wb", buffering=0) as filler, pytest.raises(OSError, match="No space"):
        while True:
            filler.write(b"x" * 4096)
    with pytest.raises(StorageFailure, match=r"x\.db: .*(full|failed)") as failure:
        open_database(small_disk / "x.db", 2, schema)
    assert "\n" not in str(failure.value)


def test_a_read_only_disk_is_one_line(small_disk: Path) -> None:
    fill(small_disk / "x.db", 3)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(StorageFailure, match=r"x\.db: .*[Rr]ead-only"):
        open_database(small_disk / "x.db", 2, schema)


def test_a_locked_database_is_not_taken_for_a_damaged_one(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    fill(path, 3)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    opened = open_database(path, 2, schema)  # readers do not wait with a write-ahead log
    with pytest.raises(StorageFailure, match="locked by another program"), transaction(opened.connection, path):
        raise AssertionError("must not get here")
    holder.close()
    opened.connection.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.db"]


def test_a_directory_or_pipe_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d.db").mkdir()
    os.mkfifo(tmp_path / "p.db")
    for name in ("d.db", "p.db"):
        with pytest.raises(StorageFailure, match="not a regular file"):
            open_database(tmp_path / name, 2, schema)


def test_a_transaction_that_raises_stores_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    opened = open_database(path, 2, schema)
    with pytest.raises(KeyError), transaction(opened.connection, path):
        opened.connection.execute("INSERT INTO memory (text) VALUES ('x')")
        raise KeyError("x")
    assert count(opened.connection) == 0
    opened.connection.close()


def test_a_broken_foreign_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    opened = open_database(path, 2, schema)
    with pytest.raises(StorageFailure, match="FOREIGN KEY"), transaction(opened.connection, path):
        opened.connection.execute("INSERT INTO detail VALUES (99)")
    opened.connection.close()


def test_damage_is_told_from_other_errors(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.write_bytes(b"garbage" * 1000)
    with closing(sqlite3.connect(path)) as connection, pytest.raises(sqlite3.DatabaseError) as damage:
        connection.execute("PRAGMA user_version")
    assert is_damage(damage.value)
    with closing(sqlite3.connect(":memory:")) as connection, pytest.raises(sqlite3.OperationalError) as mistake:
        connection.execute("SELECT nothing")
    assert not is_damage(mistake.value)
