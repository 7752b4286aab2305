"""A plan made true: only what has to is replaced, and what cannot be ended is told."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from agent.supervisor import engine, transitions
from agent.supervisor.lifecycle import Phase
from tests.harness import commanded
from tests.supervisor.conftest import Host, until

BASE = """
[service.one]
kind = "command"
command = ["/bin/sleep", "86771"]

[service.two]
kind = "command"
command = ["/bin/sleep", "86772"]
"""


def told(report: Any) -> tuple[list[str], ...]:
    return report.started, report.stopped, report.restarted, report.updated


@pytest.fixture
def host(host: Host) -> Host:
    host.supervise(BASE)
    return host


def test_services_come_go_change_and_stay(host: Host) -> None:
    two = host.supervisor.unit("two").pid
    new = BASE.replace("86771", "86773").replace("[service.two]\n", '[service.two]\nstop_timeout = "3s"\n')
    report = host.reload(new + '[service.three]\nkind = "command"\ncommand = ["/bin/sleep", "86774"]\n')
    assert told(report) == (["three"], [], ["one"], ["two"])
    assert report.reasons == {"one": ["command"], "two": ["stop_timeout"]}
    assert host.supervisor.unit("two").pid == two
    assert not commanded("sleep 86771")
    report = host.reload(BASE)
    assert told(report) == ([], ["three"], ["one"], ["two"])
    assert host.reload(BASE).unchanged == 2


def test_a_live_change_is_in_force_and_told_to_the_worker(host: Host) -> None:
    host.reload(BASE.replace("[service.two]\n", '[service.two]\nstop_signal = "INT"\n'))
    assert b'"stop_signal":2' in host.paths.config("two").read_bytes()
    host.act("stop", "two")
    assert host.report("two").last_exit == "killed by SIGINT"


def test_what_does_not_come_up_is_told_with_the_reason(host: Host) -> None:
    missing = '[service.three]\nkind = "command"\ncommand = ["/nowhere/three"]\n'
    again = '[service.four]\nkind = "command"\ncommand = ["/bin/false"]\n'
    report = host.reload(BASE + missing + again)
    assert told(report) == (["four", "three"], [], [], [])
    assert report.failed == {
        "four": host.report("four").message,
        "three": "cannot start /nowhere/three: no such program (configuration error: not retried)",
    }
    assert host.reload(BASE).failed == {}


def test_what_was_stopped_by_hand_stays_down_under_its_new_declaration(host: Host) -> None:
    host.act("stop", "one")
    report = host.reload(BASE.replace("86771", "86775"))
    assert (told(report), report.notes) == (([], [], [], ["one"]), {"one": "stopped by hand"})
    assert (host.report("one").state, host.report("one").message) == ("stopped", "stopped by hand")
    assert host.act("start", "one").ok
    assert commanded("sleep 86775")


def test_disabling_stops_and_enabling_starts(host: Host) -> None:
    disabled = BASE.replace("[service.one]\n", "[service.one]\nenabled = false\n")
    report = host.reload(disabled)
    assert (told(report), report.reasons) == (([], ["one"], [], []), {"one": ["enabled"]})
    assert report.notes == {"one": "disabled"}
    assert host.report("one").message == "disabled in the declaration"
    assert not commanded("sleep 86771")
    report = host.reload(BASE)
    assert (told(report), report.notes) == ((["one"], [], [], []), {})
    assert host.report("one").state == "running"


JOBS = """
[service.off]
kind = "command"
command = ["/bin/true"]
enabled = false

[service.yearly]
kind = "command"
command = ["/bin/true"]
oncalendar = "2099-01-02 03:04"
"""


def test_what_there_was_nothing_to_start_of_is_added_with_the_reason_and_removed_again(host: Host) -> None:
    report = host.reload(BASE + JOBS)
    assert (told(report), report.added) == (([], [], [], []), ["off", "yearly"])
    assert report.notes == {"off": "disabled", "yearly": "waits until 2099-01-02 03:04:00"}
    report = host.reload(BASE + JOBS.replace("/bin/true", "/bin/false"))
    assert (told(report), report.added) == (([], [], [], ["off", "yearly"]), [])
    assert set(report.notes) == {"off", "yearly"}
    report = host.reload(BASE)
    assert (told(report), report.removed, report.notes) == (([], [], [], []), ["off", "yearly"], {})


def test_a_job_of_systemds_is_added_and_said_to_wait_for_systemd(host: Host) -> None:
    report = host.reload('[agent]\nscheduler = "systemd"\n' + BASE + JOBS)
    assert (report.started, report.added) == ([], ["off", "yearly"])
    assert report.notes == {"off": "disabled", "yearly": "waits for systemd"}


def test_what_ended_well_and_is_started_again_has_not_failed(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    # A reload waits for the slow one; by then the other has come to its second end, and to its third only much later.
    monkeypatch.setattr(transitions, "BACKOFF_BASE", transitions.BACKOFF_LIMIT)
    brief = '[service.brief]\nkind = "command"\ncommand = ["/bin/true"]\n'
    slow = '[service.slow]\nkind = "command"\ncommand = ["/bin/sleep", "86777"]\nready = "notify"\n'
    report = host.reload(BASE + brief + slow + 'start_timeout = "300ms"\nmax_restarts = 0\n')
    assert (report.started, set(report.failed)) == (["brief", "slow"], {"slow"})
    assert report.notes["brief"].startswith("exited 0; started again in ")


def test_what_failed_is_tried_again_when_it_is_declared_anew(host: Host) -> None:
    broken = BASE.replace('["/bin/sleep", "86771"]', '["/nowhere/at/all"]')
    host.reload(broken)
    assert host.report("one").state == "failed"
    report = host.reload(BASE)
    assert host.report("one").state == "running"
    assert (report.started, report.restarted, report.reasons) == (["one"], [], {"one": ["command"]})


def test_another_server_name_replaces_every_worker(host: Host) -> None:
    pids = {report.pid for report in host.supervisor.reports()}
    report = host.reload('[agent]\nserver = "elsewhere"\n' + BASE)
    assert report.restarted == ["one", "two"]
    assert report.reasons == {"one": ["agent.server"], "two": ["agent.server"]}
    assert not pids & {report.pid for report in host.supervisor.reports()}


def test_what_does_not_end_is_told_and_tried_again_by_the_next_reload(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaf = """
[service.deaf]
kind = "command"
command = ["/bin/sh", "-c", "trap '' TERM; while :; do sleep 86776; done"]
stop_timeout = "1h"
"""
    host.reload(BASE + deaf)
    until(host.loop, lambda: commanded("sleep 86776"))
    # As if SIGKILL did nothing: it is not sent within the time that a reload waits.
    monkeypatch.setattr(engine, "UNKILLABLE_AFTER", 0.1 - 3600)
    report = host.reload(BASE)
    assert (report.stopped, report.stuck, report.unchanged) == ([], ["deaf"], 2)
    unit = host.supervisor.unit("deaf")
    assert unit.phase is Phase.STOPPING
    assert unit.run is not None
    unit.run.signal(signal.SIGKILL)
    report = host.reload(BASE)
    # It may have been gone already when its turn came.
    assert (report.stopped + report.removed, report.stuck) == (["deaf"], [])
