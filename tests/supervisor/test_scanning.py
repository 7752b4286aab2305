"""What a scan is told while it runs, and what is answered when it does not, or is no scan."""

from __future__ import annotations

import asyncio
import os

import pytest

from agent.linux.files import PrefixLock
from agent.supervisor.lifecycle import Phase
from agent.supervisor.report import Action
from tests.supervisor.conftest import Host, until

SERVICES = """
[service.lan]
kind = "scan"
targets = ["127.0.0.1"]
ports = "1-3"
oncalendar = "2090-01-01"
timeout = "10m"

[service.off]
kind = "scan"
targets = ["127.0.0.1"]
enabled = false

[service.calm]
kind = "command"
command = ["/bin/sleep", "86811"]
"""


@pytest.fixture
def host(host: Host) -> Host:
    host.supervise(SERVICES)
    return host


@pytest.mark.parametrize(
    ("action", "name", "ok", "message"),
    [
        ("pause", "lan", True, "paused; it does not run now, and will wait when it is started"),
        ("resume", "lan", True, "is not paused"),
        ("end", "lan", False, "does not run now"),
        ("now", "off", False, "is disabled in the declaration (enabled = false)"),
        ("end", "off", False, "does not run now"),
        ("now", "calm", False, "is no scan, but a command"),
        ("pause", "calm", False, "is no scan, but a command"),
        ("resume", "calm", False, "is no scan, but a command"),
        ("end", "calm", False, "is no scan, but a command"),
    ],
)
def test_the_answer_is_one_line(host: Host, action: Action, name: str, ok: bool, message: str) -> None:
    outcome = host.act(action, name)
    assert (outcome.name, outcome.action, outcome.ok, outcome.message) == (name, action, ok, message)
    assert outcome.state == host.supervisor.unit(name).phase.value


def test_a_pause_is_a_file_that_outlives_the_agent_and_is_told_once(host: Host) -> None:
    assert host.act("pause", "lan").ok
    written = host.paths.paused("lan").read_text()
    assert written.startswith("since 20")
    assert host.paths.paused("lan").stat().st_mode & 0o777 == 0o644
    assert host.act("pause", "lan").message == "is paused already"
    assert host.report("lan").message == "paused by hand; next 2090-01-01 00:00:00"
    assert host.loop.run_until_complete(host.supervisor.stop()) == []
    host.supervise(SERVICES)
    assert host.paths.paused("lan").read_text() == written
    assert host.act("resume", "lan").message == "resumed"
    assert host.report("lan").message == "next 2090-01-01 00:00:00"
    assert not host.paths.paused("lan").exists()
    assert [kind for kind in host.kinds("lan") if kind.startswith("scan_")] == ["scan_paused", "scan_resumed"]


def test_another_service_of_that_name_does_not_find_itself_paused(host: Host) -> None:
    host.act("pause", "lan")
    host.reload("")
    assert not host.paths.paused("lan").exists()


def test_a_paused_scan_waits_as_long_as_it_likes_and_an_ended_run_is_no_failure(host: Host) -> None:
    """While it is paused, the end of its time stays as far ahead as it was."""
    host.act("pause", "lan")
    assert host.act("now", "lan").message == "started; it is paused, and waits: agentctl scan resume lan"
    unit = host.until("lan", Phase.RUNNING)
    until(host.loop, lambda: unit.status_text.startswith("paused by hand"))
    assert unit.figures["held"] == "paused by hand"
    assert host.act("now", "lan").message == f"runs already, pid {unit.pid}"
    end = unit._timers["run"].when()
    until(host.loop, lambda: unit._timers["run"].when() > end)
    assert unit._timers["run"].when() < host.loop.time() + 600
    outcome = host.act("end", "lan")
    assert (outcome.ok, outcome.message, outcome.state) == (True, "has ended its run", "waiting")
    assert host.kinds("lan")[-3:] == ["scan_stopped", "exited", "completed"]
    assert host.paths.ended("lan").exists()
    host.act("resume", "lan")
    assert host.act("now", "lan").message == "started"
    until(host.loop, lambda: "scan_finished" in host.kinds("lan"), 30)
    assert not host.paths.ended("lan").exists()


def test_one_that_somebody_else_runs_is_told_by_the_same_files(host: Host) -> None:
    elsewhere = PrefixLock(host.paths.service_lock("lan"))
    elsewhere.acquire()
    try:
        assert host.act("now", "lan").message == f"runs already, under process {os.getpid()}"
        assert host.act("pause", "lan").message == "paused"
        outcome = host.act("end", "lan")
        assert (outcome.ok, outcome.message) == (True, "told to end its run")
    finally:
        elsewhere.release()
    assert host.paths.ended("lan").exists()


def test_a_worker_that_does_not_heed_is_told_of(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.supervisor.scanning.ENDS_WITHIN", 0.3)
    host.act("pause", "lan")
    host.act("now", "lan")
    unit = host.until("lan", Phase.RUNNING)
    assert unit.pid is not None
    os.kill(unit.pid, 19)  # SIGSTOP
    outcome = host.act("end", "lan")
    assert (outcome.ok, outcome.message) == (False, "goes on 0.3 s after it was told to end: agentctl stop lan")
    assert host.act("end", "lan", wait=False).message == "told to end its run"
    os.kill(unit.pid, 18)
    host.until("lan", Phase.WAITING)


def test_nobody_who_waits_for_a_start_holds_up_a_pause(host: Host) -> None:
    async def pause() -> str:
        async with host.supervisor.unit("lan").queue:
            async with asyncio.timeout(5):
                return (await host.supervisor.act("pause", "lan", True)).message

    assert host.loop.run_until_complete(pause()).startswith("paused")


def test_a_file_that_cannot_be_written_is_told(host: Host) -> None:
    host.paths.paused("lan").mkdir()
    assert host.act("pause", "lan").message == "is paused already"
    outcome = host.act("resume", "lan")
    assert (outcome.ok, outcome.message) == (False, f"{host.paths.paused('lan')}: Is a directory")
