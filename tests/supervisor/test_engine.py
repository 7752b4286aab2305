"""Services of one host held at their declared state; by real processes, without the daemon around them."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from agent.errors import RequestRefused, RuntimeFailure
from agent.supervisor.engine import Supervisor
from agent.supervisor.lifecycle import Phase
from agent.supervisor.report import NoSuchService
from tests.harness import alive, commanded
from tests.linux.conftest import start
from tests.linux.processes import Started
from tests.supervisor.conftest import FileSink, Host, descriptors, until

__all__ = ["start"]

TWO = """
[service.one]
kind = "command"
command = ["/bin/sleep", "86751"]

[service.two]
kind = "command"
command = ["/bin/sh", "-c", "setsid sleep 86752 & exec sleep 86752"]
"""


def test_what_is_declared_runs_and_is_gone_after_a_stop(host: Host) -> None:
    before = descriptors()
    host.supervise(TWO)
    assert [report.state for report in host.supervisor.reports()] == ["running", "running"]
    until(host.loop, lambda: len(commanded("sleep 86752")) == 2)
    assert host.stop() == []
    assert not commanded("sleep 86751") and not commanded("sleep 86752")
    assert sorted(path.name for path in host.paths.run.iterdir()) == ["one.lock", "two.lock"]
    assert descriptors() == before


def test_while_many_start_others_have_their_turn(host: Host) -> None:
    text = "".join(f'[service.s{i}]\nkind = "command"\ncommand = ["/bin/sleep", "86753"]\n' for i in range(20))
    made = host.supervise_later(text)

    async def interrupt() -> list[int]:
        """Stop after a few of them."""
        starting = asyncio.ensure_future(made.start())
        while sum(unit.pid is not None for unit in made.units.values()) < 5:
            await asyncio.sleep(0)
        counted = [sum(unit.pid is not None for unit in made.units.values())]
        await made.stop()
        await starting
        return [*counted, sum(unit.state.run for unit in made.units.values())]

    counted, started = host.loop.run_until_complete(interrupt())
    assert counted <= started < 20
    assert not commanded("sleep 86753")


def test_what_somebody_stopped_before_its_turn_came_is_not_started(host: Host) -> None:
    made = host.supervise_later(TWO)

    async def begin() -> None:
        outcome = await made.act("stop", "two", wait=True)
        assert outcome.ok
        await made.start()

    host.loop.run_until_complete(begin())
    host.until("one", Phase.RUNNING)
    assert host.report("two").state == "stopped"
    assert host.report("two").message == "stopped by hand"


def test_a_killed_worker_is_replaced_at_once(host: Host) -> None:
    host.supervise(TWO)
    unit = host.supervisor.unit("one")
    latencies = []
    for _ in range(3):
        host.act("restart", "one")
        old = unit.pid
        assert old is not None
        begun = time.monotonic()
        os.kill(old, signal.SIGKILL)
        until(host.loop, lambda old=old: unit.pid not in (None, old))  # type: ignore[misc]  # bound at once
        latencies.append(time.monotonic() - begun)
        assert not alive(old)
    assert min(latencies) < 0.1


def test_a_stop_by_hand_is_remembered_as_the_policy_says_and_forgotten_with_the_service(host: Host) -> None:
    text = TWO.replace('"86751"]', '"86751"]\nrestart = "unless-stopped"')
    host.supervise(text)
    for name in ("one", "two"):
        assert host.act("stop", name).ok
    host.stop()
    host.supervise(text)
    assert [report.state for report in host.supervisor.reports()] == ["stopped", "running"]
    assert host.report("one").message.startswith("stopped by hand before")
    host.reload("")
    host.reload(text)
    assert host.report("one").state == "running"


def test_a_name_that_nobody_has_is_answered_with_the_nearest(host: Host) -> None:
    host.supervise(TWO)
    with pytest.raises(NoSuchService, match="did you mean two"):
        host.act("start", "tow")


def test_nothing_is_started_once_it_stops(host: Host) -> None:
    host.supervise(TWO)
    host.act("stop", "one")
    host.stop()
    outcome = host.act("start", "one")
    assert (outcome.ok, outcome.message) == (False, "the agent is stopping")
    with pytest.raises(RequestRefused, match="stopping"):
        host.reload("")


def test_who_shed_every_sign_of_its_service_goes_with_the_agent(host: Host) -> None:
    host.supervise("""
