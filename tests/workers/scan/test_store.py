"""What a scan found is remembered whole or not at all, and what was interrupted is continued."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agent.errors import ScanFailure, StorageFailure
from agent.workers.scan import store as store_module
from agent.workers.scan.found import Host, Port
from agent.workers.scan.plan import Chunk, Plan, make_plan
from agent.workers.scan.results import ChunkResult
from agent.workers.scan.store import KEEP_RUNS, RESUME_WITHIN, Run, ScanStore

NOW = 1_750_000_000.0
SSH = ("tcp", 22, "open", "syn-ack", "ssh", "OpenSSH", "9.2", "protocol 2.0", "", ("cpe:/a:x", "cpe:/o:y"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ScanStore]:
    opened = ScanStore(tmp_path / "lan" / "scan.db")
    yield opened
    opened.close()


def plan() -> Plan:
    """Four chunks of 64."""
    return make_plan(["10.0.0.0/24"])


def result(chunk: Chunk) -> ChunkResult:
    ports = (
        Port("tcp", *SSH[1:]),
        Port("tcp", 23, "closed", "reset"),
    )
    return ChunkResult((Host(chunk.addresses[0], "up", "arp-response", "02:00:00:00:00:01", ("a",), ports),), "7.93")


def begin(store: ScanStore, now: float = NOW, wanted: Plan | None = None) -> Run:
    return store.begin(wanted or plan(), "{}", ("nmap", "-n"), now)


def scan(store: ScanStore, run: Run, *numbers: int) -> None:
    for chunk in plan().chunks():
        if chunk.number in numbers:
            store.store(run, chunk, result(chunk), NOW + chunk.number)


def rows(store: ScanStore, query: str) -> list[Any]:
    """As any other program would read them, while the store is open."""
    with closing(sqlite3.connect(store.path)) as connection:
        return connection.execute(query).fetchall()


def test_a_run_and_its_findings_can_be_read_by_any_program(store: ScanStore) -> None:
    run = begin(store)
    scan(store, run, 0, 1, 2, 3)
    store.end(run, "finished", NOW + 9)
    assert rows(
        store, "SELECT status, started, ended, hosts_total, chunks_total, chunks_done, nmap_version FROM runs"
    ) == [("finished", NOW, NOW + 9, 256, 4, 4, "7.93")]
    assert json.loads(rows(store, "SELECT argv FROM runs")[0][0]) == ["nmap", "-n"]
    assert rows(store, "SELECT number, first, last, hosts FROM chunks")[1] == (1, "10.0.0.64", "10.0.0.127", 64)
    assert rows(store, "SELECT address, state, reason, mac, names FROM hosts")[0] == (
        "10.0.0.0",
        "up",
        "arp-response",
        "02:00:00:00:00:01",
        '["a"]',
    )
    assert rows(store, "SELECT * FROM ports WHERE address = '10.0.0.64' AND port = 22") == [
        (run.id, "10.0.0.64", "tcp", 22, *SSH[2:9], '["cpe:/a:x", "cpe:/o:y"]')
    ]
    assert (run.hosts_done, run.hosts_up, run.ports_open) == (256, 4, 4)


def test_each_chunk_is_there_as_soon_as_it_is_stored(store: ScanStore) -> None:
    run = begin(store)
    scan(store, run, 0)
    assert rows(store, "SELECT count(*) FROM hosts") == [(1,)]
    assert rows(store, "SELECT status, chunks_done FROM runs") == [("running", 1)]


def test_a_chunk_that_cannot_be_stored_leaves_nothing(store: ScanStore) -> None:
    run = begin(store)
    chunk = next(plan().chunks())
    twice = ChunkResult(result(chunk).hosts * 2, "7.93")
    with pytest.raises(StorageFailure, match="UNIQUE"):
        store.store(run, chunk, twice, NOW)
    assert rows(store, "SELECT (SELECT count(*) FROM chunks), (SELECT count(*) FROM hosts)") == [(0, 0)]
    assert (run.done, run.hosts_done) == (set(), 0)
    scan(store, run, 0)
    assert run.done == {0}


@pytest.mark.parametrize("told", [True, False], ids=["stopped", "killed"])
def test_an_interrupted_run_of_the_same_plan_is_continued(
    store: ScanStore, told: bool, request: pytest.FixtureRequest
) -> None:
    run = begin(store)
    scan(store, run, 0, 1)
    if told:
        store.end(run, "interrupted", NOW + 5)
    store.close()
    request.addfinalizer((store := ScanStore(store.path)).close)
    again = begin(store, NOW + 60)
    assert again.resumed
    assert (again.id, again.done) == (run.id, {0, 1})
    assert (again.hosts_done, again.hosts_up, again.ports_open) == (128, 2, 2)
    scan(store, again, 2, 3)
    store.end(again, "finished", NOW + 99)
    assert rows(store, "SELECT status, chunks_done FROM runs") == [("finished", 4)]


@pytest.mark.parametrize("ending", ["finished", "failed"])
def test_a_run_that_ended_is_not_continued(store: ScanStore, ending: store_module.Ending) -> None:
    run = begin(store)
    scan(store, run, 0)
    store.end(run, ending, NOW)
    assert not begin(store).resumed


def test_an_interrupted_run_of_another_plan_is_not_continued(store: ScanStore) -> None:
    run = begin(store)
    scan(store, run, 0)
    store.end(run, "interrupted", NOW)
    other = begin(store, NOW, make_plan(["10.0.1.0/24"]))
    assert (other.id != run.id, other.done) == (True, set())


@pytest.mark.parametrize("later", [RESUME_WITHIN + 1, -RESUME_WITHIN - 1])
def test_an_interrupted_run_is_not_continued_a_day_later(store: ScanStore, later: float) -> None:
    run = begin(store)
    scan(store, run, 0)
    store.end(run, "interrupted", NOW)
    assert begin(store, NOW + later).id != run.id


def test_old_runs_are_forgotten_with_all_they_found_but_never_the_last_good_one(store: ScanStore) -> None:
    good = begin(store)
    scan(store, good, 0, 1, 2, 3)
    store.end(good, "finished", NOW)
    for _ in range(KEEP_RUNS + 5):
        run = begin(store)
        scan(store, run, 0)
        store.end(run, "failed", NOW, "no route")
    assert rows(store, "SELECT count(*) FROM runs") == [(KEEP_RUNS + 1,)]
    assert rows(store, f"SELECT chunks_done FROM runs WHERE id = {good.id}") == [(4,)]
    for table in ("chunks", "hosts", "ports"):
        assert rows(store, f"SELECT count(*) FROM {table} WHERE run NOT IN (SELECT id FROM runs)") == [(0,)]
    assert rows(store, "SELECT count(*) FROM hosts") == [(KEEP_RUNS + 4,)]


def test_a_second_scan_of_the_same_service_is_refused_until_the_first_lets_go(store: ScanStore) -> None:
    with pytest.raises(ScanFailure, match="another scan of this service is running"):
        ScanStore(store.path)
    store.close()
    with closing(ScanStore(store.path)) as second:
        assert not begin(second).resumed


def test_a_damaged_database_is_moved_aside_and_told(tmp_path: Path) -> None:
    (tmp_path / "scan.db").write_bytes(b"garbage" * 1000)
    with closing(ScanStore(tmp_path / "scan.db")) as opened:
        assert opened.opened.moved_aside is not None
        assert opened.opened.moved_aside.read_bytes() == b"garbage" * 1000
        begin(opened)


def test_a_database_that_cannot_be_opened_leaves_no_lock_behind(tmp_path: Path) -> None:
    (tmp_path / "scan.db").mkdir()
    for _ in range(2):
        with pytest.raises(StorageFailure, match="not a regular file"):
            ScanStore(tmp_path / "scan.db")
