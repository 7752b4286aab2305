"""``agentctl scan now``: a run is watched to its end, and judged by it."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
from typing import Any

import pytest

from agent.cli.scan_now import End, ended
from agent.supervisor.report import Action, Outcome, Status
from tests.cli.harness import Agentctl
from tests.cli.served import Served

FIGURES: dict[str, Any] = {"hosts_done": 3, "hosts_total": 8, "ports_open": 2, "percent": 37, "rate": 950.0, "held": ""}


def event(kind: str, message: str = "", **data: object) -> dict[str, Any]:
    return {"kind": kind, "message": message, "data": data}


FINISHED = event("scan_finished", "10.0.0.0/29: 2 hosts up, 5 ports open, took 1.0 s")


@pytest.mark.parametrize(
    ("events", "end"),
    [
        ([event("started"), event("ready")], None),
        ([event("started"), FINISHED], None),
        ([FINISHED, event("exited", "exited 0", code=0)], End(0, FINISHED["message"])),
        ([FINISHED, event("exited", "exited 2", code=2)], End(2, "exited 2")),
        ([event("scan_failed", "nmap hangs"), event("exited", "exited 2", code=2)], End(2, "nmap hangs")),
        ([event("scan_failed", "targets: no"), event("exited", "exited 1", code=1)], End(1, "targets: no")),
        ([event("exited", "exited 1", code=1)], End(1, "exited 1")),
        ([event("exited", "exited 0", code=0)], End(0, "exited 0")),
        ([event("exited", "killed by SIGKILL", signal=9)], End(2, "killed by SIGKILL")),
        ([event("scan_stopped", "ended by hand"), event("exited", "exited 0", code=0)], End(2, "ended by hand")),
        ([event("scan_interrupted", "stopped"), event("exited", "exited 0", code=0)], End(2, "stopped")),
        ([event("run_timeout", "too long"), event("scan_interrupted"), event("exited", code=0)], End(2, "too long")),
        ([event("spawn_failed", "no user x")], End(2, "could not be started: no user x")),
    ],
)
def test_the_exit_code_is_that_of_the_run(events: list[dict[str, Any]], end: End | None) -> None:
    assert ended(events) == end


class Scan:
    """A scan of the agent in memory that runs when it is told to, and ends when the test says so."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.figures = FIGURES
        self.started = threading.Event()
        self.looks = 0
        served.declare("lan", kind="scan", state="waiting", pid=None)
        served.act = self.act  # type: ignore[method-assign]  # this agent does more

    async def act(self, action: Action, name: str, wait: bool) -> Outcome:
        self.started.set()
        self.served.declare(name, kind="scan", figures=self.figures)
        self.served.events.append("started", "pid 100", name)
        return Outcome(name=name, action=action, ok=True, state="starting", message="started")

    def tell(self, **figures: object) -> None:
        self.figures = {**self.figures, **figures}
        self.served.declare("lan", kind="scan", figures=self.figures)

    def end(self, kind: str, message: str, code: int) -> None:
        async def append() -> None:
            self.served.events.append(kind, message, "lan")
            self.served.events.append("exited", f"exited {code}", "lan", code=code)

        asyncio.run_coroutine_threadsafe(append(), self.served.loop).result(10)


@pytest.fixture
def lan(served: Served) -> Scan:
    served.happen("exited", "the run before", "lan")
    return Scan(served)


def test_in_a_pipe_it_is_a_line_when_something_changes_and_one_at_the_end(agentctl: Agentctl, lan: Scan) -> None:
    with agentctl.start("scan", "now", "lan") as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "lan: 37%, 3 of 8 hosts, 2 ports open, 950/s\n"
        lan.tell(held="paused by \x1bhand")
        assert process.stdout.readline() == "lan: 37%, 3 of 8 hosts, 2 ports open, paused by \\x1bhand\n"
        lan.end("scan_finished", "all of it", 0)
        assert process.stdout.read() == "lan: all of it\n"
        assert (process.wait(10), process.stderr.read()) == (0, "")


def test_a_failure_is_one_line_on_stderr(agentctl: Agentctl, lan: Scan) -> None:
    with agentctl.start("scan", "now", "lan") as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        lan.end("scan_failed", "nmap hangs", 2)
        assert process.stderr.read() == "agentctl: lan: nmap hangs\n"
        assert process.wait(10) == 2


def test_json_is_one_document_at_the_end(agentctl: Agentctl, lan: Scan) -> None:
    with agentctl.start("scan", "now", "lan", "--json") as process:
        assert process.stdout is not None
        assert lan.started.wait(10)
        lan.end("scan_stopped", "ended by hand", 0)
        document = json.loads(process.stdout.read())
        assert process.wait(10) == 2
    assert document.pop("seconds") > 0
    assert document == {"name": "lan", "exit_code": 2, "message": "ended by hand", "figures": FIGURES}


def test_ctrl_c_ends_the_watching_and_not_the_scan(agentctl: Agentctl, lan: Scan) -> None:
    with agentctl.start("scan", "now", "lan") as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == "agentctl: lan goes on; it ends with: agentctl scan stop lan\n"
        assert process.wait(10) == 130


def test_on_a_terminal_it_is_a_bar_of_which_nothing_is_left(
    agentctl: Agentctl, lan: Scan, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = lan.served.status

    def status(name: str | None = None) -> Status:
        """At the second look at it it has ended."""
        lan.looks += name is not None
        if lan.looks == 2:
            lan.served.events.append("scan_finished", "all of it", "lan")
            lan.served.events.append("exited", "exited 0", "lan", code=0)
        return report(name)

    monkeypatch.setattr(lan.served, "status", status)
    sent = agentctl.on_terminal("scan", "now", "lan", columns=60)
    assert "\r\x1b[K[########................]  37%  3 of 8 hosts, 2 ports open" in sent
    assert sent.endswith("\r\x1b[Klan: all of it\r\n")
    assert max(len(shown) for shown in sent.replace("\x1b[K", "").split("\r")) < 60


def test_without_waiting_it_is_only_started(agentctl: Agentctl, lan: Scan) -> None:
    done = agentctl("scan", "now", "lan", "--no-wait")
    assert (done.returncode, done.stdout, done.stderr) == (0, "lan: started (starting)\n", "")


def test_what_is_refused_is_one_line(agentctl: Agentctl, served: Served) -> None:
    served.declare("lan", kind="scan")
    served.declare("off", kind="scan", enabled=False)
    served.refused["lan"] = "runs already, pid 100"
    done = agentctl("scan", "now", "lan")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "agentctl: lan: runs already, pid 100\n")
    done = agentctl("scan", "now", "off")
    told = "agentctl: off is disabled in the declaration (enabled = false)\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", told)
    assert served.done == [("now", "lan", True)]


def test_an_agent_that_dies_meanwhile_is_told(agentctl: Agentctl, lan: Scan) -> None:
    with agentctl.start("scan", "now", "lan") as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        (lan.served.prefix / "run/agent.sock").unlink()
        assert process.stderr.read().startswith("agentctl: the agent is not running: no answer on ")
        assert process.wait(10) == 2
