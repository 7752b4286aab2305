"""The memory is read by others while it is written, or when nobody writes, and no question looks through all of it."""

from __future__ import annotations

import re
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from agent.errors import StorageFailure
from agent.linux.owner import seen_by
from agent.linux.users import resolve_user
from agent.workers.scan.found import Port
from agent.workers.scan.memory import picture
from agent.workers.scan.memory.reading import Memory
from tests.workers.scan.memory.history import TASK, Service, host


@pytest.fixture
def service(tmp_path: Path) -> Service:
    made = Service(tmp_path / "lan" / "scan.db")
    made.run([host(1, 22), host(2, 80)], silent=[3])
    return made


def test_a_reader_sees_what_is_written_meanwhile(service: Service) -> None:
    with closing(service.open()) as store, Memory(service.path) as memory:
        run = store.begin(TASK, service.now + 3600)
        assert [found.status for found in memory.runs()] == ["running", "finished"]
        service.keep(store, run, [host(1, 22)])
        assert [found.address for found in memory.hosts(run.id)] == ["10.0.0.1"]


def test_a_reader_that_is_half_way_holds_nobody_up_and_sees_one_picture(service: Service) -> None:
    with closing(service.open()) as store, Memory(service.path) as memory:
        rows = memory.hosts(1)
        next(rows)
        run = store.begin(TASK, service.now + 3600)
        service.keep(store, run, [host(1, 22)])
        store.end(run, "finished", service.now + 3601)
        assert [found.address for found in rows] == ["10.0.0.2"]


def test_a_reader_changes_nothing(service: Service) -> None:
    before = service.path.read_bytes()
    with Memory(service.path) as memory:
        assert len(list(memory.now())) == 2
    assert service.path.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("runs SET loss = 'much'", "Expected `float | null`, got `str` - at `$.loss`"),
        ("runs SET started = 1e300", "Expected `float` <= 100000000000.0 - at `$.started`"),
        ("runs SET declared = '[]'", "which is not what belongs there"),
        ("changes SET time = 1e12", "- at `$.time`"),
        ("hosts SET misses = 'many'", "Expected `int`, got `str` - at `$.misses`"),
        ("ports SET last_seen = -1", "- at `$.ports[0][7]`"),
        ("hosts SET address = '10.0.0.x'", "it holds a host without an address"),
        ("hosts SET address = x'0a'", "it holds a host without an address"),
    ],
)
def test_a_value_that_does_not_belong_there_is_said_in_one_line(service: Service, change: str, message: str) -> None:
    """The database may have been written by the worker of another user."""
    with closing(sqlite3.connect(service.path)) as database:
        database.execute(f"UPDATE OR IGNORE {change}")
        database.commit()
    with Memory(service.path) as memory, pytest.raises(StorageFailure) as failure:
        for found in (memory.runs(), memory.changes(), memory.hosts(1), memory.now()):
            list(found)
    assert message in str(failure.value)
    assert "\n" not in str(failure.value)


def test_somebody_who_may_only_read_can(service: Service) -> None:
    """Not even SQLite's own files can be made beside the database by whom this is read as."""
    copy = Path(tempfile.mkdtemp(prefix="scan-memory-", dir="/tmp"))  # where anybody can get to
    try:
        shutil.copy(service.path, copy)
        (copy / "scan.db").chmod(0o444)
        copy.chmod(0o555)
        with seen_by(resolve_user("65534", None)), Memory(copy / "scan.db") as memory:
            assert (len(memory.runs()), len(list(memory.now()))) == (1, 2)
        assert [path.name for path in copy.iterdir()] == ["scan.db"]
    finally:
        shutil.rmtree(copy)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is none: nothing was scanned yet"),
        (b"", "not a database"),
        (b"garbage" * 100, "not a database"),
        (b"SQLite format 3\0" + b"garbage" * 1000, "damaged|not a database"),
    ],
)
def test_what_is_no_memory_is_said_in_one_line(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "scan.db"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StorageFailure, match=message) as refused:
        Memory(path)
    assert "\n" not in str(refused.value)
    assert content is None or path.read_bytes() == content


