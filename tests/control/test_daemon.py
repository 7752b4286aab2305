"""What the agent's process does about its own mistakes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.errors import RequestRefused
from tests.harness import PATIENCE, SOURCE, Agent, wait_until

# An agent with a mistake in it, which it does not have by itself.
MISTAKEN = """
import sys
from agent.control.facade import RunningAgent
def mistaken(self):
    raise ZeroDivisionError("a mistake")
RunningAgent.timers = mistaken
from agent.control.daemon import run
from agent.paths import Paths
sys.exit(run(Paths.of(sys.argv[1])))
"""


def test_a_mistake_is_an_event_and_its_traceback_is_in_the_log(tmp_path: Path) -> None:
    agent = Agent(tmp_path / "srv")
    agent.declare("")
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCE)}
    with subprocess.Popen([sys.executable, "-c", MISTAKEN, str(agent.prefix)], env=environment, cwd="/") as process:
        try:
            wait_until(agent.answers)
            with pytest.raises(RequestRefused) as answer:
                agent.client.request("GET", "/v1/timers")
            assert (answer.value.status, str(answer.value)) == (500, "internal error, see the log")
            (event,) = [event for event in agent.events() if event["kind"] == "bug"]
            assert event["message"] == "ZeroDivisionError('a mistake'); the traceback is in log/agent.log"
            log = (agent.prefix / "log" / "agent.log").read_text()
            assert "Traceback (most recent call last)" in log
            assert "in mistaken" in log
        finally:
            process.terminate()
    assert process.wait(PATIENCE) == 0
