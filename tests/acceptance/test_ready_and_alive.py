"""When a service counts as ready, and when as hung: by what it says and touches, at the right moment."""

from __future__ import annotations

import time

from tests.harness import Agent, commanded


def test_the_first_touch_of_a_heartbeat_file_makes_ready_however_long_the_interval_is(agent: Agent) -> None:
    agent.declare("""
[service.pulse]
kind = "command"
command = ["/bin/sh", "-c", "sleep 0.3; touch $$SERVICE_HEARTBEAT_FILE; exec sleep 86721"]
heartbeat = { interval = "30s", timeout = "90s" }
ready = "heartbeat"
""")
    begun = time.monotonic()
    agent.start()
    assert time.monotonic() - begun < 10
    report = agent.service("pulse")
    assert (report["state"], report["health"]) == ("running", "healthy")


def test_until_it_is_ready_a_service_need_not_beat(agent: Agent) -> None:
    agent.declare("""
[service.slow]
kind = "command"
command = ["/bin/sh", "-c", '''
sleep 1.2; systemd-notify --ready
while :; do touch $$SERVICE_HEARTBEAT_FILE; sleep 0.1; done
''']
heartbeat = { interval = "200ms", timeout = "600ms" }
ready = "notify"
""")
    agent.start()
    report = agent.service("slow")
    assert (report["state"], report["restarts"]) == ("running", 0)


def test_what_never_beats_is_not_ready_within_its_start_timeout(agent: Agent) -> None:
    agent.declare("""
[service.mute]
kind = "command"
command = ["/bin/sleep", "86722"]
heartbeat = { interval = "100ms", timeout = "300ms" }
ready = "heartbeat"
start_timeout = "1s"
restart = "no"
""")
    agent.start()
    report = agent.until("mute", state="failed")
    assert report["message"].startswith("not ready within 1 s")


def test_a_heartbeat_is_found_stale_when_it_is_and_not_an_interval_later(agent: Agent) -> None:
    agent.declare("""
[service.pulse]
kind = "command"
command = ["/bin/sh", "-c", "touch $$SERVICE_HEARTBEAT_FILE; exec sleep 86723"]
heartbeat = { interval = "1s", timeout = "2100ms" }
ready = "heartbeat"
restart = "no"
""")
    agent.start()
    ready = agent.event("ready", "pulse")["time"]
    assert 1.9 < agent.event("hung", "pulse")["time"] - ready < 2.7
    assert agent.until("pulse", state="failed")["message"].startswith("heartbeat stale: 2.")


def test_the_age_of_a_heartbeat_is_the_age_of_its_file(agent: Agent) -> None:
    agent.declare("""
[service.pulse]
kind = "command"
command = ["/bin/sh", "-c", "sleep 0.2; touch $$SERVICE_HEARTBEAT_FILE; exec sleep 86724"]
heartbeat = { interval = "30s", timeout = "90s" }
""")
    agent.start()
    file = agent.prefix / "tmp" / "pulse.heartbeat"
    first = file.stat().st_mtime
    while (touched := file.stat().st_mtime) == first:
        time.sleep(0.01)
    time.sleep(0.5)
    assert abs(agent.service("pulse")["heartbeat_age"] - (time.time() - touched)) < 0.2


def test_a_program_that_asks_for_more_time_never_gets_less(agent: Agent) -> None:
    agent.declare("""
[service.modest]
kind = "command"
command = ["/bin/sh", "-c", '''
systemd-notify EXTEND_TIMEOUT_USEC=1000; sleep 0.5; systemd-notify --ready; exec sleep 86725
''']
ready = "notify"
start_timeout = "20s"

[service.lavish]
kind = "command"
command = ["/bin/sh", "-c", '''
systemd-notify EXTEND_TIMEOUT_USEC=20000000; sleep 1.5; systemd-notify --ready; exec sleep 86725
''']
ready = "notify"
start_timeout = "1s"
""")
    agent.start()
    for name in ("modest", "lavish"):
        report = agent.service(name)
        assert (report["state"], report["restarts"]) == ("running", 0)


def test_a_shell_that_wraps_the_program_which_says_ready_is_ready(agent: Agent) -> None:
    agent.declare("""
[service.wrapped]
kind = "command"
command = ["/bin/sh", "-c", "(systemd-notify --ready --status=wrapped; sleep 86726) & wait"]
ready = "notify"
""")
    agent.start()
    agent.until("wrapped", state="running", message="wrapped")
    assert agent.act("stop", "wrapped")["ok"]
    assert not commanded("sleep 86726")
