"""A memory that an older version wrote is gone on with, and one of a newer version is left alone."""

from __future__ import annotations

import gzip
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from agent.errors import StorageFailure
from agent.workers.scan.found import Rest
from agent.workers.scan.memory import schema
from agent.workers.scan.memory.reading import Memory
from agent.workers.scan.store import ScanStore
from tests.workers.scan.memory.history import TASK, Service, fill, host, told

SCHEMA_1 = gzip.decompress(Path(__file__).with_name("schema1.db.gz").read_bytes())
"""Written by the version before this schema, commit 1e1bf90: three scans of 127.0.0.0/29 without .5 and of
fd00:dead::/126, the last one after port 80 of .2 was closed,
and one of 127.0.0.0/24 that was killed after its first chunk."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "scan.db").write_bytes(SCHEMA_1)
    return tmp_path / "scan.db"


def test_all_runs_of_an_older_version_are_kept_with_what_they_found_and_asked(path: Path) -> None:
    ScanStore(path, site="here").close()
    with Memory(path) as memory:
        fourth, _, _, first = memory.runs()
        assert (first.id, first.site, first.status, first.profile, first.nmap_version) == (
            1,
            "here",
            "finished",
            "services",
            "7.93",
        )
        assert (first.hosts_total, first.hosts_up, first.ports_open, first.chunks_done) == (11, 7, 3, 2)
        assert (first.started, first.ended) == (1795796900.4365537, 1795796912.1181448)
        assert first.declared["exclude"] == ["127.0.0.5"]
        assert (fourth.status, fourth.chunks_done) == ("running", 1)
        hosts = {host.address: host for host in memory.hosts(1)}
        assert list(hosts) == [f"127.0.0.{last}" for last in (0, 1, 2, 3, 4, 6, 7)]
        ssh, web = hosts["127.0.0.2"].open_ports()
        assert (ssh.product, ssh.version, ssh.extrainfo) == (
            "OpenSSH",
            "9.2p1 Debian 2+deb12u3",
            "protocol 2.0",
        )
        assert web.cpe == ("cpe:/a:python:simplehttpserver:0.6",)
        assert hosts["127.0.0.3"].rest == (Rest("tcp", "closed|filtered", "", ((1, 24), (26, 100))),)
        coverage = memory.coverage(1)
        assert coverage.asked("127.0.0.1", "tcp", 100)
        assert not coverage.asked("127.0.0.1", "tcp", 101)
        assert [coverage.outcome(text) for text in ("127.0.0.5", "fd00:dead::3", "fd00:dead::4")] == ["", "silent", ""]
        assert memory.coverage(4).looked("127.0.0.63")
        assert not memory.coverage(4).looked("127.0.0.64")


def test_what_an_older_version_found_becomes_what_is_so_now_and_is_no_news(path: Path) -> None:
    with closing(ScanStore(path, site="here")) as store:
        run = store.begin(TASK, 1795800000.0)
        assert told(store) == []
        store.end(run, "finished", 1795800001.0)
    with Memory(path) as memory:
        found = {(port.address, port.number): port for host in memory.now() for port in host.ports}
        assert sorted(found) == [("127.0.0.2", 22), ("127.0.0.2", 80), ("127.0.0.3", 25)]
        ssh, web = found["127.0.0.2", 22], found["127.0.0.2", 80]
        assert (ssh.state, int(ssh.first_seen), ssh.service.version) == ("open", 1795796911, "9.2p1 Debian 2+deb12u3")
        assert (web.state, web.misses, web.confidence) == ("open", 1, "doubtful"), "one scan missed it, one was killed"
        assert [run.status for run in memory.runs()] == ["finished", "interrupted", "finished", "finished", "finished"]


def test_a_migration_that_is_cut_short_leaves_the_file_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("agent.workers.scan.memory.migration._run", killed)
        with pytest.raises(KeyboardInterrupt):
            ScanStore(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*), max(id) FROM runs").fetchone() == (4, 4)
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    ScanStore(path).close()


def test_a_migration_on_a_full_disk_is_one_line_and_leaves_the_file_as_it_was(small_disk: Path) -> None:
    path = small_disk / "scan.db"
    path.write_bytes(SCHEMA_1)
    fill(small_disk)
    with pytest.raises(StorageFailure, match="the disk is full") as full:
        ScanStore(path)
    assert "\n" not in str(full.value)
    (small_disk / "filler").unlink()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM hosts").fetchone() == (85,)
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    ScanStore(path).close()


def test_a_memory_of_an_older_version_is_not_read_before_it_was_brought_up_to_date(path: Path) -> None:
    with pytest.raises(StorageFailure, match=r"older version .* the next scan brings it up to date"):
        Memory(path)


def test_a_memory_of_a_newer_version_is_refused_in_one_line_and_untouched(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    before = path.read_bytes()
    for reader in (ScanStore, Memory):
        with pytest.raises(StorageFailure, match=r"written by a newer version .*: upgrade") as refused:
            reader(path)
        assert "\n" not in str(refused.value)
    assert path.read_bytes() == before
    assert not list(path.parent.glob("*corrupt*"))


def test_a_memory_that_was_brought_up_to_date_has_the_very_tables_that_a_new_one_has(
    path: Path, tmp_path: Path
) -> None:
    ScanStore(path, site="here").close()
    ScanStore(tmp_path / "new.db", site="here").close()
    schemas = []
    for one in (path, tmp_path / "new.db"):
        with closing(sqlite3.connect(one)) as connection:
            version = connection.execute("PRAGMA user_version").fetchone()
            rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name")
            schemas.append((version, rows.fetchall()))
    assert schemas[0] == schemas[1]
    assert len(schemas[0][1]) > 12


def tables(connection: sqlite3.Connection) -> list[list[tuple[object, ...]]]:
    asked = ("table_info(hosts)", "table_info(ports)", "index_list(ports)", "index_info(ports_flapping)")
    return [sorted(connection.execute(f"PRAGMA {one}").fetchall()) for one in asked]


def test_a_memory_of_version_2_gets_the_columns_that_it_lacks_and_keeps_all_else(tmp_path: Path) -> None:
    service = Service(tmp_path / "scan.db")
    for _ in range(2):
        service.run([host(1, 22)], silent=[2])
    with closing(sqlite3.connect(service.path)) as connection:
        before = tables(connection)
        connection.execute("DROP INDEX ports_flapping")
        for column in ("hosts DROP COLUMN discovery", "hosts DROP COLUMN answers", "ports DROP COLUMN lately"):
            connection.execute(f"ALTER TABLE {column}")
        connection.execute("PRAGMA user_version = 2")
    with pytest.raises(StorageFailure, match="older version"):
        Memory(service.path)
    service.run([], silent=[1, 2])
    assert service.run([], silent=[1, 2]) == ["host_gone 10.0.0.1"], "how it answered is not known, so as it was"
    with closing(sqlite3.connect(service.path)) as connection:
        assert tables(connection) == before
