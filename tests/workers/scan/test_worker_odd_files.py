"""Whatever lies in the spool of a scan in the place of its files: one line, exit 2, and nothing else is harmed.

Each is a worker of its own, which may do what root may, but for looking where it is not permitted to.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from agent.declaration.model import Scan
from tests.workers.scan.bench import Bench

SCAN = Scan(name="lan", targets=("127.0.0.1",), ports="1-3", engine="connect", profile="services", rate=1000)
PLAIN = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search")
READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'


def directory(path: Path) -> None:
    path.mkdir()


def pipe(path: Path) -> None:
    os.mkfifo(path)


def file(path: Path) -> None:
    path.write_text("x")


def link(path: Path) -> None:
    """To a directory with something in it that is somebody else's."""
    elsewhere = path.parent.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "theirs.notes").write_text("x")
    path.symlink_to(elsewhere)


def unreadable(path: Path) -> None:
    path.mkdir(0)


@pytest.mark.parametrize(
    ("name", "make", "said"),
    [
        ("sweep-9.tcp", directory, "cannot be removed: Is a directory"),
        ("sweep-0.tcp", unreadable, "cannot be removed: Is a directory"),
        ("sweep-degraded.txt", directory, "cannot be removed: Is a directory"),
        ("services", file, "cannot be kept: Not a directory"),
        ("services", link, "it is a link, so no directory of ours"),
        ("services", pipe, "cannot be kept: Not a directory"),
        ("services", unreadable, "cannot be kept: Permission denied"),
        ("scan.db", directory, "not a regular file, so not a database"),
        ("scan.db", pipe, "not a regular file, so not a database"),
        ("scan.db.lock", directory, "the database cannot be opened: Is a directory"),
    ],
)
def test_what_is_no_file_of_ours_is_told_in_one_line(
    bench: Bench, name: str, make: Callable[[Path], None], said: str
) -> None:
    bench.data.mkdir()
    make(bench.data / name)
    (bench.data / "theirs").write_text("x")
    ended = bench.run(SCAN, prefix=PLAIN)
    assert (ended.code, ended.stderr.count("\n")) == (2, 1), ended.stderr
    assert said in ended.stderr
    assert name in ended.stderr or name.startswith("scan.db")
    assert "scan_failed" in ended.events
    assert [path.read_text() for path in bench.directory.rglob("theirs*")] == ["x"] * (2 if make is link else 1)


@pytest.mark.parametrize("name", ["sweep-9.udp", "sweep-degraded.txt", "scan.db.closed"])
@pytest.mark.parametrize("make", [pipe, link, file])
def test_what_can_be_put_away_is(bench: Bench, name: str, make: Callable[[Path], None]) -> None:
    bench.data.mkdir()
    make(bench.data / name)
    ended = bench.run(SCAN, prefix=PLAIN)
    assert (ended.code, ended.stderr) == (0, "")
    assert [path.read_text() for path in bench.directory.rglob("theirs*")] == ["x"] * (make is link)


@pytest.mark.parametrize("name", ["scan.db.closed", "scan.db-wal"])
def test_a_directory_in_the_place_of_what_comes_with_the_database_is_no_failure(bench: Bench, name: str) -> None:
    """The note cannot be removed, nor written at the end; the log is moved aside with the database."""
    bench.data.mkdir()
    (bench.data / name).mkdir()
    ended = bench.run(SCAN, prefix=PLAIN)
    assert (ended.code, ended.stderr) == (0, "")


def test_a_spool_that_may_not_be_looked_into_is_told_in_one_line(bench: Bench) -> None:
    bench.data.mkdir(0)
    ended = bench.run(SCAN, prefix=PLAIN)
    assert (ended.code, ended.stderr.count("\n")) == (2, 1), ended.stderr
    assert "Permission denied" in ended.stderr


def test_a_file_system_that_has_become_read_only_is_told_in_one_line_and_leaves_what_was(bench: Bench) -> None:
    assert bench.run(SCAN).code == 0
    before = bench.everything(run=1)
    (bench.data / "sweep-9.tcp").write_text("x")
    ended = bench.run(SCAN, prefix=("unshare", "--mount", "sh", "-c", READ_ONLY, str(bench.data)))
    assert (ended.code, ended.stderr.count("\n")) == (2, 1), ended.stderr
    assert "read-only" in ended.stderr or "Read-only file system" in ended.stderr
    assert "scan_failed" in ended.events
    assert bench.everything(run=1) == before
    assert bench.run(SCAN).code == 0


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (pipe, "cannot be read: it is no regular file"),
        (directory, "cannot be read: it is no regular file"),
        (link, "cannot be read: Too many levels of symbolic links"),
    ],
)
def test_notes_of_an_interrupted_run_that_are_no_file_are_told_in_one_line(
    bench: Bench, make: Callable[[Path], None], said: str
) -> None:
    assert bench.run(SCAN).code == 0
    with closing(sqlite3.connect(bench.data / "scan.db", isolation_level=None)) as connection:
        connection.execute("UPDATE runs SET status = 'interrupted', folded = 0")
    make(bench.data / "sweep-degraded.txt")
    ended = bench.run(SCAN)
    assert ended.code == 2
    assert ended.stderr.splitlines() == [
        "continuing run 1: 1 of 1 hosts were done",
        f"{bench.data}/sweep-degraded.txt: {said}",
    ]
    (bench.data / "sweep-degraded.txt").rename(bench.directory / "aside")
    assert bench.run(SCAN).code == 0
    assert bench.rows("SELECT id, status FROM runs") == [(1, "finished")]
