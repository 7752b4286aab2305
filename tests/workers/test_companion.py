"""A companion is kept running, listened to, and ended."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.linux.process import boot_id
from agent.workers import companion
from agent.workers.companion import Companion

PATIENCE = 20.0


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment in which a companion of kind ``index`` can live; returns its data."""
    config = tmp_path / "service.json"
    config.write_text('{"kind": "capture", "name": "edge", "interfaces": ["eth0"]}')
    monkeypatch.setenv("SERVICE_CONFIG", str(config))
    monkeypatch.setenv("SERVICE_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


async def until(condition: Callable[[], bool], kept: Companion) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        kept.tend()
        await asyncio.sleep(0.02)


def test_it_tells_its_figures_and_ends_when_asked(service: Path) -> None:
    async def life() -> None:
        events: list[str] = []
        kept = Companion("index", lambda kind, message: events.append(kind))
        kept.start()
        await until(lambda: kept.figures.get("index_waiting") == 0, kept)
        await kept.stop()
        assert not kept.running
        assert events == []

    asyncio.run(life())


def test_one_that_ends_is_started_again(service: Path) -> None:
    async def life() -> None:
        events: list[str] = []
        kept = Companion("index", lambda kind, message: events.append(message))
        kept.start()
        await until(lambda: bool(kept.figures), kept)
        kept.signal(signal.SIGKILL)
        await until(lambda: not kept.running, kept)
        assert events == ["index: ended with killed by SIGKILL; started again in 0.25 s"]
        kept.figures = {}
        await until(lambda: bool(kept.figures), kept)
        await kept.stop()

    asyncio.run(life())


def test_one_that_hangs_is_ended_and_started_again(service: Path) -> None:
    async def life() -> None:
        events: list[str] = []
        kept = Companion("index", lambda kind, message: events.append(kind), silence=1.0)
        kept.start()
        await until(lambda: bool(kept.figures), kept)
        kept.signal(signal.SIGSTOP)
        await until(lambda: events == ["companion_hung", "companion_ended"], kept)
        await kept.stop()

    asyncio.run(life())


def test_one_that_will_not_end_is_killed(service: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(companion, "STOPPING", 0.2)

    async def life() -> None:
        kept = Companion("index", lambda kind, message: None)
        kept.start()
        await until(lambda: bool(kept.figures), kept)
        kept.signal(signal.SIGSTOP)
        await kept.stop()
        assert not kept.running

    asyncio.run(life())


def test_one_that_cannot_be_started_is_told_and_tried_again(service: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(companion, "own_program", lambda: ["/nowhere/to/be/found"])

    async def life() -> None:
        events: list[str] = []
        kept = Companion("index", lambda kind, message: events.append(message))
        kept.start()
        assert not kept.running
        assert events == ["cannot start /nowhere/to/be/found: no such program; started again in 0.25 s"]
        await until(lambda: len(events) == 2, kept)
        await kept.stop()

    asyncio.run(life())


@pytest.mark.parametrize("left", range(8))
def test_one_for_which_few_descriptors_are_left_is_told_and_tried_again(service: Path, left: int) -> None:
    boot_id.cache_clear()

    async def life() -> None:
        events: list[str] = []
        kept = Companion("index", lambda kind, message: events.append(message))
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        descriptors = len(list(Path("/proc/self/fd").iterdir()))
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + left, before[1]))
        try:
            kept.start()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        assert kept.running is (events == [])
        assert all("Too many open files" in event or "no file descriptor is left" in event for event in events)
        assert events or left
        if left == 0:
            await until(lambda: bool(kept.figures), kept)
        await kept.stop()
        assert len(list(Path("/proc/self/fd").iterdir())) == descriptors

    asyncio.run(life())


def test_a_signal_waits_until_it_can_be_caught(service: Path) -> None:
    async def life() -> None:
        events: list[str] = []
        kept = Companion("member", lambda kind, message: events.append(message))
        kept.start()
        for _ in range(5):
            kept.signal(signal.SIGUSR1)
        assert kept.running
        await until(lambda: not kept.running, kept)  # it was given no group, and says so
        (message,) = events  # it was given no group, and fails for that
        assert message == "member: ended with exited 2; started again in 0.25 s"

    asyncio.run(life())


def test_no_descriptor_is_left_behind(service: Path) -> None:
    async def life() -> None:
        before = list(Path("/proc/self/fd").iterdir())
        kept = Companion("index", lambda kind, message: None)
        kept.start()
        await until(lambda: bool(kept.figures), kept)
        await kept.stop()
        assert len(list(Path("/proc/self/fd").iterdir())) == len(before)

    asyncio.run(life())
