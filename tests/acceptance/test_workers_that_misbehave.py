"""Workers that are killed, stopped, deaf, escaped, hung or confused: afterwards each service runs, or says why not."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from tests.harness import Agent, alive, commanded, marked, wait_gone, wait_until

SLEEPER = """
[service.sleeper]
kind = "command"
command = ["/bin/sleep", "86401"]
max_restarts = 1000
"""


def test_a_killed_worker_is_replaced_by_exactly_one(agent: Agent) -> None:
    agent.declare(SLEEPER)
    agent.start()
    first = agent.service("sleeper")["pid"]
    os.kill(first, signal.SIGKILL)
    agent.event("restarting", "sleeper")
    report = agent.until("sleeper", state="running")
    assert report["pid"] != first
    assert report["restarts"] == 1
    assert report["last_exit"] == "killed by SIGKILL"
    assert (agent.prefix / "run" / "sleeper.pid").read_text() == f"{report['pid']}\n"
    assert len([pid for pid in marked(agent.prefix) if pid != agent.pid]) == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGSEGV])
def test_a_storm_of_signals_ends_with_one_running_worker(agent: Agent, number: int) -> None:
    agent.declare(SLEEPER + 'restart = "always"\nrestart_window = "1s"\n')
    agent.start()
    seen: set[int] = set()
    for _ in range(6):
        pid = agent.until("sleeper", state="running")["pid"]
        assert pid not in seen
        seen.add(pid)
        os.kill(pid, number)
        wait_gone(pid)
        agent.act("start", "sleeper")
    report = agent.until("sleeper", state="running")
    assert [pid for pid in marked(agent.prefix) if pid != agent.pid] == [report["pid"]]


def test_a_worker_that_is_stopped_by_a_signal_is_replaced_once_its_heartbeat_is_stale(agent: Agent) -> None:
    agent.declare("""
[service.pulse]
kind = "command"
command = ["/bin/sh", "-c", "while :; do touch $$SERVICE_HEARTBEAT_FILE; sleep 0.2; done"]
heartbeat = { interval = "200ms", timeout = "1s" }
ready = "heartbeat"
stop_timeout = "1s"
""")
    agent.start()
    first = agent.until("pulse", state="running", health="healthy")["pid"]
    os.kill(first, signal.SIGSTOP)
    event = agent.event("hung", "pulse")
    assert event["message"].startswith("heartbeat stale: ")
    assert event["message"].endswith("timeout 1 s")
    report = agent.until("pulse", state="running")
    assert report["pid"] != first
    assert not alive(first)


def test_a_worker_that_ignores_sigterm_is_killed_after_its_stop_timeout(
    agent: Agent, wrapper: tuple[str, ...], containment: str
) -> None:
    agent.declare("""
[service.deaf]
kind = "command"
command = ["/bin/sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 86402; done"]
stop_timeout = "500ms"
""")
    agent.start(wrapper=wrapper)
    assert agent.status()["agent"]["containment"] == containment
    wait_until(lambda: "deaf" in agent.log("deaf"))
    outcome = agent.act("stop", "deaf")
    assert (outcome["ok"], outcome["state"]) == (True, "stopped")
    assert "killed" in [event["kind"] for event in agent.events(service="deaf")]
    assert not commanded("sleep 86402")


ESCAPES = {
    "setsid": "setsid sleep 86403 & exec sleep 86403",
    "double fork": "(setsid sh -c 'sleep 86403 & sleep 86403 &' &) ; exec sleep 86403",
    "without an environment": "(setsid env -i sleep 86403 >/dev/null 2>&1 &) ; exec sleep 86403",
    "without an environment, pipe held": "(setsid env -i sh -c 'setsid sleep 86403 &' &) ; exec sleep 86403",
}


@pytest.mark.parametrize("escape", ESCAPES)
def test_nothing_that_a_service_started_survives_its_stop(
    agent: Agent, wrapper: tuple[str, ...], containment: str, escape: str
) -> None:
    agent.declare(f"""
[service.runaway]
kind = "command"
command = ["/bin/sh", "-c", '''{ESCAPES[escape]}''']
stop_timeout = "1s"

[service.bystander]
kind = "command"
command = ["/bin/sleep", "86404"]
""")
    agent.start(wrapper=wrapper)
    expected = 3 if escape == "double fork" else 2
    wait_until(lambda: len(commanded("sleep 86403")) >= expected)
    bystander = agent.service("bystander")["pid"]
    if (escape, containment) == ("without an environment", "sweep"):
        # It shed session, mark and pipe: no sign tells whose it was, so it goes when the agent goes, and not before.
        assert agent.act("stop", "runaway")["ok"]
        assert agent.stop() == 0
        assert not commanded("sleep 86403")
        return
    assert agent.act("stop", "runaway")["ok"]
    assert not commanded("sleep 86403")
    assert agent.service("bystander")["pid"] == bystander


def test_what_a_crashed_worker_leaves_behind_is_gone_before_its_successor_starts(
    agent: Agent, wrapper: tuple[str, ...]
) -> None:
    agent.declare("""
[service.litter]
kind = "command"
command = ["/bin/sh", "-c", "setsid sleep 86405 & sleep 86406; exit 2"]
max_restarts = 100
""")
    agent.start(wrapper=wrapper)
    for _ in range(4):
        wait_until(lambda: len(commanded("sleep 86405")) == 1 and len(commanded("sleep 86406")) == 1)
        old = commanded("sleep 86405")[0]
        os.kill(commanded("sleep 86406")[0], signal.SIGKILL)
        wait_gone(old)
    agent.act("stop", "litter")
    assert not commanded("sleep 86405")


def test_exit_code_1_is_final_and_2_is_retried(agent: Agent) -> None:
    agent.declare("""
