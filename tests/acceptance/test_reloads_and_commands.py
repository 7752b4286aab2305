"""Reloads, commands and stops that meet each other: whatever the order, one worker per service, and nothing left."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Agent, commanded, marked, notify_socket, wait_until

DEAF = """
[service.deaf]
kind = "command"
command = ["/bin/sh", "-c", "trap '' TERM; echo deaf; while :; do sleep {number}; done"]
stop_timeout = "1s"
restart = "{restart}"
"""
LATE = """
[service.late]
kind = "command"
command = ["/bin/sleep", "{number}"]
ready = "{ready}"
start_timeout = "50s"
"""


class Asked:
    """A request under way in a thread of its own."""

    def __init__(self, ask: Callable[[], Any]) -> None:
        self.answer: Any = None
        self._thread = threading.Thread(target=self._run, args=(ask,))
        self._thread.start()

    def _run(self, ask: Callable[[], Any]) -> None:
        try:
            self.answer = ask()
        except Exception as error:
            self.answer = error

    def wait(self, patience: float = 15.0) -> Any:
        self._thread.join(patience)
        assert not self._thread.is_alive(), "no answer"
        return self.answer


def deaf(agent: Agent, number: int, restart: str = "always") -> None:
    agent.declare(DEAF.format(number=number, restart=restart))


def test_a_command_that_waits_for_a_reload_acts_on_the_service_as_declared_anew(agent: Agent) -> None:
    deaf(agent, 86701)
    agent.start()
    wait_until(lambda: "deaf" in agent.log("deaf"))
    deaf(agent, 86702)
    reload = Asked(lambda: agent.client.request("POST", "/v1/reload"))
    agent.event("stopping", "deaf")
    start = Asked(lambda: agent.act("start", "deaf"))
    assert reload.wait()["restarted"] == ["deaf"]
    outcome = start.wait()
    assert (outcome["ok"], outcome["message"]) == (True, f"runs already, pid {agent.service('deaf')['pid']}")
    assert not commanded("sleep 86701")
    wait_until(lambda: len(commanded("sleep 86702")) == 1)


def test_a_command_that_waits_for_a_reload_which_removes_its_service_is_told_so(agent: Agent) -> None:
    deaf(agent, 86703)
    agent.start()
    wait_until(lambda: "deaf" in agent.log("deaf"))
    agent.declare("")
    reload = Asked(lambda: agent.client.request("POST", "/v1/reload"))
    agent.event("stopping", "deaf")
    start = Asked(lambda: agent.act("start", "deaf"))
    assert reload.wait()["stopped"] == ["deaf"]
    assert "no service is named deaf" in str(start.wait())
    assert not commanded("sleep 86703")
    assert agent.status()["services"] == []


def test_a_stop_of_the_agent_lets_no_waiting_command_start_anything(agent: Agent) -> None:
    deaf(agent, 86704)
    agent.start()
    wait_until(lambda: "deaf" in agent.log("deaf"))
    restart = Asked(lambda: agent.act("restart", "deaf"))
    agent.event("stopping", "deaf")
    start = Asked(lambda: agent.act("start", "deaf"))
    assert agent.stop() == 0
    assert not restart.wait()["ok"]
    start.wait()
    assert not marked(agent.prefix)
    assert agent.console().count("deaf: started") == 1


def test_a_stop_of_the_agent_lets_no_reload_start_anything(agent: Agent) -> None:
    deaf(agent, 86705)
    agent.start()
    wait_until(lambda: "deaf" in agent.log("deaf"))
    deaf(agent, 86706)
    reload = Asked(lambda: agent.client.request("POST", "/v1/reload"))
    agent.event("stopping", "deaf")
    assert agent.stop() == 0
    reload.wait()
    assert not marked(agent.prefix)
    assert agent.console().count("deaf: started") == 1


def test_a_reload_mends_what_the_one_before_is_still_waiting_for(agent: Agent) -> None:
    agent.declare("")
    agent.start()
    agent.declare(LATE.format(number=86707, ready="notify"))
    first = Asked(lambda: agent.client.request("POST", "/v1/reload"))
    agent.event("started", "late")
    agent.declare(LATE.format(number=86708, ready="immediate"))
    second = Asked(lambda: agent.client.request("POST", "/v1/reload"))
    assert second.wait()["restarted"] == ["late"]
    assert first.wait()["started"] == ["late"]
    assert agent.service("late")["state"] == "running"
    assert not commanded("sleep 86707")


def test_a_command_that_waits_for_a_start_does_not_hold_up_a_reload(agent: Agent) -> None:
    agent.declare(LATE.format(number=86709, ready="notify"))
    agent.start(wait=False)
    agent.event_when_up("started", "late")
    restart = Asked(lambda: agent.act("restart", "late"))
    agent.event("stopping", "late")
    agent.declare("")
    assert agent.client.request("POST", "/v1/reload")["stopped"] == ["late"]
    assert not restart.wait()["ok"]


def test_a_start_of_what_runs_says_that_it_ran_before(agent: Agent) -> None:
    agent.declare('[service.calm]\nkind = "command"\ncommand = ["/bin/sleep", "86710"]\n')
    agent.start()
    assert agent.act("start", "calm")["message"] == f"runs already, pid {agent.service('calm')['pid']}"


def test_what_run_once_needs_is_left_alone_when_a_reload_removes_the_job(agent: Agent) -> None:
    agent.declare("""
