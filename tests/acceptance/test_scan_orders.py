"""``agentctl scan now|pause|resume|stop``, from the command line to what is sent and stored."""

from __future__ import annotations

import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path

from tests.harness import Agent, wait_until
from tests.workers.scan.wire import Wire, wire

SLOW = """
[service.lan]
kind = "scan"
targets = ["127.83.0.1"]
ports = "1-2000"
rate = 20
oncalendar = "2090-01-01"
"""
"""A scan that would take more than a minute."""

A_SECOND = 1.0


def told(agent: Agent, *words: str) -> str:
    """What the command prints; it succeeds."""
    done = agent.ctl("scan", *words)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def runs(agent: Agent) -> list[str]:
    """How the runs have ended, oldest first."""
    with closing(sqlite3.connect(agent.prefix / "spool/lan/scan.db")) as database:
        return [row[0] for row in database.execute("SELECT status FROM runs ORDER BY id")]


def sent(agent: Agent) -> bool:
    """Whether anything runs that could send: something of the service's beside a worker that is held."""
    return not agent.service("lan")["figures"].get("held") or bool(nmaps(agent))


def left(sending: Wire) -> list[float]:
    """When packets to the target left, in unix seconds."""
    return [one.at for one in sending.sent if one.to == "127.83.0.1"]


def nmaps(agent: Agent) -> list[Path]:
    """The processes of nmap that are this service's."""
    pid = agent.service("lan")["pid"]
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [Path(f"/proc/{child}") for child in children]


def test_a_scan_is_started_held_over_a_restart_of_the_agent_and_ended(agent: Agent) -> None:
    agent.declare(SLOW)
    agent.start()
    assert told(agent, "now", "lan", "--no-wait") == "lan: started (starting)\n"
    again = agent.ctl("scan", "now", "lan")
    assert again.returncode == 2
    assert again.stderr.startswith("agentctl: lan: runs already, pid ")
    agent.until("lan", state="running")
    wait_until(lambda: agent.service("lan")["figures"])
    with wire(None, "lo") as sending:
        wait_until(lambda: len(left(sending)) > 5)
        assert told(agent, "pause", "lan") == "lan: paused (running)\n"
        paused = time.time()
        wait_until(lambda: not sent(agent))
        time.sleep(max(0.0, paused + 2 - time.time()))  # that nothing happens cannot be waited for
    assert left(sending)[-1] - paused < A_SECOND
    assert agent.service("lan")["message"].startswith("paused by hand: ")
    assert agent.stop() == 0
    agent.start()
    assert told(agent, "now", "lan", "--no-wait").startswith("lan: started; it is paused, and waits")
    wait_until(lambda: agent.service("lan")["message"].startswith("paused by hand: "))
    with wire(None, "lo") as sending:
        assert told(agent, "resume", "lan") == "lan: resumed (running)\n"
        resumed = time.time()
        wait_until(lambda: len(left(sending)) > 5)
        assert left(sending)[0] - resumed < A_SECOND
        assert told(agent, "stop", "lan") == "lan: has ended its run (waiting)\n"
        stopped = time.time()
    assert left(sending)[-1] < stopped, "it had ended when the command said so"
    assert runs(agent)[-1] == "stopped"
    done = agent.ctl("scan", "stop", "lan")
    assert (done.returncode, done.stderr) == (2, "lan: does not run now (waiting)\n")


def test_who_watches_a_scan_is_told_of_its_end(agent: Agent) -> None:
    agent.declare(SLOW)
    agent.start()
    with subprocess.Popen(
        agent.command("scan", "now", "lan"),
        env=agent.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
    ) as watching:
        assert watching.stdout is not None and watching.stderr is not None
        assert watching.stdout.readline().startswith("lan: 0%, ")
        told(agent, "stop", "lan")
        assert "ended by hand after 0 of 1 host" in watching.stderr.read()
        assert watching.wait(20) == 2
    agent.declare(SLOW.replace("1-2000", "1-3"))
    assert agent.ctl("reload").returncode == 0
    done = agent.ctl("scan", "now", "lan")
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 host up" in done.stdout.splitlines()[-1]
    assert runs(agent) == ["stopped", "finished"]
