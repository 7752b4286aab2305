"""``reload``: what changed and why, or all that is wrong."""

from __future__ import annotations

import json

import msgspec

from agent.errors import DeclarationError, Problem
from agent.supervisor.report import HandoverReport, ReloadReport
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
    changes = {"started", "stopped", "restarted", "updated", "added", "removed", "failed", "stuck", "unchanged"}
    assert answer.keys() == {*changes, "reasons", "notes", "handover", "timers_out_of_sync"}


def test_what_does_not_run_after_its_change_is_told_with_the_reason(agentctl: Agentctl, served: Served) -> None:
    served.reloaded = ReloadReport(
        started=["on"],
        stopped=["off"],
        updated=["nightly"],
        added=["spare"],
        removed=["gone"],
        reasons={"on": ["enabled"], "off": ["enabled"], "nightly": ["command"]},
        notes={"off": "disabled", "nightly": "waits until 2026-11-27 03:00:00", "spare": "disabled"},
    )
    assert agentctl("reload").stdout.splitlines() == [
        "off: stopped (disabled)",
        "gone: removed",
        "nightly: updated (command; waits until 2026-11-27 03:00:00)",
        "spare: added (disabled)",
        "on: started (enabled)",
        "0 services unchanged",
    ]


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


# -- another version in between ---------------------------------------------------------------------------------------

FOLLOWED = HandoverReport(
    id="7",
    state="done",
    message="version 0.1.0 handed over to 0.2.0; for 200 ms nobody supervised",
    reload=ReloadReport(started=["web"], unchanged=2),
)


def test_a_version_that_follows_is_waited_for_and_tells_what_it_changed(agentctl: Agentctl, served: Served) -> None:
    served.reloaded = ReloadReport(handover="7")
    served.handovers = [HandoverReport(id="7", state="begun"), FOLLOWED]
    done = agentctl("reload")
    assert (done.returncode, done.stderr) == (0, f"{FOLLOWED.message}\n")
    assert done.stdout.splitlines() == ["web: started", "2 services unchanged"]
    answer = json.loads(agentctl("reload", "--json").stdout)
    assert (answer["started"], answer["unchanged"], answer["handover"]) == (["web"], 2, None)


def test_what_does_not_end_under_the_version_that_follows_is_a_failure_as_ever(
    agentctl: Agentctl, served: Served
) -> None:
    served.reloaded = ReloadReport(handover="7")
    stuck = ReloadReport(stuck=["hard"])
    served.handovers = [msgspec.structs.replace(FOLLOWED, reload=stuck)]
    done = agentctl("reload")
    assert done.returncode == 2
    assert done.stdout.startswith("hard: as it was: its processes do not end")


def test_a_version_that_could_not_follow_or_refuses_the_declaration_is_a_failure_while_running(
    agentctl: Agentctl, served: Served
) -> None:
    served.reloaded = ReloadReport(handover="7")
    served.handovers = [HandoverReport(id="7", state="failed", message="0.1.0 runs on: no")]
    done = agentctl("reload")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "agentctl: 0.1.0 runs on: no\n")
    served.handovers = [msgspec.structs.replace(FOLLOWED, reload=None, refused="env.toml:3: no")]
    done = agentctl("reload")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"agentctl: {FOLLOWED.message}; it refuses the declaration: env.toml:3: no\n"
