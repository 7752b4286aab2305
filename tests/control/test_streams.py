from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.control.streams import PAGE, Follow, events, log_lines
from agent.telemetry.events import EventStore
from agent.telemetry.logs import LogFile

Lines = AsyncGenerator[bytes, None]


class Tick:
    """A clock that never stands still, so that each log file is born at another time."""

    now = 1_763_640_000.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EventStore]:
    store = EventStore(tmp_path / "events.db", limit=200, schedule=lambda *_: None, clock=lambda: 0.0)
    yield store
    store.close()


def fill(store: EventStore, count: int) -> list[int]:
    return [store.append("tick", str(n), "ab"[n % 2]).cursor for n in range(count)]


async def take(stream: Lines, count: int | None = None) -> list[dict[str, Any]]:
    """All lines, or the first ``count`` of a stream that does not end."""
    found: list[dict[str, Any]] = []
    while count is None or len(found) < count:
        piece = await asyncio.wait_for(anext(stream, None), 5)
        if piece is None:
            break
        found += [msgspec.json.decode(line) for line in piece.splitlines()]
    return found


def cursors(lines: list[dict[str, Any]]) -> list[Any]:
    return [line["cursor"] for line in lines]


# -- events -----------------------------------------------------------------------------------------------------------


def test_without_a_cursor_the_newest_come(store: EventStore) -> None:
    all_of_them = fill(store, 10)
    assert cursors(asyncio.run(take(events(store, None, 3, None, None)))) == all_of_them[-3:]
    assert asyncio.run(take(events(store, None, 0, None, None))) == []


def test_with_a_cursor_the_next_come_and_can_be_resumed_to_the_end(store: EventStore) -> None:
    all_of_them = fill(store, 2 * PAGE + 11)

    async def walk() -> list[int]:
        found: list[int] = []
        while page := await take(events(store, found[-1] if found else 0, PAGE + 1, None, None)):
            assert len(page) <= PAGE + 1
            found += cursors(page)
        return found

    assert asyncio.run(walk()) == all_of_them


def test_only_the_events_of_a_service_come_when_one_is_named(store: EventStore) -> None:
    all_of_them = fill(store, 3 * PAGE)
    assert cursors(asyncio.run(take(events(store, 0, 1000, "b", None)))) == all_of_them[1::2]


def test_a_followed_stream_replays_and_goes_on_without_losing_or_repeating_any(store: EventStore) -> None:
    before = fill(store, PAGE + 5)

    async def scenario() -> list[Any]:
        follow = Follow()
        stream = events(store, before[2], 0, None, follow)
        found = await take(stream, PAGE)
        during = fill(store, 3)
        found += await take(stream, len(before) + len(during) - 3 - len(found))
        waiting = asyncio.create_task(take(stream, 1))
        await asyncio.sleep(0)
        after = fill(store, 1)
        found += await waiting
        follow.end()
        assert await take(stream) == []
        assert cursors(found) == before[3:] + during + after
        return found

    asyncio.run(scenario())


def test_a_followed_stream_of_one_service_waits_through_the_events_of_others(store: EventStore) -> None:
    async def scenario() -> None:
        follow = Follow()
        stream = events(store, None, 10, "b", follow)
        waiting = asyncio.create_task(take(stream, 1))
        for _ in range(5):
            await asyncio.sleep(0)
            store.append("tick", "", "a")
        wanted = store.append("tick", "", "b")
        assert cursors(await waiting) == [wanted.cursor]
        await stream.aclose()

    asyncio.run(scenario())


def test_a_cursor_older_than_the_history_is_told_of_the_gap(store: EventStore) -> None:
    old = fill(store, 100)
    for _ in range(5):
        fill(store, 100)
        store.flush()
    lines = asyncio.run(take(events(store, old[50], 1000, None, None)))
    assert lines[0] == {
        "gap": True,
        "cursor": store.forgotten,
        "message": "events before this one are no longer stored",
    }
    assert cursors(lines[1:]) == list(range(store.forgotten + 1, store.newest + 1))


def test_a_reader_that_lags_behind_the_trimming_is_told_of_the_gap_and_goes_on(store: EventStore) -> None:
    async def scenario() -> None:
        fill(store, 10)
        stream = events(store, 0, 0, None, Follow())
        first = await take(stream, 10)
        for _ in range(6):
            fill(store, 100)
            store.flush()
        rest = await take(stream, 201)
        assert rest[0]["gap"] is True
        assert rest[0]["cursor"] > first[-1]["cursor"]
        assert cursors(rest[1:]) == list(range(store.forgotten + 1, store.newest + 1))
        await stream.aclose()

    asyncio.run(scenario())


def test_reading_up_to_date_is_no_gap_even_when_all_that_was_read_is_trimmed(store: EventStore) -> None:
    async def scenario() -> None:
        stream = events(store, None, 0, "rare", Follow())
        waiting = asyncio.create_task(take(stream, 1))
        for _ in range(8):
            fill(store, 60)
            store.flush()
            await asyncio.sleep(0.001)
        store.append("tick", "", "rare")
        [line] = await waiting
        assert line["kind"] == "tick"
        await stream.aclose()

    asyncio.run(scenario())


def test_a_cursor_from_the_future_is_told_and_reading_starts_from_now(store: EventStore) -> None:
    fill(store, 3)

    async def scenario() -> None:
        stream = events(store, 10_000, 10, None, Follow())
        [gap] = await take(stream, 1)
        assert (gap["gap"], gap["cursor"]) == (True, store.newest)
        waiting = asyncio.create_task(take(stream, 1))
        await asyncio.sleep(0)
        new = fill(store, 1)
        assert cursors(await waiting) == new
        await stream.aclose()

    asyncio.run(scenario())


