"""While a start or a reload goes on systemd is asked for more time, and its outcome is nobody else's business."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent.control import patience
from agent.control.patience import patiently
from agent.linux.notify import SystemdNotifier
from tests.harness import notify_socket


def asked(tmp_path: Path, duration: float) -> list[bytes]:
    """What systemd hears from a start that takes so many seconds."""
    heard = []
    with notify_socket(tmp_path) as (listener, name):
        notifier = SystemdNotifier({"NOTIFY_SOCKET": name})
        asyncio.run(patiently(notifier, asyncio.sleep(duration)))
        notifier.close()
        while True:
            try:
                heard.append(listener.recv(4096))
            except BlockingIOError:
                return heard


def test_asks_at_once_and_again_for_as_long_as_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(tmp_path, 0.0) == [b"EXTEND_TIMEOUT_USEC=15000000"]
    monkeypatch.setattr(patience, "STEP", 0.05)
    heard = asked(tmp_path, 0.32)
    assert set(heard) == {b"EXTEND_TIMEOUT_USEC=150000"}
    assert 3 <= len(heard) <= 7


def test_gives_what_the_work_gives(tmp_path: Path) -> None:
    async def works() -> str:
        return "done"

    async def fails() -> None:
        raise ValueError("not to be had")

    notifier = SystemdNotifier({})
    assert asyncio.run(patiently(notifier, works())) == "done"
    with pytest.raises(ValueError, match="not to be had"):
        asyncio.run(patiently(notifier, fails()))


def test_who_is_cancelled_cancels_the_work() -> None:
    ended = []

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async def scenario() -> None:
        task = asyncio.create_task(patiently(SystemdNotifier({}), endless()))
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait({task})
        await asyncio.sleep(0)
        assert ended
        assert task.cancelled()

    asyncio.run(scenario())
