"""What is told about a service is so."""

from __future__ import annotations

from agent.supervisor.lifecycle import Phase
from tests.supervisor.conftest import Host, until


def test_a_service_that_runs_is_told_with_its_process(host: Host) -> None:
    host.supervise('[service.calm]\nkind = "command"\ncommand = ["/bin/sleep", "86781"]\n')
    report = host.report("calm")
    assert (report.state, report.ready, report.health, report.restarts) == ("running", True, "unknown", 0)
    assert report.pid == host.supervisor.unit("calm").pid
    assert report.rss_bytes and report.processes == 1 and report.threads == 1
    assert (report.heartbeat_age, report.next_run, report.last_exit, report.message) == (None, None, None, "")


def test_one_whose_turn_has_not_come_is_told_to_be_about_to_start(host: Host) -> None:
    host.supervise_later('[service.calm]\nkind = "command"\ncommand = ["/bin/sleep", "86784"]\n')
    assert (host.report("calm").state, host.report("calm").message) == ("stopped", "its turn to start is to come")


def test_one_that_is_down_is_told_without_one(host: Host) -> None:
    host.supervise('[service.calm]\nkind = "command"\ncommand = ["/bin/sleep", "86782"]\nenabled = false\n')
    report = host.report("calm")
    assert (report.state, report.pid, report.rss_bytes, report.enabled) == ("stopped", None, None, False)
    assert report.message == "disabled in the declaration"


def test_a_worker_that_is_gone_has_no_pid_though_what_it_left_is_not(host: Host) -> None:
    host.supervise("""
[service.leaving]
kind = "command"
command = ["/bin/sh", "-c", "(trap '' TERM; sleep 86783; :) & trap 'exit 0' TERM; wait"]
stop_timeout = "1h"
""")
    unit = host.supervisor.unit("leaving")
    until(host.loop, lambda: unit.run is not None and len(unit.run.pids()) == 3)
    host.act("stop", "leaving", wait=False)
    until(host.loop, lambda: unit.state.exited)
    report = host.report("leaving")
    assert (report.state, report.pid, report.last_exit) == ("stopping", None, "exited 0")
    assert unit.run is not None
    unit.run.kill()
    host.until("leaving", Phase.STOPPED)


def test_a_failure_is_told_with_its_reason_and_last_words(host: Host) -> None:
    host.supervise("""
[service.port]
kind = "command"
command = ["/bin/sh", "-c", "echo cannot bind >&2; exit 1"]
""")
    host.until("port", Phase.FAILED)
    report = host.report("port")
    assert (report.health, report.last_exit) == ("unhealthy", "exited 1")
    assert report.message == "exited 1 (configuration error: not retried): cannot bind"


def test_the_last_words_of_an_earlier_run_are_not_put_down_to_one_that_never_began(host: Host) -> None:
    host.supervise("""
[service.port]
kind = "command"
command = ["/bin/sh", "-c", "echo cannot bind >&2; exit 1"]
""")
    host.until("port", Phase.FAILED)
    host.paths.config("port").unlink()
    host.paths.config("port").mkdir()
    outcome = host.act("start", "port")
    assert not outcome.ok
    assert "cannot bind" not in host.report("port").message
    host.paths.config("port").rmdir()


def test_health_follows_what_proves_it(host: Host) -> None:
    host.supervise("""
[service.pulse]
kind = "command"
command = ["/bin/sh", "-c", "while :; do touch $$SERVICE_HEARTBEAT_FILE; sleep 0.1; done"]
heartbeat = { interval = "200ms", timeout = "2s" }
ready = "heartbeat"

[service.job]
kind = "command"
command = ["/bin/true"]
every = "1h"

[service.bad]
kind = "command"
command = ["/bin/false"]
every = "1h"
""")
    for name in ("job", "bad"):
        until(host.loop, lambda name=name: host.report(name).health != "unknown")  # type: ignore[misc]  # bound at once
    assert [host.report(name).health for name in ("pulse", "job", "bad")] == ["healthy", "healthy", "unhealthy"]
    age = host.report("pulse").heartbeat_age
    assert age is not None and age < 2
    assert host.report("job").message.startswith("next ")
    assert host.report("bad").message.startswith("last run failed: exited 1")
