"""``reload``: what changed and why, or all that is wrong."""

from __future__ import annotations

import json

from agent.errors import DeclarationError, Problem
from agent.supervisor.report import ReloadReport
from tests.cli.harness import Agentctl
from tests.cli.served import Served


def test_each_change_is_a_line_with_the_settings_that_differ(agentctl: Agentctl, served: Served) -> None:
    served.reloaded = ReloadReport(
        started=["web"],
        stopped=["old"],
        restarted=["api"],
        updated=["scan"],
        unchanged=7,
        reasons={"api": ["command", "user"], "scan": ["rate"]},
    )
    done = agentctl("reload")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "old: stopped",
        "api: restarted (command, user)",
        "scan: updated (rate)",
        "web: started",
        "7 services unchanged",
    ]
    answer = json.loads(agentctl("reload", "--json").stdout)
    changes = {"started", "stopped", "restarted", "updated", "failed", "stuck", "unchanged", "reasons"}
    assert answer.keys() == {*changes, "handover", "timers_out_of_sync"}


def test_what_was_started_and_failed_is_told_with_the_reason(agentctl: Agentctl, served: Served) -> None:
    served.reloaded = ReloadReport(started=["api", "web"], failed={"api": "cannot run as nobody"})
    done = agentctl("reload")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "api: started",
        "web: started",
        "api: failed: cannot run as nobody",
        "0 services unchanged",
    ]


def test_timers_that_are_not_as_declared_any_more_are_named_with_what_mends_it(
    agentctl: Agentctl, served: Served
) -> None:
    served.reloaded = ReloadReport(updated=["backup"], reasons={"backup": ["timer"]}, timers_out_of_sync=["backup"])
    done = agentctl("reload")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "backup: updated (timer)",
        "0 services unchanged",
        "timers are not as declared: backup; run `agentctl timers sync`",
    ]


def test_a_wrong_declaration_is_shown_in_full_and_exits_1(agentctl: Agentctl, served: Served) -> None:
    problems = [Problem("/srv/key/env.toml", 3, "service.a", "wrong"), Problem("/srv/key/env.toml", 9, "", "worse")]
    served.reloaded = DeclarationError(problems)
    done = agentctl("reload")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == ["/srv/key/env.toml:3: service.a: wrong", "/srv/key/env.toml:9: worse"]
