"""What a unit makes of what its worker says, and of effects that fail."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import Any

import msgspec
import pytest

from agent.supervisor.lifecycle import Phase
from agent.supervisor.unit import EVENTS_BURST
from agent.workers.scan.memory.telling import SINGLE
from tests.linux.processes import readable
from tests.supervisor.conftest import Host, until


def test_status_figures_and_events_of_a_worker_are_taken_over(host: Host) -> None:
    host.supervise("""
[service.talker]
kind = "command"
command = ["/bin/sh", "-c", '''
systemd-notify --ready --status="serving 7" \\
  'X_FIGURES={"clients": 7}' 'X_INTERFACES={"figures": ["received"], "interfaces": {"eth0": [7]}}' \
  'X_EVENT={"kind": "client_came", "message": "the seventh", "data": {"number": 7}}'
exec sleep 86791
''']
ready = "notify"
""")
    until(host.loop, lambda: host.report("talker").figures)
    report = host.report("talker")
    assert (report.message, report.figures) == ("serving 7", {"clients": 7})
    assert report.interfaces == {"eth0": {"received": 7}}
    event = next(event for event in host.events.last(100, "talker") if event.kind == "client_came")
    assert (event.message, event.data["number"]) == ("the seventh", 7)


def test_a_flood_of_events_is_bounded(host: Host) -> None:
    host.supervise("""
[service.flood]
kind = "command"
command = ["/bin/sh", "-c", '''
for i in $$(seq 150); do systemd-notify 'X_EVENT={"kind": "noise", "message": "again"}'; done
systemd-notify --ready; exec sleep 86792
''']
ready = "notify"
""")
    assert 75 <= host.kinds("flood").count("noise") < 150


def test_all_that_a_scan_tells_one_by_one_is_heard_and_its_end_too() -> None:
    assert SINGLE + 10 < EVENTS_BURST


def test_what_a_run_said_before_it_died_is_not_put_down_to_the_next(host: Host) -> None:
    host.supervise("""
[service.liar]
kind = "command"
command = ["/bin/sh", "-c", '''
if [ -e "$$SERVICE_DATA/again" ]; then exec sleep 86793; fi
touch "$$SERVICE_DATA/again"; systemd-notify --no-block READY=1 STATUS=up; kill -9 $$$$
''']
ready = "notify"
start_timeout = "20s"
enabled = false
""")
    host.act("start", "liar", wait=False)
    unit = host.supervisor.unit("liar")
    until(host.loop, lambda: unit.state.run == 2)
    host.loop.run_until_complete(asyncio.sleep(0.1))
    assert (unit.phase, unit.status_text) == (Phase.STARTING, "")
    host.act("stop", "liar")


def test_an_effect_that_fails_costs_no_other(
    host: Host, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed: list[str] = []
    loop.set_exception_handler(lambda loop, context: failed.append(context["message"]))
    host.supervise("""
[service.deaf]
kind = "command"
command = ["/bin/sh", "-c", "trap '' TERM; while :; do sleep 86794; done"]
stop_timeout = "200ms"
""")
    unit = host.supervisor.unit("deaf")
    assert unit.run is not None

    def fail(number: int) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(unit.run, "signal", fail)
    assert host.act("stop", "deaf").ok
    assert failed == ["deaf: cannot perform Signal(run=1)"]


def test_a_bug_while_it_starts_is_a_failed_start_and_no_service_without_a_state(
    host: Host, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed: list[str] = []
    loop.set_exception_handler(lambda loop, context: failed.append(context["message"]))
    made = host.supervise_later('[service.calm]\nkind = "command"\ncommand = ["/bin/sleep", "86795"]\nrestart = "no"\n')

    def fail(*arguments: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(made, "contain", fail)
    loop.run_until_complete(made.start())
    assert host.report("calm").state == "failed"
    assert host.report("calm").message == "cannot start: a bug"
    assert failed == ["cannot start calm"]
    monkeypatch.undo()
    assert host.act("start", "calm").ok


# -- another program in this process ----------------------------------------------------------------------------------

PHASES = """
[service.stopped]
kind = "command"
command = ["/bin/sleep", "86795"]

[service.waiting]
kind = "command"
command = ["/bin/true"]
oncalendar = "*:0/30"
randomized_delay = "10min"

[service.starting]
kind = "command"
command = ["/bin/sh", "-c", "trap 'systemd-notify --ready --status=late' USR1; while :; do sleep 0.01; done"]
ready = "notify"
start_timeout = "1h"
enabled = false

[service.running]
kind = "command"
command = ["/bin/sh", "-c", '''
systemd-notify --ready --status=serving 'X_FIGURES={"clients": 123456789012345678901234567890}'
while :; do systemd-notify WATCHDOG=1; sleep 0.1; done
''']
ready = "notify"
heartbeat = { interval = "1s", timeout = "10s" }

[service.backoff]
kind = "command"
command = ["/bin/sh", "-c", "echo no good; exit 2"]

[service.stopping]
kind = "command"
command = ["/bin/sh", "-c", "trap '' TERM; systemd-notify --ready; while :; do sleep 0.01; done"]
ready = "notify"
stop_timeout = "1h"

[service.completed]
kind = "command"
command = ["/bin/true"]
restart = "no"

