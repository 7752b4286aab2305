"""What waits on disk."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from agent.telemetry.database import open_database
from agent.telemetry.events import Event
from agent.workers.watch import notify_queue
from agent.workers.watch.notify_queue import FIRST_RETRY, LAST_RETRY, Failing, Queue, delay_after

NOW = 1_000_000.0


def event(number: int) -> Event:
    return Event(number, NOW + number, "lan", "host_gone", f"event {number}", {"number": number})


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return Queue(tmp_path / "notify.db", lambda: NOW)


def put(queue: Queue, name: str, identity: str, upto: int = 0) -> int:
    return queue.put(name, {"id": identity}, upto, NOW)


def test_events_are_held_with_how_far_was_read(queue: Queue, tmp_path: Path) -> None:
    assert queue.cursor is None
    queue.begin(5, ["ops"])
    queue.take(9, {"ops": [event(7), event(9)]}, NOW + 8)
    queue.close()
    again = Queue(tmp_path / "notify.db", lambda: NOW)
    assert again.cursor == 9
    assert again.held("ops") == [event(7), event(9)]
    assert again.arrivals("ops") == [NOW + 7, NOW + 8]


def test_a_message_takes_the_place_of_its_events(queue: Queue) -> None:
    queue.take(9, {"ops": [event(7), event(9)], "mail": [event(7)]}, NOW)
    put(queue, "ops", "one", 7)
    assert [held.cursor for held in queue.held("ops")] == [9]
    assert len(queue.held("mail")) == 1
    waiting = queue.next("ops")
    assert waiting is not None
    assert (waiting.id, waiting.attempts, waiting.body) == ("one", 0, b'{"id":"one"}')
    assert queue.waiting() == 1


def test_messages_are_delivered_in_order_and_tried_again_later(queue: Queue) -> None:
    put(queue, "ops", "one")
    put(queue, "ops", "two")
    first = queue.next("ops")
    assert first is not None
    queue.retry("ops", first, NOW + 5, "HTTP 400", refused=True)
    again = queue.next("ops")
    assert again is not None
    assert (again.id, again.due, again.attempts, again.refusals) == ("one", NOW + 5, 1, 1)
    second = queue.next("ops", after=again.number)
    queue.delivered("ops", again.number)
    assert second is not None
    assert second.id == "two"
    assert queue.next("ops") == second


def test_who_cannot_be_told_is_known_until_it_works(queue: Queue, tmp_path: Path) -> None:
    put(queue, "ops", "one")
    put(queue, "ops", "two")
    first = queue.next("ops")
    assert first is not None
    queue.retry("ops", first, NOW + 5, "HTTP 500", refused=False)
    queue.retry("ops", first, NOW + 9, "HTTP 503", refused=False)
    assert queue.failing() == {"ops": Failing("HTTP 503")}
    queue.give_up("ops", first, "HTTP 400")
    queue.close()
    again = Queue(tmp_path / "notify.db", lambda: NOW)
    assert again.failing() == {"ops": Failing("HTTP 400", dropped=1)}
    second = again.next("ops")
    assert second is not None
    assert second.id == "two"
    again.delivered("ops", second.number)
    assert again.failing() == {}
    assert again.waiting() == 0


def test_what_an_earlier_agent_has_queued_is_kept(tmp_path: Path) -> None:
    def first_version(connection: sqlite3.Connection, _found: int) -> None:
        for statement in notify_queue._VERSIONS[0]:
            connection.execute(statement)

    before = open_database(tmp_path / "notify.db", 1, first_version).connection
    before.execute("INSERT INTO message VALUES (7, 'ops', 'one', 1, 1, 3, 0, x'7b7d')")
    before.close()
    queue = Queue(tmp_path / "notify.db", lambda: NOW)
    waiting = queue.next("ops")
    assert waiting is not None
    assert (waiting.id, queue.failing()) == ("one", {})


def test_no_number_is_given_twice(queue: Queue) -> None:
    numbers = []
    for name in ("one", "two", "three"):
        put(queue, "ops", name)
        waiting = queue.next("ops")
        assert waiting is not None
        numbers.append(waiting.number)
        queue.delivered("ops", waiting.number)
    assert len(set(numbers)) == 3


def test_it_is_tried_ever_less_often() -> None:
    delays = [delay_after(number) for number in range(100)]
    assert delays[:3] == [FIRST_RETRY, 2 * FIRST_RETRY, 4 * FIRST_RETRY]
    assert delays == sorted(delays)
    assert delays[-1] == LAST_RETRY


def test_the_queue_is_bounded(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify_queue, "MOST_HELD", 3)
    monkeypatch.setattr(notify_queue, "MOST_MESSAGES", 2)
    queue.take(9, {"ops": [event(number) for number in range(5)]}, NOW)
    queue.take(11, {"ops": [event(10), event(11)]}, NOW)
    assert [held.cursor for held in queue.held("ops")] == [0, 1, 2]
    assert queue.missed("ops") == 4
    assert [put(queue, "ops", name, 99) for name in ("one", "two", "three")] == [0, 0, 1]
    assert queue.missed("ops") == 0


def test_the_oldest_make_room_but_for_the_one_being_tried(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify_queue, "MOST_MESSAGES", 3)
    put(queue, "mail", "other")
    put(queue, "ops", "one")
    tried = queue.next("ops")
    assert tried is not None
    queue.retry("ops", tried, NOW, "HTTP 500", refused=False)
    assert [queue.room("ops"), put(queue, "ops", "two"), put(queue, "ops", "three")] == [2, 0, 0]
    assert [queue.room("ops"), put(queue, "ops", "four"), put(queue, "ops", "five")] == [0, 1, 1]
    left, after = [], 0
    while waiting := queue.next("ops", after):
        left.append(waiting.id)
        after = waiting.number
    assert left == ["one", "four", "five"]
    assert queue.failing() == {"ops": Failing("HTTP 500", dropped=2)}
    assert queue.waiting() == 4


def test_what_is_not_declared_any_more_is_forgotten(queue: Queue) -> None:
    queue.take(9, {"ops": [event(7)], "mail": [event(7)]}, NOW)
    put(queue, "ops", "one")
    gone = queue.next("ops")
    assert gone is not None
    queue.retry("ops", gone, NOW, "HTTP 500", refused=False)
    queue.begin(9, ["mail"])
    assert queue.waiting() == 0
    assert queue.failing() == {}
    assert queue.held("ops") == []
    assert len(queue.held("mail")) == 1
    queue.begin(9, [])
    assert queue.held("mail") == []