def test_another_programs_database_is_not_taken_for_ours(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "scan.db")) as connection:
        connection.execute("CREATE TABLE runs (id)")
    with pytest.raises(StorageFailure, match="another program's database"):
        Memory(tmp_path / "scan.db")


@pytest.mark.parametrize(
    "harm",
    [
        "UPDATE pictures SET data = x'00'",
        "UPDATE pictures SET data = zeroblob(100)",
        "UPDATE hosts SET names = '{'",
        "UPDATE hosts SET os = '[1]'",
        "UPDATE runs SET declared = 'nothing'",
        "UPDATE runs SET argv = '{}'",
        "UPDATE port_sets SET ports = '[[1]]' || id",
        "DROP TABLE pictures",
    ],
)
def test_a_memory_that_somebody_changed_is_one_line_and_no_crash(service: Service, harm: str) -> None:
    with closing(sqlite3.connect(service.path)) as connection:
        connection.execute(harm)
        connection.commit()
    with Memory(service.path) as memory, pytest.raises(StorageFailure) as refused:
        list(memory.hosts(1))
        list(memory.now())
        memory.runs()
        memory.coverage(1).asked("10.0.0.1", "tcp", 22)
    assert "\n" not in str(refused.value)


def test_a_picture_that_inflates_without_end_is_refused(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    _, bomb = picture.encode(replace(host(1), names=("x" * 1_000_000,)))
    assert len(bomb) < 5000
    with closing(sqlite3.connect(service.path)) as connection:
        connection.execute("UPDATE pictures SET data = ?", (bomb,))
        connection.commit()
    monkeypatch.setattr(picture, "LONGEST", 100_000)
    with Memory(service.path) as memory, pytest.raises(StorageFailure, match="cut short, or too much"):
        list(memory.hosts(1))


# What each question looks at, and how: by index alone. Small tables may be read whole.
SMALL = ("services", "quarantine")


def test_no_question_reads_a_whole_table(service: Service) -> None:
    """On tables of any size SQLite plans the same, since nothing is analysed."""
    service.run([host(1, 22), host(2, Port("tcp", 80, "open", "", "http", method="probed"))], silent=[3])
    asked: list[str] = []
    with Memory(service.path) as memory:
        memory._connection.set_trace_callback(asked.append)
        questions: list[Callable[[], object]] = [
            lambda: memory.runs(10),
            lambda: memory.run(1),
            lambda: list(memory.hosts(1)),
            lambda: memory.host(1, "10.0.0.1"),
            lambda: list(memory.differing(1, 2)),
            lambda: list(memory.now(site="here")),
            lambda: memory.changes(limit=5),
            lambda: memory.changes(since=1.0, until=2.0),
            lambda: memory.changes(run=1),
            lambda: memory.changes(after=0),
            lambda: memory.coverage(1).asked("10.0.0.3", "tcp", 22),
            lambda: memory.coverage(1).asked("10.0.0.1", "tcp", 22),
            lambda: list(memory.raw(1)),
            lambda: memory.quarantine(),
        ]
        for question in questions:
            question()
        memory._connection.set_trace_callback(None)
        plans = {
            query: [row[3] for row in memory._connection.execute(f"EXPLAIN QUERY PLAN {query}")] for query in asked
        }
    assert len(plans) > 15
    scans = re.compile(r"SCAN (\w+)")
    for query, plan in plans.items():
        for step in plan:
            found = scans.match(step)
            if found and found[1] not in SMALL and "CONSTANT ROW" not in step:
                whole = found[1] == "hosts" and "state IN" in query  # what is so now is all that is asked for
                assert "LIMIT" in query or whole, f"{query}\n{plan}"
