"""A heartbeat is looked at when something may follow from it, and then at once."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import msgspec
import pytest

from agent.declaration.model import Heartbeat
from agent.supervisor.liveness import Liveness
from agent.supervisor.pulse import Beat, Pulse
from tests.supervisor.conftest import until


class Watched:
    """A file, its liveness and what that told."""

    def __init__(self, loop: asyncio.AbstractEventLoop, file: Path, timeout: float) -> None:
        self.file = file
        self.first: list[float] = []
        self.stale: list[float] = []
        self._loop = loop
        file.touch()
        pulse = Pulse(file, Heartbeat(interval=timeout / 2, timeout=timeout), loop.time())
        self.liveness = Liveness(
            loop, pulse, on_first=lambda: self.first.append(time.monotonic()), on_stale=self.stale.append
        )

    def touch(self) -> None:
        os.utime(self.file)


@pytest.fixture
def watched(loop: asyncio.AbstractEventLoop, tmp_path: Path) -> Watched:
    return Watched(loop, tmp_path / "x.heartbeat", timeout=0.3)


def test_a_first_touch_is_noticed_soon_and_once(watched: Watched, loop: asyncio.AbstractEventLoop) -> None:
    watched.liveness.expect()
    loop.run_until_complete(asyncio.sleep(0.15))
    assert not watched.first
    watched.touch()
    until(loop, lambda: watched.first, seconds=0.5)
    watched.touch()
    loop.run_until_complete(asyncio.sleep(0.25))
    assert len(watched.first) == 1
    assert not watched.stale


def test_silence_is_told_once_when_it_has_lasted_for_the_timeout(
    watched: Watched, loop: asyncio.AbstractEventLoop
) -> None:
    watched.liveness.watch()
    for _ in range(5):
        loop.run_until_complete(asyncio.sleep(0.1))
        watched.touch()
    assert not watched.stale
    begun = time.monotonic()
    until(loop, lambda: watched.stale)
    assert 0.25 < time.monotonic() - begun < 0.45
    loop.run_until_complete(asyncio.sleep(0.4))
    assert len(watched.stale) == 1


def test_what_was_silent_before_it_was_ready_is_not_stale_at_once(
    watched: Watched, loop: asyncio.AbstractEventLoop
) -> None:
    loop.run_until_complete(asyncio.sleep(0.5))
    watched.liveness.watch()
    loop.run_until_complete(asyncio.sleep(0.1))
    assert not watched.stale
    assert watched.liveness.age() < 0.3


def test_a_message_counts_as_a_touch(watched: Watched, loop: asyncio.AbstractEventLoop) -> None:
    watched.liveness.watch()
    for _ in range(5):
        loop.run_until_complete(asyncio.sleep(0.1))
        watched.liveness.beat()
    assert not watched.stale
    assert watched.liveness.age() < 0.1


def test_nobody_is_told_anything_after_a_close(watched: Watched, loop: asyncio.AbstractEventLoop) -> None:
    watched.liveness.watch()
    watched.liveness.close()
    loop.run_until_complete(asyncio.sleep(0.5))
    assert not watched.stale


# -- another program in this process ----------------------------------------------------------------------------------


def another_program(
    watched: Watched, loop: asyncio.AbstractEventLoop, *, ready: bool, expected: bool = False
) -> Watched:
    """Who goes on watching the file, as ``Unit.thaw`` has it."""
    frozen = msgspec.json.decode(msgspec.json.encode(watched.liveness.freeze()), type=Beat)
    watched.liveness.close()
    modified = watched.file.stat().st_mtime_ns
    follows = Watched(loop, watched.file, timeout=0.3)
    os.utime(watched.file, ns=(modified, modified))  # it has only been looked at
    follows.liveness.resume(frozen, ready=ready, expected=expected)
    return follows


def test_another_program_finds_the_silence_when_the_first_one_would_have(
    watched: Watched, loop: asyncio.AbstractEventLoop
) -> None:
    watched.liveness.watch()
    begun = loop.time()
    loop.run_until_complete(asyncio.sleep(0.2))
    follows = another_program(watched, loop, ready=True)
    until(loop, lambda: follows.stale)
    assert 0.3 <= loop.time() - begun < 0.45
    assert follows.stale == [pytest.approx(0.31, abs=0.1)]
    loop.run_until_complete(asyncio.sleep(0.35))
    assert (len(follows.stale), watched.stale) == (1, [])


def test_another_program_waits_for_the_first_beat_and_has_it_though_it_came_in_between(
    watched: Watched, loop: asyncio.AbstractEventLoop
) -> None:
    watched.liveness.expect()
    watched.touch()
    follows = another_program(watched, loop, ready=False, expected=True)
    assert len(follows.first) == 1
    loop.run_until_complete(asyncio.sleep(0.35))
    assert (len(follows.first), follows.stale, watched.first) == (1, [], [])


def test_nobody_is_looked_at_who_is_neither_ready_nor_expected_to_beat(
    watched: Watched, loop: asyncio.AbstractEventLoop
) -> None:
    follows = another_program(watched, loop, ready=False)
    loop.run_until_complete(asyncio.sleep(0.35))
    assert (follows.first, follows.stale) == ([], [])
    follows.liveness.watch()
    until(loop, lambda: follows.stale)
