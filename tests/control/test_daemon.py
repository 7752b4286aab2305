"""What the agent's process does about its own mistakes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.control.baton import FORMAT
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


# -- what an agent before has left ------------------------------------------------------------------------------------

TALKER = """
[service.talker]
kind = "command"
command = ["/bin/sleep", "86651"]
"""

# Executes the agent as systemd does when it gives back what was stored: descriptors in a row from 3 on, with names.
GIVEN_BACK = """
import msgspec, os, sys, time
from agent.control import baton
from agent.control.baton import Inner, Outer
from agent.control.console import Untold
from agent.linux import memfd
from agent.linux.environment import Program
from tests.control.test_baton import inner_of
reading, writing = os.pipe()
os.write(writing, b"these are my last words")
os.close(writing)
stranger, other = os.pipe()
os.write(other, b"nobody knows whose")
pipes = {{os.fstat(reading).st_ino: "talker", 1: "gone"}}
inner = msgspec.structs.replace(inner_of(), pipes=pipes)
outer = Outer(format={format}, id="1234", version="0.0.9", program=Program(["/no/such"], {{}}),
    frozen_at=time.monotonic(), descriptors=[], inner=msgspec.Raw(msgspec.json.encode(inner)))
fds = [{state}, reading, stranger]
kept = [os.dup2(fd, 50 + number, inheritable=True) for number, fd in enumerate(fds)]
for number, fd in enumerate(kept):
    os.dup2(fd, 3 + number, inheritable=True)
os.closerange(3 + len(kept), 100)
os.environ |= {{"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "3", "LISTEN_FDNAMES": "handover:output:output"}}
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    made = Agent(tmp_path / "srv")
    yield made
    made.clean()


def given_back(state: str, form: int = FORMAT) -> tuple[str, ...]:
    """What to start an agent with."""
    return sys.executable, "-c", GIVEN_BACK.format(state=state, format=form)


@pytest.mark.parametrize("form", [FORMAT, FORMAT + 1])
def test_the_last_words_of_who_died_with_an_agent_get_into_their_log(agent: Agent, form: int) -> None:
    agent.declare(TALKER)
    agent.start(wrapper=given_back("baton.seal(outer)", form))
    (failed,) = [event for event in agent.events() if event["kind"] == "handover_failed"]
    assert failed["message"].startswith("the agent died while version 0.0.9 handed over; version ")
    report = agent.client.request("GET", "/v1/handover")
    assert (report["id"], report["state"]) == ("1234", "failed")
    words = [line.split(" ", 1)[1] for line in agent.log("talker").splitlines()]
    assert words == (["these are my last words"] if form == FORMAT else [])
    assert "nobody knows whose" not in "".join(file.read_text() for file in (agent.prefix / "log").iterdir())
    kinds = [str(entry.readlink()) for entry in Path(f"/proc/{agent.pid}/fd").iterdir() if int(entry.name) < 6]
    assert not [kind for kind in kinds if "memfd" in kind]


@pytest.mark.parametrize(
    "state",
    [
        'memfd.seal("x", b"no JSON")',
        r"""memfd.seal("x", b'{"format": "\xff"}')""",
        'os.memfd_create("x")',
        'os.open("/etc/passwd", os.O_RDONLY)',
    ],
    ids=["no JSON", "no text", "not sealed", "a file"],
)
def test_what_was_stored_and_makes_no_sense_keeps_no_agent_down(agent: Agent, state: str) -> None:
    agent.declare(TALKER)
    agent.start(wrapper=given_back(state))
    assert agent.service("talker")["state"] == "running"
    assert agent.client.request("GET", "/v1/handover")["state"] == "none"
    assert not [event for event in agent.events() if event["kind"] in ("handover_failed", "bug", "error")]


@pytest.mark.parametrize("number", ["77", "0", "-1", "9" * 5000, "three"])
def test_an_agent_that_is_told_of_a_hand_over_there_was_not_says_so_in_one_line(agent: Agent, number: str) -> None:
    agent.declare(TALKER)
    done = subprocess.run(
        agent.command("run"),
        env=agent.environment({"AGENT_HANDOVER": number}),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "AGENT_HANDOVER names no descriptor" in done.stderr or "what the program before has left" in done.stderr
    assert not (agent.prefix / "log" / "agent.log").exists()