[service.runaway]
kind = "command"
command = ["/bin/sh", "-c", "(setsid env -i sleep 86754 >/dev/null 2>&1 &) ; exec sleep 86755"]
""")
    until(host.loop, lambda: commanded("sleep 86754"))
    assert host.stop() == []
    assert not commanded("sleep 86754")


def test_limits_that_are_not_in_force_are_told_once_and_not_at_each_restart(host: Host) -> None:
    host.supervise("""
[service.bounded]
kind = "command"
command = ["/bin/sleep", "86756"]
limits = { pids = 10 }
""")
    for _ in range(3):
        host.act("restart", "bounded")
    assert host.kinds("bounded").count("limits_not_in_force") == 1


def test_a_job_that_ran_is_due_a_period_later_also_after_a_restart_of_the_agent(host: Host) -> None:
    text = '[service.tick]\nkind = "command"\ncommand = ["/bin/true"]\nevery = "1h"\n'
    host.supervise(text)
    until(host.loop, lambda: "completed" in host.kinds("tick"))
    due = host.supervisor.timers()[0].next_run
    assert due is not None
    assert 3590 < due - time.time() <= 3600
    host.stop()
    host.supervise(text)
    assert host.supervisor.timers()[0].next_run == pytest.approx(due, abs=1)
    assert host.kinds("tick").count("started") == 1


SYSTEMDS = '[agent]\nscheduler = "systemd"\n'
TICK = '[service.tick]\nkind = "command"\ncommand = ["/bin/true"]\nevery = "1s"\n'


def test_a_job_of_systemds_waits_for_it_and_runs_when_somebody_asks(host: Host) -> None:
    host.supervise(SYSTEMDS + TICK)
    report = host.report("tick")
    assert (report.state, report.next_run, report.message) == ("waiting", None, "waits for systemd: agentctl timers")
    assert host.act("start", "tick").message == "ran: exited 0"
    assert (host.report("tick").state, host.supervisor.timers()[0].scheduler) == ("waiting", "systemd")
    assert host.supervisor.timers()[0].last_exit == "exited 0"
    stopped = host.act("stop", "tick")
    assert stopped.ok
    assert stopped.message == (
        "stopped; systemd goes on starting it at its times, unless you systemctl stop agent-job@tick.timer"
    )


def test_who_starts_jobs_changes_with_a_reload(host: Host) -> None:
    host.supervise(TICK)
    until(host.loop, lambda: host.kinds("tick").count("completed") > 1)
    report = host.reload(SYSTEMDS + TICK)
    assert report.unchanged == 1
    until(host.loop, lambda: host.report("tick").state == "waiting")
    runs = host.kinds("tick").count("started")
    assert host.report("tick").next_run is None
    host.loop.run_until_complete(asyncio.sleep(1.2))
    assert host.kinds("tick").count("started") == runs
    host.reload(TICK)
    until(host.loop, lambda: host.kinds("tick").count("started") > runs)


def test_a_time_that_passed_while_no_agent_ran_is_made_up_for_if_that_is_declared(host: Host) -> None:
    text = """
[service.kept]
kind = "command"
command = ["/bin/true"]
oncalendar = "2020-01-01"
persistent = true

