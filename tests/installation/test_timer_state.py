"""What systemd tells about a job, as ``agentctl timers`` shows it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.installation import timer_state
from agent.installation.timer_state import PROPERTIES, JobState, read

NOW = 1_795_726_700.0
MONOTONIC = 1000.0
AT = 1_795_726_610.0

# As systemd 252 printed them.
WAITING = {
    "ActiveState": "active",
    "SubState": "waiting",
    "NextElapseUSecRealtime": "Thu 2026-11-26 21:00:00 UTC",
    "NextElapseUSecMonotonic": "0",
    "LastTriggerUSec": "Thu 2026-11-26 20:56:50 UTC",
    "Result": "success",
}
DEAD = {
    "ActiveState": "inactive",
    "SubState": "dead",
    "NextElapseUSecRealtime": "",
    "NextElapseUSecMonotonic": "infinity",
    "LastTriggerUSec": "",
    "Result": "success",
}
NEVER = {
    "ActiveState": "inactive",
    "Result": "success",
    "ExecMainCode": "0",
    "ExecMainStatus": "0",
    "ExecMainStartTimestamp": "",
    "ExecMainExitTimestamp": "",
    "StatusText": "",
}
DONE = {**NEVER, "ExecMainCode": "1", "ExecMainStartTimestamp": f"@{AT:.0f}", "ExecMainExitTimestamp": f"@{AT + 1:.0f}"}
FAILED = {**DONE, "ActiveState": "failed", "Result": "exit-code", "ExecMainStatus": "2", "StatusText": "exited 7"}


def state(timer: dict[str, str], service: dict[str, str]) -> JobState:
    told = {"agent-job@job.timer": timer, "agent-job@job.service": service}
    return read(["job"], told, NOW, MONOTONIC)["job"]


def test_a_job_that_waits_for_its_first_time() -> None:
    found = state({**WAITING, "LastTriggerUSec": ""}, NEVER)
    assert found == JobState("waiting", 1_795_726_800.0, None, None)


def test_a_job_that_ran() -> None:
    assert state(WAITING, DONE) == JobState("waiting", 1_795_726_800.0, AT, "exited 0")


def test_a_job_that_ran_before_the_boot_is_known_by_its_timer() -> None:
    assert state(WAITING, NEVER) == JobState("waiting", 1_795_726_800.0, AT, None)


def test_a_period_counts_by_the_clock_that_runs_since_the_boot() -> None:
    timer = {**WAITING, "NextElapseUSecRealtime": "", "NextElapseUSecMonotonic": "1h 50min 55.341930s"}
    assert state(timer, DONE).next_run == pytest.approx(NOW - MONOTONIC + 6655.341930)


@pytest.mark.parametrize("active", ["activating", "deactivating"])
def test_a_job_that_runs_has_neither_ended_nor_a_next_time(active: str) -> None:
    running = {**DONE, "ActiveState": active, "ExecMainExitTimestamp": "", "ExecMainCode": "0"}
    found = state({**WAITING, "SubState": "running"}, running)
    assert found == JobState("running" if active == "activating" else "stopping", None, AT, None)


def test_a_timer_that_is_not_active_starts_nothing() -> None:
    assert state(DEAD, DONE) == JobState("stopped", None, AT, "exited 0", active=False)
    assert not state(DEAD, {**DONE, "ActiveState": "activating"}).active
    assert state({**WAITING, "SubState": "elapsed", "NextElapseUSecRealtime": ""}, DONE).next_run is None


@pytest.mark.parametrize(
    ("service", "told"),
    [
        (FAILED, "exited 7"),
        ({**FAILED, "StatusText": ""}, "exited 2"),
        ({**FAILED, "ExecMainStatus": "1", "StatusText": "exited 1: it is wrong"}, "exited 1: it is wrong"),
        ({**FAILED, "StatusText": "ran too long; killed by SIGTERM"}, "exited 2: ran too long; killed by SIGTERM"),
        ({**FAILED, "Result": "signal", "ExecMainCode": "2", "ExecMainStatus": "9"}, "killed by SIGKILL"),
        ({**FAILED, "Result": "core-dump", "ExecMainCode": "3", "ExecMainStatus": "11"}, "killed by SIGSEGV"),
        ({**FAILED, "Result": "signal", "ExecMainCode": "2", "ExecMainStatus": "40"}, "killed by signal 40"),
        ({**FAILED, "Result": "timeout"}, "ended by systemd: it took longer than its unit allows"),
        ({**FAILED, "Result": "oom-kill", "ExecMainCode": "2", "ExecMainStatus": "9"}, "out of memory"),
    ],
)
def test_how_a_run_ended_is_told_as_the_agent_tells_it(service: dict[str, str], told: str) -> None:
    assert state(WAITING, service).last_exit == told


@given(st.dictionaries(st.sampled_from(PROPERTIES), st.text(max_size=30)))
def test_whatever_is_told_is_read(told: dict[str, str]) -> None:
    found = state(told, told)
    assert found.state in ("waiting", "running", "stopping", "stopped")
    assert found.next_run is None or found.next_run > 0


def test_about_no_job_nobody_is_asked() -> None:
    assert timer_state.ask([]) == {}