def test_a_stream_that_ended_is_no_longer_woken(store: EventStore) -> None:
    async def scenario() -> None:
        follow = Follow()
        stream = events(store, None, 0, None, follow)
        waiting = asyncio.create_task(take(stream))
        await asyncio.sleep(0)
        follow.end()
        await waiting
        await stream.aclose()
        assert store._subscribers == []

    asyncio.run(scenario())


# -- log lines --------------------------------------------------------------------------------------------------------


def test_the_last_lines_of_a_log_come_and_the_stream_ends(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "api.log", 1 << 20, 1)
    log.write(b"".join(b"line %d\n" % n for n in range(2000)))
    lines = asyncio.run(take(log_lines(log.path, None, 1500, None)))
    assert [line["line"] for line in lines] == [f"line {n}" for n in range(500, 2000)]


def test_a_followed_log_goes_on_through_rotations_and_starts_when_the_file_does(tmp_path: Path) -> None:
    path = tmp_path / "api.log"

    async def scenario() -> None:
        stream = log_lines(path, None, 10, Follow())
        waiting = asyncio.create_task(take(stream, 300))
        await asyncio.sleep(0)
        log = LogFile(path, 4096, 20, Tick())
        for number in range(300):
            log.write(b"line %03d %s\n" % (number, b"x" * 100))
            if number % 50 == 0:
                await asyncio.sleep(0.01)
        lines = await waiting
        assert [line["line"][:8] for line in lines] == [f"line {number:03}" for number in range(300)]
        assert (await take(log_lines(path, lines[149]["cursor"], 1, None)))[0]["line"][:8] == "line 150"
        await stream.aclose()

    asyncio.run(scenario())


def test_a_log_cursor_whose_file_is_gone_is_told_of_the_gap(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "api.log", 4096, 1, Tick())
    log.write(b"first\n")

    async def scenario() -> None:
        [first] = await take(log_lines(log.path, None, 1, None))
        for number in range(300):
            log.write(b"line %03d %s\n" % (number, b"x" * 100))
        lines = await take(log_lines(log.path, first["cursor"], 1000, None))
        assert lines[0]["gap"] is True
        assert lines[-1]["line"].startswith("line 299")

    asyncio.run(scenario())


def test_following_ends_when_told_to_even_while_nothing_is_written(tmp_path: Path) -> None:
    async def scenario() -> None:
        follow = Follow()
        waiting = asyncio.create_task(take(log_lines(tmp_path / "api.log", None, 10, follow)))
        await asyncio.sleep(0.01)
        follow.end()
        assert await waiting == []

    asyncio.run(scenario())


# -- another program that goes on with them ---------------------------------------------------------------------------


def test_a_followed_stream_of_events_ends_with_where_another_program_goes_on(store: EventStore) -> None:
    fill(store, 3)

    async def scenario() -> None:
        follow = Follow()
        waiting = asyncio.create_task(take(events(store, None, 2, "a", follow)))
        await asyncio.sleep(0.01)
        last = store.append("tick", "of another", "b").cursor
        await asyncio.sleep(0.01)
        follow.end(again=True)
        *lines, again = await waiting
        assert [line["message"] for line in lines] == ["0", "2"]
        assert again == {"again": True, "cursor": last, "message": again["message"]}
        # Whoever serves it next has this happen in between.
        store.append("tick", "in between", "a")
        follow = Follow()
        stream = events(store, again["cursor"], 2, "a", follow)
        assert [line["message"] for line in await take(stream, 1)] == ["in between"]
        await stream.aclose()

    asyncio.run(scenario())


@pytest.mark.parametrize("after", [None, 0])
def test_a_stream_that_is_ended_in_the_middle_of_a_long_history_goes_on_there(
    store: EventStore, after: int | None
) -> None:
    everything = fill(store, 3 * PAGE)

    async def scenario() -> None:
        follow, found = Follow(), []
        stream = events(store, after, 2 * PAGE, None, follow)
        found += await take(stream, PAGE)
        follow.end(again=True)
        *lines, again = await take(stream)
        found += lines
        assert again["again"] is True
        found += await take(events(store, again["cursor"], 1000, None, None))
        assert cursors(found) == (everything if after == 0 else everything[-2 * PAGE :])

    asyncio.run(scenario())


def test_a_followed_log_ends_with_where_another_program_goes_on_also_before_there_is_one(tmp_path: Path) -> None:
    path = tmp_path / "api.log"

    async def follow_for_a_moment(after: str | None) -> tuple[list[str], str]:
        follow = Follow()
        waiting = asyncio.create_task(take(log_lines(path, after, 10, follow)))
        await asyncio.sleep(0.01)
        follow.end(again=True)
        *lines, again = await waiting
        assert again["again"] is True
        return [line["line"] for line in lines], again["cursor"]

    async def scenario() -> None:
        lines, cursor = await follow_for_a_moment(None)
        assert lines == []
        log = LogFile(path, 1 << 20, 1)
        log.write(b"one\ntwo\nhal")
        lines, cursor = await follow_for_a_moment(cursor)
        assert lines == ["one", "two"]
        log.write(b"f a line\n")
        lines, cursor = await follow_for_a_moment(cursor)
        assert lines == ["half a line"]
        assert await follow_for_a_moment(cursor) == ([], cursor)
        log.close()

    asyncio.run(scenario())


def test_a_stream_that_only_ends_says_nothing_of_that(store: EventStore, tmp_path: Path) -> None:
    async def scenario() -> None:
        follow = Follow()
        streams = events(store, None, 1, None, follow), log_lines(tmp_path / "api.log", None, 1, follow)
        waiting = [asyncio.create_task(take(stream)) for stream in streams]
        await asyncio.sleep(0.01)
        follow.end()
        assert [await each for each in waiting] == [[], []]

    asyncio.run(scenario())
