"""The agent's events, read beside an agent that writes them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.telemetry.events import EventStore
from agent.workers.watch.notify_source import MOST, EventSource


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agent" / "events.db"


@pytest.fixture
def store(path: Path) -> Iterator[EventStore]:
    store = EventStore(path, schedule=lambda _seconds, _callback: None)
    yield store
    store.close()


@pytest.fixture
def source(path: Path) -> Iterator[EventSource]:
    source = EventSource(path)
    yield source
    source.close()


def test_events_are_read_as_they_were_told(store: EventStore, source: EventSource) -> None:
    told = [store.append("failed", "it broke", "api", code=2), store.append("bug", "ours")]
    store.flush()
    assert source.after(0) == told
    assert source.after(told[0].cursor) == told[1:]
    assert source.problem == ""


def test_many_are_read_in_pieces(store: EventStore, source: EventSource) -> None:
    told = [store.append("started", "x", "api").cursor for _ in range(MOST + 7)]
    store.flush()
    first = source.after(0)
    assert [event.cursor for event in first] == told[:MOST]
    assert [event.cursor for event in source.after(first[-1].cursor)] == told[MOST:]


def test_a_database_that_is_not_there_yet_is_looked_for_again(source: EventSource, path: Path) -> None:
    assert source.after(0) == []
    assert source.problem == f"{path}: No such file or directory"
    store = EventStore(path, schedule=lambda _seconds, _callback: None)
    store.append("bug", "x")
    store.flush()
    assert [event.kind for event in source.after(0)] == ["bug"]
    assert source.problem == ""
    store.close()


def test_a_database_that_was_moved_aside_is_let_go_of(store: EventStore, source: EventSource, path: Path) -> None:
    store.append("bug", "old")
    store.flush()
    assert len(source.after(0)) == 1
    store.close()
    for file in path.parent.iterdir():
        file.rename(file.with_name(file.name + ".aside"))
    again = EventStore(path, schedule=lambda _seconds, _callback: None)
    again.append("bug", "new")
    again.flush()
    assert [event.message for event in source.after(0)] == ["new"]
    again.close()


def test_what_was_forgotten_is_known(path: Path, source: EventSource) -> None:
    store = EventStore(path, limit=10, schedule=lambda _seconds, _callback: None)
    for _ in range(30):
        store.append("started", "x", "api")
    store.flush()
    assert source.forgotten() == store.forgotten > 0
    store.close()


def test_what_is_no_database_is_told_and_not_touched(path: Path, source: EventSource) -> None:
    path.parent.mkdir()
    path.write_bytes(b"nonsense" * 1000)
    assert source.after(0) == []
    assert source.problem == f"{path}: file is not a database"
    assert path.read_bytes() == b"nonsense" * 1000
    assert [file.name for file in path.parent.iterdir()] == ["events.db"]
