"""Streams: events and log lines as newline-delimited JSON, each line with the cursor to resume after it.

A stream pulls. It remembers a cursor, not a queue: when something happens it is woken, reads what is new from the store
or the file, and hands it over when the client has taken the piece before. So a slow reader costs no memory, only lags,
and is told with a ``gap`` line when it has lagged so far that history was trimmed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path

import msgspec

from agent.control.api import Again, Gap
from agent.telemetry import logread
from agent.telemetry.events import EventStore

PAGE = 64
"""Events that are read at a time."""

LINES = 512
"""Lines of a log that are read at a time."""

LOOK = 0.2
"""Seconds between looks at a log file that somebody follows."""


class Follow:
    """What keeps a stream open: pauses until there may be more, and the end when the client or the server goes."""

    def __init__(self) -> None:
        self.ended = False
        self.again = False
        """Whether it ends only for the reader to come again."""
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """There may be more."""
        self._woken.set()

    def end(self, *, again: bool = False) -> None:
        """The stream is to end at its next pause."""
        self.ended, self.again = True, again
        self._woken.set()

    async def pause(self, longest: float | None = None) -> None:
        """Wait to be woken, for at most ``longest`` seconds."""
        try:
            async with asyncio.timeout(longest):
                await self._woken.wait()
        except TimeoutError:
            return
        if not self.ended:
            self._woken.clear()


async def events(
    store: EventStore, after: int | None, limit: int, service: str | None, follow: Follow | None
) -> AsyncGenerator[bytes, None]:
    """Stored events, then (with ``follow``) new ones as they happen.

    Without ``after``, the newest ``limit``; with it, those that came later, at most ``limit`` unless followed.
    """
    unsubscribe = store.subscribe(lambda event: follow.wake()) if follow else None
    try:
        position = store.newest
        if after is None:
            for piece in _pages(store.last(limit, service), PAGE):
                yield piece
        else:
            if after > position:
                yield _lines([Gap(cursor=position, message=f"{after} is no cursor of this agent: going on from now")])
            position = min(after, position)
        left = None if follow else (limit if after is not None else 0)
        while follow is None or not follow.ended:
            if 0 < position < store.forgotten:
                position = store.forgotten
                yield _lines([Gap(cursor=position, message="events before this one are no longer stored")])
            newest = store.newest
            page = store.read(position, PAGE if left is None else min(PAGE, left), service)
            if page:
                position = page[-1].cursor
                yield _lines(page)
                if left is None:
                    continue
                left -= len(page)
            if left is not None and (not left or not page):
                return
            if not page and follow:
                position = max(position, newest)
                await follow.pause()
        if follow.again:
            yield _lines([Again(cursor=position)])
    finally:
        if unsubscribe:
            unsubscribe()


async def log_lines(path: Path, after: str | None, n: int, follow: Follow | None) -> AsyncGenerator[bytes, None]:
    """Finished lines of a log, then (with ``follow``) new ones.

    Without ``after``, the last ``n``; with it, those that came later, at most ``n`` unless followed.
    """
    if after is None:
        position = logread.end(path)
        for piece in _pages(logread.tail(path, n), LINES):
            yield piece
        if follow is None:
            return
    else:
        position = after
    left = None if follow else n
    while follow is None or not follow.ended:
        now = _shape(path)
        page, position, gap = logread.read_after(path, position, LINES if left is None else min(LINES, left))
        if gap:
            yield _lines([Gap(cursor=position, message="lines before this one are no longer stored")])
        if page:
            yield _lines(page)
            if left is None:
                continue
            left -= len(page)
        if left is not None and (not left or not page):
            return
        while follow and not follow.ended and _shape(path) == now:
            await follow.pause(LOOK)
    if follow.again:
        yield _lines([Again(cursor=position)])


def _shape(path: Path) -> tuple[int, int] | None:
    """What changes when a log grows or is rotated."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size


def _pages(items: Sequence[msgspec.Struct], size: int) -> Iterator[bytes]:
    return (_lines(items[at : at + size]) for at in range(0, len(items), size))


def _lines(items: Sequence[msgspec.Struct]) -> bytes:
    return b"".join(msgspec.json.encode(item) + b"\n" for item in items)