[service.nightly]
kind = "command"
command = ["/bin/sleep", "86711"]
oncalendar = "2099-01-01"
heartbeat = { interval = "10s", timeout = "60s" }
""")
    agent.start()
    runner = os.posix_spawn(agent.command()[0], agent.command("run-once", "nightly"), agent.environment())
    wait_until(lambda: len(commanded("sleep 86711")) == 1)
    agent.act("stop", "nightly")
    agent.declare("")
    agent.client.request("POST", "/v1/reload")
    assert (agent.prefix / "run" / "nightly.json").exists()
    assert (agent.prefix / "tmp" / "nightly.heartbeat").exists()
    os.kill(runner, signal.SIGTERM)
    os.waitpid(runner, 0)
    assert not (agent.prefix / "run" / "nightly.json").exists()
    assert not (agent.prefix / "tmp" / "nightly.heartbeat").exists()


def messages(listener: socket.socket, until: str) -> list[str]:
    """What systemd would hear, up to a line."""
    heard: list[str] = []
    while until not in "".join(heard[-1:]):
        heard.append(listener.recv(65536).decode())
    return heard


def test_systemd_hears_of_a_refused_reload_too(agent: Agent) -> None:
    agent.declare("")
    with notify_socket(agent.prefix) as (listener, name):
        listener.settimeout(20)
        agent.start(wait=False, environ={"NOTIFY_SOCKET": name})
        messages(listener, "READY=1")
        agent.declare("colour = 1")
        os.kill(agent.pid, signal.SIGHUP)
        messages(listener, "RELOADING=1")
        messages(listener, "READY=1")


def test_a_reload_while_services_are_coming_up_does_not_call_the_agent_ready(agent: Agent) -> None:
    agent.declare("""
[service.late]
kind = "command"
command = ["/bin/sh", "-c", "until [ -e $$SERVICE_DATA/go ]; do sleep 0.05; done; systemd-notify --ready; sleep 86712"]
ready = "notify"
""")
    with notify_socket(agent.prefix) as (listener, name):
        listener.settimeout(20)
        agent.start(wait=False, environ={"NOTIFY_SOCKET": name})
        agent.event_when_up("started", "late")
        os.kill(agent.pid, signal.SIGHUP)
        agent.event("reloaded")
        (agent.prefix / "spool" / "late" / "go").touch()
        heard = messages(listener, "READY=1")
        assert agent.service("late")["state"] == "running"
        assert not any("RELOADING=1" in message for message in heard)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_storm_of_signals_while_it_stops_ends_in_a_clean_stop(agent: Agent, number: int) -> None:
    agent.declare('[service.calm]\nkind = "command"\ncommand = ["/bin/sleep", "86713"]\n')
    agent.start()
    assert agent.process is not None
    pid = agent.process.pid
    while agent.process.poll() is None:
        os.kill(pid, number)
        with suppress(subprocess.TimeoutExpired):  # without a pause whoever is sent them may get to nothing else
            agent.process.wait(0.0002)
    assert agent.process.returncode == 0
    assert "Traceback" not in agent.console()
    assert not (agent.prefix / "run" / "agent.pid").exists()


def test_no_signal_finds_the_agent_unprepared(agent: Agent) -> None:
    agent.declare("")
    agent.start(wait=False)
    assert agent.process is not None
    record = agent.prefix / "run" / "agent.pid"
    while not record.exists():
        assert agent.process.poll() is None
    status = Path(f"/proc/{agent.process.pid}/status").read_text()
    masks = dict(line.split(":\t") for line in status.splitlines())
    ready_for = int(masks["SigBlk"], 16) | int(masks["SigCgt"], 16)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        assert ready_for & 1 << number - 1
    os.kill(agent.process.pid, signal.SIGHUP)
    os.kill(agent.process.pid, signal.SIGTERM)
    assert agent.process.wait(20) == 0
    assert not record.exists()
