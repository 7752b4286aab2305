from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

from agent.linux import signals


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


def test_a_signal_wakes_a_loop_that_waits(loop: asyncio.AbstractEventLoop) -> None:
    arrived = asyncio.Event()
    signals.watch(loop, signal.SIGUSR1, arrived.set)
    os.posix_spawn("/bin/sh", ["sh", "-c", f"sleep 0.1; kill -USR1 {os.getpid()}"], {})
    loop.run_until_complete(asyncio.wait_for(arrived.wait(), 10))
    os.wait()


def test_none_is_lost_behind_a_thousand_others(
    loop: asyncio.AbstractEventLoop, capfd: pytest.CaptureFixture[str]
) -> None:
    children, stops = [], []
    signals.watch(loop, signal.SIGUSR2, lambda: children.append(True))
    signals.watch(loop, signal.SIGUSR1, lambda: stops.append(True))
    for _ in range(1000):
        os.kill(os.getpid(), signal.SIGUSR2)
    os.kill(os.getpid(), signal.SIGUSR1)
    loop.run_until_complete(asyncio.sleep(0.01))
    assert (len(children), len(stops)) == (1, 1)
    os.kill(os.getpid(), signal.SIGUSR2)
    loop.run_until_complete(asyncio.sleep(0.01))
    assert len(children) == 2
    assert capfd.readouterr().err == ""


def test_afterwards_the_signal_has_its_default_action_again(loop: asyncio.AbstractEventLoop) -> None:
    signals.watch(loop, signal.SIGUSR1, lambda: None)
    signals.ignore(loop, signal.SIGUSR1)
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
