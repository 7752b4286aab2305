"""The watch itself: duties beside one another, and one process of it under the contract of workers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from agent.declaration.model import Capture, Heartbeat, Notify, Watch
from agent.errors import ConfigurationError, StorageFailure
from agent.linux.notify import SystemdNotifier
from agent.workers.runtime import Context, live
from agent.workers.watch import worker
from agent.workers.watch.duty import Turn
from agent.workers.watch.worker import WatchWorker


class Duty:
    """One that turns ``turns`` times and then does ``then``: nothing more, or fail."""

    def __init__(self, name: str, failure: Exception | None = None, *, turning: bool = True) -> None:
        self.name = name
        self.did: list[str] = []
        self.failure = failure
        self.turning = turning

    async def start(self) -> None:
        self.did.append("start")

    async def run(self, turn: Turn) -> None:
        self.did.append("run")
        while True:
            if self.turning:
                turn()
            await asyncio.sleep(0.001)
            if self.failure is not None:
                raise self.failure

    async def stop(self) -> None:
        self.did.append("stop")

    def status(self) -> str:
        return self.name

    def figures(self) -> Mapping[str, int]:
        return {self.name: 1}


def context(tmp_path: Path) -> Context:
    service = Watch(
        name="watch", heartbeat=Heartbeat(interval=0.02, timeout=9.0), notifies=(Notify("x", email="root"),)
    )
    return Context(service, tmp_path, SystemdNotifier({}), heartbeat_file=tmp_path / "heartbeat")


def run(of: Context, *duties: Duty, seconds: float = 0.3) -> None:
    async def work() -> None:
        asyncio.get_running_loop().call_later(seconds, of.stopping.set)
        await live(WatchWorker(of, lambda _context, _service: list(duties)), of)

    asyncio.run(work())


def test_all_duties_are_started_run_and_stopped(tmp_path: Path) -> None:
    one, other = Duty("one"), Duty("other")
    run(context(tmp_path), one, other)
    assert one.did == other.did == ["start", "run", "stop"]


def test_the_failure_of_one_ends_the_watch_with_that_failure(tmp_path: Path) -> None:
    one, other = Duty("one"), Duty("other", StorageFailure("no disk"))
    with pytest.raises(StorageFailure, match=r"^no disk$"):
        run(context(tmp_path), one, other, seconds=30)
    assert one.did == other.did == ["start", "run", "stop"]


def test_a_duty_that_hangs_silences_the_watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "ALLOWANCE", 0.1)
    of = context(tmp_path)
    beats: list[float] = []
    monkeypatch.setattr(of, "beat", lambda: beats.append(asyncio.get_running_loop().time()))
    began: list[float] = []

    async def work() -> None:
        began.append(asyncio.get_running_loop().time())
        asyncio.get_running_loop().call_later(0.6, of.stopping.set)
        await live(WatchWorker(of, lambda _context, _service: [Duty("one"), Duty("stuck", turning=False)]), of)

    asyncio.run(work())
    assert beats
    assert max(beats) - began[0] < 0.5


def test_other_settings_are_refused(tmp_path: Path) -> None:
    of = context(tmp_path)
    of.service = Capture(name="x", interfaces=("lo",))
    with pytest.raises(ConfigurationError, match=r"^watch: not the settings of a watch$"):
        WatchWorker(of)