[service.misconfigured]
kind = "command"
command = ["/bin/sh", "-c", "exit 1"]

[service.unlucky]
kind = "command"
command = ["/bin/sh", "-c", "exit 2"]
max_restarts = 2
""")
    agent.start()
    report = agent.until("misconfigured", state="failed")
    assert report["restarts"] == 0
    assert report["message"] == "exited 1 (configuration error: not retried)"
    report = agent.until("unlucky", state="failed")
    assert report["restarts"] == 2
    assert report["message"] == "exited 2; gave up after 2 restarts within 300 s"
    assert agent.status()["agent"]["state"] == "degraded"


def test_a_program_that_does_not_exist_fails_with_the_reason_and_harms_nobody(agent: Agent) -> None:
    agent.declare(SLEEPER + '[service.absent]\nkind = "command"\ncommand = ["/nowhere/at/all"]\n')
    agent.start()
    report = agent.until("absent", state="failed")
    assert "/nowhere/at/all" in report["message"]
    assert agent.service("sleeper")["state"] == "running"


def test_the_last_words_of_a_dying_worker_are_in_its_log(agent: Agent) -> None:
    agent.declare("""
[service.brief]
kind = "command"
command = ["/bin/sh", "-c", "echo first; echo 'the last words' >&2; kill -9 $$$$"]
restart = "no"
""")
    agent.start()
    agent.until("brief", state="failed")
    lines = agent.log("brief").splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == ["first", "the last words"]


def test_a_worker_that_floods_its_log_is_not_blocked_and_what_is_dropped_is_counted(agent: Agent) -> None:
    agent.declare("""
[service.flood]
kind = "command"
command = ["/bin/sh", "-c", "yes a line of a flood | head -c 200000000; echo the end; exec sleep 86407"]
log = { size = "1MiB", keep = 2 }

[service.calm]
kind = "command"
command = ["/bin/sleep", "86408"]
""")
    agent.start()
    # While it floods, the agent supervises and answers.
    calm = agent.service("calm")["pid"]
    os.kill(calm, signal.SIGKILL)
    wait_until(lambda: agent.service("calm")["pid"] not in (calm, None))
    told = False

    def over() -> bool:
        # Where the machine falls behind at the end there is no flood any more, and what told of it is rotated away.
        nonlocal told
        ended = "the end" in agent.log("flood")
        for path in (agent.prefix / "log").glob("flood.log*"):
            with suppress(FileNotFoundError):
                told = told or b"[agent] dropped" in path.read_bytes()
        return ended

    wait_until(over, patience=40)
    dropped = agent.service("flood")["log_dropped_bytes"]
    assert dropped > 0
    assert told
    sizes = [path.stat().st_size for path in (agent.prefix / "log").glob("flood.log*")]
    assert len(sizes) <= 3
    assert max(sizes) <= 1024 * 1024 + 64 * 1024


def test_the_environment_of_a_child_is_an_allow_list(agent: Agent) -> None:
    agent.declare("""
[service.env]
kind = "command"
command = ["/usr/bin/env"]
restart = "no"
environment = { COLOUR = "green" }
""")
    agent.start(
        environ={
            "WATCHDOG_USEC": "60000000",
            "WATCHDOG_PID": "1",
            "LISTEN_FDS": "3",
            "LISTEN_PID": "1",
            "JOURNAL_STREAM": "1:2",
            "AWS_SECRET_ACCESS_KEY": "hidden",
            "LD_LIBRARY_PATH": "/bundle",
        }
    )
    agent.until("env", state="completed")
    found = dict(line.split(" ", 1)[1].split("=", 1) for line in agent.log("env").splitlines())
    assert found["COLOUR"] == "green"
    assert found["SERVICE_NAME"] == "env"
    assert found["SERVICE_FLAVOR"] == "command"
    assert found["SERVICE_IMAGE"] == "/usr/bin/env"
    assert found["NOTIFY_SOCKET"] == str(agent.prefix / "run" / "env.notify")
    assert Path(found["SERVICE_CONFIG"]).is_file()
    allowed = {"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TERM", "AGENT_MARK", "COLOUR"}
    unexpected = {name for name in found if name not in allowed and not name.startswith(("LC_", "SERVICE_"))}
    assert unexpected == {"NOTIFY_SOCKET"}


def test_a_service_runs_as_its_user_with_its_secrets(agent: Agent) -> None:
    secrets = agent.prefix / "key" / "secrets"
    secrets.mkdir(mode=0o700)
    (secrets / "db_password").write_text("swordfish")
    (secrets / "db_password").chmod(0o600)
    agent.declare("""
[service.api]
kind = "command"
command = ["/bin/sh", "-c", "id -un; cat $$DB_PASSWORD_FILE; echo; touch $$SERVICE_DATA/mine"]
user = "nobody"
secrets = ["db_password"]
restart = "no"
""")
    for directory in (agent.prefix, *agent.prefix.parents):
        if directory.stat().st_uid == os.getuid() and directory != Path("/"):
            directory.chmod(directory.stat().st_mode | 0o011)
    agent.start()
    agent.until("api", state="completed")
    assert [line.split(" ", 1)[1] for line in agent.log("api").splitlines()] == ["nobody", "swordfish"]
    for pid_file in Path("/proc").glob("[0-9]*/cmdline"):
        assert b"swordfish" not in pid_file.read_bytes()
