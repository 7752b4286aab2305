"""A wall clock that is set by an hour, forwards and backwards, under an agent that supervises."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import Agent, wait_until


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    made = Agent(tmp_path / "srv")
    yield made
    made.clean()


@pytest.fixture
def step_clock() -> Iterator[object]:
    """Sets the wall clock by a number of seconds, and sets it right afterwards."""
    offset = time.time() - time.monotonic()

    def step(seconds: float) -> None:
        time.clock_settime(time.CLOCK_REALTIME, time.time() + seconds)

    yield step
    time.clock_settime(time.CLOCK_REALTIME, offset + time.monotonic())


@pytest.mark.parametrize("seconds", [3600, -3600])
def test_no_worker_is_restarted_and_every_calendar_follows(agent: Agent, step_clock: object, seconds: int) -> None:
    agent.declare("""
[service.pulse]
kind = "command"
command = ["/bin/sh", "-c", "while :; do touch $$SERVICE_HEARTBEAT_FILE; sleep 0.2; done"]
heartbeat = { interval = "1s", timeout = "4s" }
ready = "heartbeat"

[service.edge]
kind = "capture"
interfaces = ["lo"]

[service.hourly]
kind = "command"
command = ["/bin/true"]
oncalendar = "*:0/30"

[service.often]
kind = "command"
command = ["/bin/true"]
every = "1s"
""")
    agent.start()
    before = {name: agent.until(name, state="running")["pid"] for name in ("pulse", "edge")}
    agent.event("completed", "often")
    cursor = agent.events()[-1]["cursor"]
    step_clock(seconds)  # type: ignore[operator]  # a function
    agent.event("clock_set", after=cursor)
    due = agent.service("hourly")["next_run"]
    assert due is not None
    assert 0 < due - time.time() <= 1800
    # The one that runs each second goes on doing so, without a storm and without an hour's pause.
    begun = time.monotonic()
    last = cursor
    for _ in range(3):
        last = agent.event("completed", "often", after=last)["cursor"]
    assert time.monotonic() - begun < 60
    started = [event for event in agent.events(service="often", after=str(cursor)) if event["kind"] == "started"]
    assert len(started) < 3 + (time.monotonic() - begun) * 2
    # Longer than a heartbeat's timeout after the step, the workers are the same.
    pulse = agent.prefix / "tmp" / "pulse.heartbeat"
    while time.monotonic() - begun < 6:
        beat = pulse.stat().st_mtime_ns
        wait_until(lambda beat=beat: pulse.stat().st_mtime_ns != beat)  # type: ignore[misc]  # bound at once
    assert {name: agent.service(name)["pid"] for name in before} == before
    assert agent.service("pulse")["restarts"] == 0
    assert agent.stop() == 0
