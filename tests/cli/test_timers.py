"""``timers``: every job with its next and its last run."""

from __future__ import annotations

import json
import re

from agent.supervisor.report import TimerReport
from tests.cli.harness import Agentctl
from tests.cli.served import Served


def test_every_job_is_a_line(agentctl: Agentctl, served: Served) -> None:
    served.jobs = [
        TimerReport(
            name="nightly",
            schedule="*-*-* 02:30:00",
            next_run=4_000_000_000.0,
            last_run=1_700_000_000.0,
            last_exit="exit code 2",
        ),
        TimerReport(name="done", schedule="2020-01-01", next_run=None, state="completed"),
    ]
    heads, nightly, done = agentctl("timers").stdout.splitlines()
    assert heads.split() == ["NAME", "STATE", "NEXT", "RUN", "LEFT", "LAST", "RUN", "LAST", "EXIT", "SCHEDULE"]
    assert re.match(
        r"nightly +waiting +2096-10-02 07:06:40 +\d+d( \d+h)? +2023-11-14 22:13:20 +exit code 2 +\*-\*-\* 02:30:00$",
        nightly,
    )
    assert re.match(r"done +completed +- +- +- +- +2020-01-01$", done)
    assert [timer["name"] for timer in json.loads(agentctl("timers", "--json").stdout)["timers"]] == ["nightly", "done"]


def test_without_jobs_it_says_so(agentctl: Agentctl, served: Served) -> None:
    assert agentctl("timers").stdout == "no jobs are declared\n"