[service.failed]
kind = "command"
command = ["/bin/sh", "-c", "echo out of luck; exit 3"]
restart = "no"
"""

MEASURED = ("cpu_percent", "rss_bytes", "threads", "open_files", "processes", "heartbeat_age")


def told(host: Host) -> dict[str, dict[str, Any]]:
    """Each report, without what is measured."""
    found = {report.name: msgspec.to_builtins(report) for report in host.supervisor.reports()}
    return {name: {key: report[key] for key in report if key not in MEASURED} for name, report in found.items()}


def test_in_whatever_phase_another_program_finds_a_service_it_goes_on_as_if_nothing_had_been(host: Host) -> None:
    host.supervise(PHASES)
    host.act("stop", "stopped")
    host.act("stop", "stopping", wait=False)
    host.act("start", "starting", wait=False)
    until(host.loop, lambda: host.report("running").figures)
    host.until("failed", Phase.FAILED)
    host.until("completed", Phase.COMPLETED)
    host.until("backoff", Phase.BACKOFF)
    before, units = told(host), dict(host.supervisor.units)
    timers = {name: {timer: handle.when() for timer, handle in unit._timers.items()} for name, unit in units.items()}
    events = len(host.events.last(1000))
    host.hand_over()
    assert told(host) == before
    assert {report["state"] for report in before.values()} == {phase.value for phase in Phase}
    for name, unit in host.supervisor.units.items():
        assert unit.state == units[name].state
        assert {timer: handle.when() for timer, handle in unit._timers.items()} == timers[name]
        assert unit._agenda.freeze() == units[name]._agenda.freeze()
        assert (unit.liveness is None) == (units[name].liveness is None)
    assert len(host.events.last(1000)) == events, "nothing happened"
    # And then each goes on.
    pids = {report.name: report.pid or 0 for report in host.supervisor.reports()}
    os.kill(pids["starting"], signal.SIGUSR1)
    host.until("starting", Phase.RUNNING)
    assert host.report("starting").message == "late"
    restarts = host.report("backoff").restarts
    until(host.loop, lambda: host.report("backoff").restarts > restarts)
    os.kill(pids["stopping"], signal.SIGKILL)
    host.until("stopping", Phase.STOPPED)
    os.kill(pids["running"], signal.SIGKILL)
    until(host.loop, lambda: host.report("running").pid not in (None, pids["running"]))
    assert host.report("running").last_exit == "killed by SIGKILL"
    for name in ("stopped", "failed", "completed", "waiting"):
        assert host.act("start", name, wait=False).ok


def test_a_time_limit_that_passes_while_nobody_supervises_is_kept_at_once(host: Host) -> None:
    host.supervise("""
[service.slow]
kind = "command"
command = ["/bin/sleep", "86796"]
ready = "notify"
start_timeout = "1s"
restart = "no"
enabled = false
""")
    host.act("start", "slow", wait=False)
    begun = host.loop.time()
    time.sleep(1.2)
    host.hand_over()
    unit = host.until("slow", Phase.FAILED)
    assert host.loop.time() - begun < 2.0
    assert "not ready within 1 s" in unit.state.reason


def test_more_time_that_a_worker_asks_for_while_nobody_supervises_is_granted(host: Host) -> None:
    host.supervise("""
[service.slow]
kind = "command"
command = ["/bin/sh", "-c", '''
trap 'systemd-notify EXTEND_TIMEOUT_USEC=60000000' USR1; echo up; while :; do sleep 0.01; done
''']
ready = "notify"
start_timeout = "2s"
enabled = false
""")
    host.act("start", "slow", wait=False)
    unit = host.supervisor.unit("slow")
    until(host.loop, lambda: unit.run and unit.run.last_line == "up")
    os.kill(unit.pid or 0, signal.SIGUSR1)
    asked = host.loop.time()
    while not readable(unit._premises.listener._receiver.fd if unit._premises.listener._receiver else -1, 0.1):
        assert host.loop.time() - asked < 5
    host.hand_over()
    unit = host.supervisor.unit("slow")
    until(host.loop, lambda: unit._timers["start"].when() > asked + 59)


def test_a_worker_that_falls_silent_is_found_by_the_next_program(host: Host) -> None:
    host.supervise("""
[service.silent]
kind = "command"
command = ["/bin/sh", "-c", "systemd-notify --ready WATCHDOG=1; exec sleep 86797"]
ready = "notify"
heartbeat = { interval = "100ms", timeout = "400ms" }
restart = "no"
""")
    time.sleep(0.5)
    host.hand_over()
    unit = host.until("silent", Phase.FAILED)
    assert "heartbeat stale" in unit.state.reason


def test_a_calendar_that_has_no_next_time_has_one_when_the_clock_is_set_back(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.supervise("""
[service.once]
kind = "command"
command = ["/bin/true"]
oncalendar = "2001-09-09 01:46:40 UTC"
""")
    assert host.report("once").next_run is None
    host.hand_over()
    assert host.report("once").next_run is None
    monkeypatch.setattr(time, "time", lambda: 999_999_000.0)
    host.supervisor.clock_was_set()
    assert host.report("once").next_run == 1_000_000_000.0


def test_a_job_that_was_stopped_by_hand_has_no_next_time_for_the_next_program_either(host: Host) -> None:
    host.supervise('[service.job]\nkind = "command"\ncommand = ["/bin/true"]\nevery = "1h"\n')
    host.act("stop", "job")
    host.hand_over()
    assert host.report("job").next_run is None
    host.supervisor.clock_was_set()
    assert host.report("job").next_run is None
    host.act("start", "job")
    assert host.report("job").next_run is not None
