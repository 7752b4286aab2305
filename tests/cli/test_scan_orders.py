"""``agentctl scan pause|resume|stop``: each outcome is told, and what is no scan is a mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.harness import Agentctl
from tests.cli.served import Served


@pytest.mark.parametrize(
    ("word", "action", "wait"), [("pause", "pause", False), ("resume", "resume", False), ("stop", "end", True)]
)
def test_each_outcome_is_one_line(agentctl: Agentctl, served: Served, word: str, action: str, wait: bool) -> None:
    served.declare("lan", kind="scan")
    served.declare("dmz", kind="scan")
    served.refused["dmz"] = "does not run now"
    done = agentctl("scan", word, "lan", "dmz", "lan")
    assert done.returncode == 2
    assert done.stdout.startswith("lan: ")
    assert done.stderr == "dmz: does not run now (failed)\n"
    assert sorted(served.done) == [(action, "dmz", wait), (action, "lan", wait)]
    outcomes = json.loads(agentctl("scan", word, "lan", "--json").stdout)["outcomes"]
    assert [(one["name"], one["action"], one["ok"]) for one in outcomes] == [("lan", action, True)]


@pytest.mark.parametrize("word", ["pause", "resume", "stop", "now"])
@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("edge", "edge is no scan, but a capture"),
        ("lam", "no service is named 'lam'; did you mean lan?"),
        ("Lan", "'Lan' cannot be a service: names are lower-case letters, digits and underscores"),
    ],
)
def test_what_is_no_scan_is_a_mistake_and_nothing_is_done(
    agentctl: Agentctl, served: Served, word: str, name: str, complaint: str
) -> None:
    served.declare("lan", kind="scan")
    served.declare("edge", kind="capture")
    done = agentctl("scan", word, *(["lan"] if word != "now" else []), name)
    assert (done.returncode, done.stdout) == (1, "")
    assert complaint in done.stderr.splitlines()[0]
    assert served.done == []


def test_stop_does_not_wait_when_it_is_told_not_to(agentctl: Agentctl, served: Served) -> None:
    served.declare("lan", kind="scan")
    assert agentctl("scan", "stop", "lan", "--no-wait").returncode == 0
    assert served.done == [("end", "lan", False)]


@pytest.mark.parametrize("word", ["pause", "resume", "stop", "now"])
def test_without_an_agent_it_says_so(agentctl: Agentctl, prefix: Path, word: str) -> None:
    done = agentctl("scan", word, "lan")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"agentctl: the agent is not running: no answer on {prefix}/run/agent.sock")
    assert done.stderr.count("\n") == 1