[service.let_go]
kind = "command"
command = ["/bin/true"]
oncalendar = "2020-01-01"
"""
    host.supervise(text)
    assert {timer.name: timer.next_run for timer in host.supervisor.timers()} == {"kept": None, "let_go": None}
    host.stop()
    for name in ("kept", "let_go"):
        host.supervisor.serve(name, 1_500_000_000.0)  # the last time that an agent called it: in 2017
    host.supervise(text)
    until(host.loop, lambda: host.report("kept").last_exit == "exited 0")
    assert host.kinds("let_go").count("started") == 0
    host.stop()
    host.supervise(text)
    assert host.kinds("kept").count("started") == 1


# -- another program in this process ----------------------------------------------------------------------------------


def test_another_program_knows_every_service_and_whom_not_to_reap(host: Host) -> None:
    host.supervise(TWO)
    before = {report.name: report.pid for report in host.supervisor.reports()}
    marks = {name: host.supervisor.mark(name) for name in before}
    killed = before["one"]
    assert killed is not None
    host.hand_over()
    assert {report.name: report.pid for report in host.supervisor.reports()} == before
    assert {name: host.supervisor.mark(name) for name in before} == marks
    os.kill(killed, signal.SIGKILL)
    host.supervisor.reap()
    until(host.loop, lambda: host.report("one").pid not in (None, killed))
    assert host.report("one").last_exit == "killed by SIGKILL", "its status was left to whom it belongs"
    assert host.kinds("one").count("started") == 2


def test_who_is_orphaned_and_ends_while_nobody_supervises_is_reaped(host: Host, start: Callable[..., Started]) -> None:
    host.supervise(TWO)
    parent = start("sleep 86752 & echo $!; read x")
    orphan = int(parent.line())
    parent.reap()  # and its child is ours: we are a subreaper
    os.kill(orphan, signal.SIGKILL)
    os.waitid(os.P_PID, orphan, os.WEXITED | os.WNOWAIT)
    host.hand_over()
    assert not Path(f"/proc/{orphan}").exists()


def test_what_is_held_by_cgroups_is_not_taken_over_without_them(host: Host) -> None:
    host.supervise(TWO)
    frozen = host.supervisor.freeze()
    with pytest.raises(RuntimeFailure, match="services are held by cgroup, and now only a sweep is to be had"):
        Supervisor(
            loop=host.loop,
            paths=host.paths,
            declaration=frozen.declaration,
            environ={},
            events=host.events,
            tree=None,
            sink=lambda service: FileSink(host.paths.log(service.name)),
            frozen=msgspec.structs.replace(frozen, contained_by="cgroup"),
        )


def test_a_declaration_that_was_made_true_is_no_news_to_another_program(host: Host) -> None:
    text = """
[agent]
heartbeat = { interval = "3s" }

[service.capture]
kind = "capture"
interfaces = ["lo"]
rotate = { size = "1MiB", every = "90s" }
enabled = false

[service.job]
kind = "command"
command = ["/bin/true", "ü ✓"]
oncalendar = "Mon..Fri *-*-* 8..17/2:30 Europe/Helsinki"
environment = { A = "b" }
limits = { cpus = 1.5 }
heartbeat = { interval = "1s", timeout = "2500ms" }

[service.scan]
kind = "scan"
targets = ["127.0.0.0/29"]
every = "1h"
"""
    host.supervise(text)
    host.hand_over()
    report = host.reload(text)
    assert (report.unchanged, report.restarted, report.updated, report.reasons) == (3, [], [], {})
    assert host.supervisor.settings.heartbeat_interval == 3.0


def test_a_hundred_programs_later_nothing_is_lost_or_doubled(host: Host) -> None:
    host.supervise(
        TWO + '[service.counting]\nkind = "command"\ncommand = ["/bin/sh", "-c", "'
        "i=0; while :; do i=$$((i+1)); echo line $$i; sleep 0.002; done"
        '"]\n'
    )
    before = {report.name: report.pid for report in host.supervisor.reports()}
    for _ in range(100):
        host.hand_over()
        host.loop.run_until_complete(asyncio.sleep(0.003))
    assert {report.name: report.pid for report in host.supervisor.reports()} == before
    assert host.act("stop", "counting").ok
    lines = host.paths.log("counting").read_text().splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == [f"line {number}" for number in range(1, len(lines) + 1)]
    assert len(lines) > 100
