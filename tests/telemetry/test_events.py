from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.telemetry.events import COMMIT_AT, DATA_LIMIT, MESSAGE_LIMIT, RING, Event, EventStore, History
from tests.telemetry.logs import fill

NOW = 1_763_640_000.0


class Timers:
    """A loop's ``call_later`` that runs when told to."""

    def __init__(self) -> None:
        self.due: list[tuple[float, Callable[[], None]]] = []
        self.asked: list[float] = []

    def __call__(self, seconds: float, callback: Callable[[], None]) -> None:
        self.asked.append(seconds)
        self.due.append((seconds, callback))

    def fire(self) -> None:
        due, self.due = self.due, []
        for _, callback in due:
            callback()


def rows(path: Path) -> list[tuple[object, ...]]:
    """What another process would find on disk."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT cursor, service, kind, message FROM event ORDER BY cursor").fetchall()


@pytest.fixture
def timers() -> Timers:
    return Timers()


@pytest.fixture
def store(tmp_path: Path, timers: Timers) -> Iterator[EventStore]:
    store = EventStore(tmp_path / "events.db", schedule=timers, clock=lambda: NOW)
    yield store
    store.close()


@pytest.fixture
def disk_size() -> str:
    """A database begins larger than a log does."""
    return "512k"


def test_an_event_is_readable_at_once_and_stored_with_its_company_in_one_commit(
    tmp_path: Path, store: EventStore, timers: Timers
) -> None:
    first = store.append("started", "api started", "api", pid=7)
    store.append("reloaded", "nothing changed")
    assert first == Event(first.cursor, NOW, "api", "started", "api started", {"pid": 7})
    assert [event.kind for event in store.read()] == ["started", "reloaded"]
    assert rows(tmp_path / "events.db") == []
    assert timers.asked == [0.2]
    timers.fire()
    assert [row[2] for row in rows(tmp_path / "events.db")] == ["started", "reloaded"]


def test_an_idle_store_asks_for_no_timer(store: EventStore, timers: Timers) -> None:
    assert timers.due == []
    store.append("started", "api started")
    timers.fire()
    assert timers.due == []


def test_a_burst_is_committed_without_waiting_for_the_timer(tmp_path: Path, store: EventStore, timers: Timers) -> None:
    for number in range(COMMIT_AT):
        store.append("burst", str(number))
    assert len(rows(tmp_path / "events.db")) == COMMIT_AT


def test_cursors_go_on_growing_after_a_restart_even_with_the_clock_set_back(tmp_path: Path, timers: Timers) -> None:
    first = EventStore(tmp_path / "events.db", schedule=timers, clock=lambda: NOW)
    before = [first.append("a", "") for _ in range(3)][-1]
    first.close()
    second = EventStore(tmp_path / "events.db", schedule=timers, clock=lambda: NOW - 3600)
    assert second.newest == before.cursor
    assert second.append("b", "").cursor > before.cursor
    assert [event.kind for event in second.read()] == ["a", "a", "a", "b"]
    second.close()


@settings(deadline=None, max_examples=40)
@given(
    steps=st.lists(
        st.one_of(st.tuples(st.sampled_from("ab"), st.sampled_from("xy")), st.sampled_from(["flush", "restart"])),
        max_size=40,
    ),
    after=st.integers(0, 45),
    limit=st.integers(0, 12),
    service=st.sampled_from([None, "a", "b"]),
    kind=st.sampled_from([None, "x", "y"]),
)
def test_reading_gives_the_same_from_memory_from_disk_and_from_both(
    steps: list[tuple[str, str] | str], after: int, limit: int, service: str | None, kind: str | None
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "events.db"
        store = EventStore(path, schedule=Timers(), clock=lambda: 0.0)
        history: list[Event] = []
        for step in steps:
            if step == "flush":
                assert store.flush()
            elif step == "restart":
                store.close()
                store = EventStore(path, schedule=Timers(), clock=lambda: 0.0)
            else:
                history.append(store.append(step[1], "text", step[0], n=len(history)))
        wanted = [
            event
            for event in history
            if event.cursor > after and service in (None, event.service) and kind in (None, event.kind)
        ]
        assert store.read(after, limit, service, kind) == wanted[:limit]
        of_service = [event for event in history if service in (None, event.service)]
        assert store.last(limit, service) == (of_service[-limit:] if limit else [])
        assert store.oldest == (history[0].cursor if history else 0)
        assert store.newest == (history[-1].cursor if history else 0)
        store.close()


def test_the_store_is_bounded_and_says_what_it_has_forgotten(tmp_path: Path, timers: Timers) -> None:
    store = EventStore(tmp_path / "events.db", limit=100, schedule=timers, clock=lambda: NOW)
    cursors = []
    for number in range(350):
        cursors.append(store.append("tick", str(number)).cursor)
        if number % 7 == 0:
            store.flush()
    store.flush()
    stored = [row[0] for row in rows(tmp_path / "events.db")]
    assert 100 <= len(stored) <= 101
    assert stored == cursors[-len(stored) :]
    assert store.forgotten == cursors[-len(stored) - 1]
    store.close()
    again = EventStore(tmp_path / "events.db", limit=100, schedule=timers)
    assert again.forgotten == cursors[-len(stored) - 1]
    assert again.oldest == stored[0]
    again.close()


def test_subscribers_hear_each_event_at_once_until_they_unsubscribe(store: EventStore) -> None:
    heard: list[str] = []
    unsubscribe = store.subscribe(lambda event: heard.append(event.kind))
    store.append("one", "")
    assert heard == ["one"]
    unsubscribe()
    unsubscribe()
    store.append("two", "")
    assert heard == ["one"]


def test_a_failing_subscriber_harms_neither_the_event_nor_the_others(store: EventStore) -> None:
    heard: list[str] = []

    def broken(event: Event) -> None:
        raise RuntimeError("a bug")

    store.subscribe(broken)
    store.subscribe(lambda event: heard.append(event.kind))
    assert store.append("one", "").kind == "one"
    assert heard == ["one"]


def test_what_is_remembered_is_on_disk_at_once_and_survives(tmp_path: Path, timers: Timers) -> None:
    store = EventStore(tmp_path / "events.db", schedule=timers)
    assert store.remember("stopped.api", {"by": 1000})
    assert store.remember("stopped.web", True)
    assert store.forget("stopped.web")
    assert store.forget("never.known")
    # A second store stands for a successor after SIGKILL: the first one is not closed.
    other = EventStore(tmp_path / "events.db", schedule=timers)
    assert other.recall("stopped.api") == {"by": 1000}
    assert other.recall("stopped.web") is None
    other.close()
    store.close()


def test_only_json_can_be_remembered(store: EventStore) -> None:
    with pytest.raises(TypeError):
        store.remember("key", object())
    assert store.recall("key") is None
    assert store.append("fine", "").kind == "fine"
    assert store.flush()


@pytest.mark.parametrize(
    ("data", "kept"),
    [
        ({"big": "x" * DATA_LIMIT}, {"omitted": f"{DATA_LIMIT + 10} bytes of data"}),
        ({"name": "\udcff"}, {"omitted": "data that JSON cannot hold: UnicodeEncodeError"}),
        ({"path": Path("/srv")}, {"path": "PosixPath('/srv')"}),
        ({"pair": (1, 2)}, {"pair": [1, 2]}),
    ],
)
def test_data_is_bounded_and_plain(store: EventStore, data: dict[str, Any], kept: dict[str, Any]) -> None:
    assert store.append("kind", "message", **data).data == kept
    assert store.flush()


def test_a_message_is_cut_and_survives_undecodable_bytes(store: EventStore) -> None:
    event = store.append("kind", "\udcff" + "x" * 10_000, "api\udc00")
    assert len(event.message) == MESSAGE_LIMIT
    assert event.message.startswith("?x")
    assert store.flush()
    assert store.last(1) == [event]


def test_a_full_disk_degrades_the_store_and_its_return_mends_it(small_disk: Path, timers: Timers) -> None:
    store = EventStore(small_disk / "events.db", schedule=timers, clock=lambda: NOW)
    store.append("before", "", "api")
    assert store.flush()
    filler = fill(small_disk)
    for number in range(40):
        store.append("during", "x" * 4000, "api", number=number)
    timers.fire()
    assert store.storage.startswith("degraded: ")
    assert "disk is full" in store.storage
    assert not store.remember("stopped.api", True)
    assert [event.kind for event in store.read(limit=1000)] == ["before"] + ["during"] * 40
    filler.unlink()
    timers.fire()
    assert store.storage == "ok"
    assert [row[2] for row in rows(small_disk / "events.db")] == ["before"] + ["during"] * 40
    assert store.last(1)[0].kind == "storage"
    store.close()
    again = EventStore(small_disk / "events.db", schedule=timers)
    assert again.recall("stopped.api") is True
    again.close()


def test_retries_on_a_broken_disk_slow_down_and_stay_one_at_a_time(tmp_path: Path, timers: Timers) -> None:
    (tmp_path / "events.db").mkdir()
    store = EventStore(tmp_path / "events.db", schedule=timers)
    assert "not a regular file" in store.storage
    for _ in range(9):
        store.append("tick", "")
        assert len(timers.due) == 1
        timers.fire()
    assert timers.asked == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0, 30.0]
    (tmp_path / "events.db").rmdir()
    timers.fire()
    assert store.storage == "ok"
    assert [row[2] for row in rows(tmp_path / "events.db")] == ["tick"] * 9
    store.close()


def test_what_a_long_failure_pushed_out_of_memory_is_counted(tmp_path: Path, timers: Timers) -> None:
    (tmp_path / "events.db").mkdir()
    store = EventStore(tmp_path / "events.db", schedule=timers)
    cursors = [store.append("tick", "").cursor for _ in range(RING + 25)]
    (tmp_path / "events.db").rmdir()
    timers.fire()
    note = store.last(1)[0]
    assert (note.kind, note.data) == ("storage", {"lost": 25})
    assert store.forgotten == cursors[24]
    assert len(rows(tmp_path / "events.db")) == RING
    store.close()


def test_a_corrupt_database_is_moved_aside_at_the_start_and_cursors_do_not_go_back(
    tmp_path: Path, timers: Timers
) -> None:
    path = tmp_path / "events.db"
    store = EventStore(path, schedule=timers, clock=lambda: NOW)
    before = store.append("before", "").cursor
    store.close()
    path.write_bytes(b"this is no database" * 1000)
    again = EventStore(path, schedule=timers, clock=lambda: NOW + 1)
    assert again.storage == "ok"
    note = again.read()[0]
    assert note.kind == "storage"
    assert "kept as events.db.corrupt-" in note.message
    assert note.cursor > before
    assert before < again.forgotten < note.cursor
    assert [file.read_bytes()[:7] for file in tmp_path.glob("events.db.corrupt-*")] == [b"this is"]
    again.close()


def test_a_database_damaged_while_running_is_replaced_and_nothing_in_memory_is_lost(
    tmp_path: Path, timers: Timers
) -> None:
    path = tmp_path / "events.db"
    store = EventStore(path, schedule=timers, clock=lambda: NOW)
    store.remember("stopped.api", True)
    for number in range(RING + 400):
        store.append("tick", "x" * 200, "api", number=number)
    assert store.flush()
    # Fold the log into the file, and damage every page after the first.
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))
    newest = store.newest
    assert len(store.read(limit=5000)) <= RING
    assert store.storage.startswith("degraded: ")
    timers.fire()
    assert store.storage == "ok"
    assert len(list(tmp_path.glob("events.db.corrupt-*"))) >= 1
    assert [event.data["number"] for event in store.read(limit=5000, kind="tick")] == list(range(401, RING + 400))
    assert store.append("after", "").cursor > newest
    store.close()
    again = EventStore(path, schedule=timers)
    assert again.recall("stopped.api") is True
    assert again.storage == "ok"
    again.close()


def test_another_programs_lock_delays_an_append_by_no_more_than_a_moment(
    tmp_path: Path, store: EventStore, timers: Timers
) -> None:
    with closing(sqlite3.connect(tmp_path / "events.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        store.append("tick", "")
        started = time.monotonic()
        timers.fire()
        assert time.monotonic() - started < 0.5
        assert "locked" in store.storage
        other.execute("ROLLBACK")
    timers.fire()
    assert store.storage == "ok"
    assert rows(tmp_path / "events.db")[0][2] == "tick"


def test_a_closed_store_still_takes_events_and_touches_no_disk(tmp_path: Path, timers: Timers) -> None:
    store = EventStore(tmp_path / "events.db", schedule=timers)
    store.append("before", "")
    store.close()
    store.close()
    store.append("after", "")
    assert timers.asked == [0.2]
    timers.fire()
    assert [row[2] for row in rows(tmp_path / "events.db")] == ["before"]
    assert [event.kind for event in store.last(10)] == ["before", "after"]


def test_an_event_is_json_of_the_documented_keys(store: EventStore) -> None:
    event = store.append("started", "api started", "api", pid=7)
    assert msgspec.json.decode(msgspec.json.encode(event)) == {
        "cursor": int(NOW * 1000),
        "time": NOW,
        "service": "api",
        "kind": "started",
        "message": "api started",
        "data": {"pid": 7},
    }


# -- another program in this process ----------------------------------------------------------------------------------


def another_program(store: EventStore, timers: Timers) -> EventStore:
    """The store as the program that follows has it: everything else went with execve(2)."""
    frozen = msgspec.json.encode(store.freeze())
    store._disconnect()
    timers.due.clear()
    follows = EventStore(store._path, schedule=timers, clock=store._clock)
    follows.thaw(msgspec.json.decode(frozen, type=History))
    return follows


def test_on_a_disk_that_works_all_is_stored_before(store: EventStore, timers: Timers) -> None:
    store.append("one", "first")
    store.remember("key", "value")
    store.remember("other", 1)
    store.forget("other")
    assert store.freeze() == History(memory={"key": "value"}, newest=store.newest)
    follows = another_program(store, timers)
    assert ([event.kind for event in follows.read()], follows.recall("key")) == (["one"], "value")
    assert follows.recall("other") is None
    follows.append("two", "second")
    assert [event.kind for event in follows.read()] == ["one", "two"]
    follows.close()


def test_what_a_full_disk_has_not_taken_is_read_and_stored_by_another_program(small_disk: Path, timers: Timers) -> None:
    store = EventStore(small_disk / "events.db", schedule=timers, clock=lambda: NOW)
    store.append("before", "stored")
    store.remember("kept", "stored")
    store.remember("gone", "stored")
    assert store.flush()
    filler = fill(small_disk)
    store.append("meanwhile", "x" * MESSAGE_LIMIT, "api", number=1)
    for _ in range(20):
        store.append("meanwhile", "x" * MESSAGE_LIMIT)
    store.remember("kept", "changed")
    store.forget("gone")
    store.remember("new", [1, 2.5, None])
    assert store.storage != "ok"
    expected = store.read(limit=1000)
    newest = store.newest
    follows = another_program(another_program(store, timers), timers)
    assert follows.read(limit=1000) == expected
    assert (follows.newest, follows.recall("kept"), follows.recall("gone")) == (newest, "changed", None)
    filler.unlink()
    timers.fire()
    assert follows.storage == "ok"
    follows.append("after", "last")
    follows.close()
    again = EventStore(small_disk / "events.db", schedule=timers, clock=lambda: NOW)
    kinds = [event.kind for event in again.read(limit=1000)]
    assert kinds == ["before", *["meanwhile"] * 21, *(["storage"] if "storage" in kinds else []), "after"]
    assert (again.recall("kept"), again.recall("gone"), again.recall("new")) == ("changed", None, [1, 2.5, None])
    again.close()


def test_a_flood_that_no_disk_takes_is_bounded_and_the_gap_known_to_another_program(
    tmp_path: Path, timers: Timers
) -> None:
    path = tmp_path / "no" / "events.db"
    path.parent.write_text("in the way")
    store = EventStore(path, schedule=timers, clock=lambda: NOW)
    for number in range(RING + 10):
        store.append("flood", str(number))
    follows = another_program(store, timers)
    found = follows.read(limit=2 * RING)
    assert [event.message for event in found] == [str(number) for number in range(10, RING + 10)]
    assert follows.forgotten == found[0].cursor - 1
    assert follows.append("after", "one more").cursor == found[-1].cursor + 1
    path.parent.unlink()
    timers.fire()
    assert follows.storage == "ok"
    assert len(rows(path)) >= RING
    follows.close()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["append", "remember", "forget", "hand over", "break", "mend"]), max_size=30))
def test_nothing_is_lost_or_doubled_whenever_another_program_follows(steps: list[str]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        timers, place = Timers(), Path(directory, "spool")
        place.mkdir()
        store = EventStore(place / "events.db", schedule=timers, clock=lambda: NOW)
        expected: list[str] = []
        memory: dict[str, int] = {}
        for number, step in enumerate(steps):
            match step:
                case "append":
                    store.append("step", str(number))
                    expected.append(str(number))
                case "remember":
                    store.remember(f"key{number % 3}", number)
                    memory[f"key{number % 3}"] = number
                case "forget":
                    store.forget(f"key{number % 3}")
                    memory.pop(f"key{number % 3}", None)
                case "hand over":
                    store = another_program(store, timers)
                case "break" if place.is_dir():
                    store._disconnect()
                    place.rename(place.with_name("aside"))
                    place.write_text("in the way")
                case "mend" if not place.is_dir():
                    place.unlink()
                    place.with_name("aside").rename(place)
        if not place.is_dir():
            place.unlink()
            place.with_name("aside").rename(place)
        store = another_program(store, timers)
        assert [event.message for event in store.read(limit=100) if event.kind == "step"] == expected
        assert {key: store.recall(key) for key in ("key0", "key1", "key2") if store.recall(key) is not None} == memory
        store.close()


def test_data_may_have_any_names(store: EventStore) -> None:
    """A service chooses them."""
    data = {"kind": 1, "message": 2, "service": 3, "self": 4}
    event = store.append("told", "a message", "api", **data)
    assert (event.kind, event.message, event.service, event.data) == ("told", "a message", "api", data)
