"""The agent itself: started twice, killed, started again, told to stop, reloaded."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.acceptance.versions import Versions
from tests.harness import Agent, alive, commanded, marked, notify_socket, wait_until
from tests.installation.image import mounted

PAIR = """
[service.one]
kind = "command"
command = ["/bin/sleep", "86411"]

[service.two]
kind = "command"
command = ["/bin/sh", "-c", "setsid sleep 86412 & exec sleep 86412"]
"""


def test_a_second_agent_on_the_same_prefix_refuses_and_says_who_holds_it(agent: Agent) -> None:
    agent.declare(PAIR)
    agent.start()
    refused = agent.ctl("run")
    assert refused.returncode == 2
    assert f"process {agent.pid} holds it" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert agent.status()["agent"]["pid"] == agent.pid


def test_after_kill_9_and_a_new_start_there_is_one_worker_per_service_and_none_of_the_old(
    agent: Agent, wrapper: tuple[str, ...]
) -> None:
    agent.declare(PAIR)
    agent.start(wrapper=wrapper)
    wait_until(lambda: len(commanded("sleep 86412")) == 2)
    old = [pid for pid in marked(agent.prefix) if pid != agent.pid]
    assert len(old) == 3
    agent.kill()
    assert all(alive(pid) for pid in old)
    agent.start(wrapper=wrapper)
    assert not any(alive(pid) for pid in old)
    wait_until(lambda: len(commanded("sleep 86412")) == 2)
    new = [pid for pid in marked(agent.prefix) if pid != agent.pid]
    assert len(new) == 3
    assert len(commanded("sleep 86411")) == 1
    told = [event["message"] for event in agent.events() if event["kind"] == "predecessor_ended"]
    assert any("one" in message for message in told)


def test_an_escaped_process_of_a_killed_agent_is_recognised_by_its_mark_alone(agent: Agent) -> None:
    agent.declare("""
[service.runaway]
kind = "command"
command = ["/bin/sh", "-c", "(setsid sleep 86413 >/dev/null 2>&1 &) ; exec sleep 86413"]
""")
    sweeping = ("unshare", "--mount", "sh", "-c", 'umount -R -l /sys/fs/cgroup && exec "$@"', "sh")
    agent.start(wrapper=sweeping)
    wait_until(lambda: len(commanded("sleep 86413")) == 2)
    worker = agent.service("runaway")["pid"]
    (escaped,) = [pid for pid in commanded("sleep 86413") if pid != worker]
    agent.kill()
    os.kill(worker, signal.SIGKILL)
    agent.start(wrapper=sweeping)
    assert not alive(escaped)


def test_a_recorded_pid_that_now_belongs_to_somebody_else_is_never_signalled(agent: Agent) -> None:
    agent.declare(PAIR)
    agent.start()
    agent.kill()
    record = agent.prefix / "run" / "agent.generation.json"
    began = max(int(ticks) for ticks in re.findall(rb'"start_time":(\d+)', record.read_bytes()))
    # Numbers are not given away again within the hundredth of a second that start times are told in.
    wait_until(lambda: time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK") > began + 1)
    stranger = os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "86414")
    try:
        # As if the worker had died and the kernel had given its number to the stranger.
        record.write_bytes(re.sub(rb'"pid":\d+', b'"pid":%d' % stranger, record.read_bytes()))
        agent.start()
        assert alive(stranger)
    finally:
        os.kill(stranger, signal.SIGKILL)
        os.waitpid(stranger, 0)


def test_sigterm_stops_everything_and_leaves_nothing(agent: Agent, wrapper: tuple[str, ...]) -> None:
    agent.declare(PAIR)
    agent.start(wrapper=wrapper)
    begun = time.monotonic()
    assert agent.stop() == 0
    assert time.monotonic() - begun < 3
    assert not marked(agent.prefix)
    left = {path.name for path in (agent.prefix / "run").iterdir()}
    assert left <= {"agent.lock", "one.lock", "two.lock"}
    assert not list((agent.prefix / "tmp").iterdir())


def test_a_stop_by_hand_is_remembered_across_agents_for_unless_stopped_only(agent: Agent) -> None:
    agent.declare("""
[service.resting]
kind = "command"
command = ["/bin/sleep", "86415"]
restart = "unless-stopped"

[service.eager]
kind = "command"
command = ["/bin/sleep", "86416"]
restart = "always"
""")
    agent.start()
    assert agent.act("stop", "resting")["ok"]
    assert agent.act("stop", "eager")["ok"]
    agent.stop()
    agent.start()
    assert agent.service("resting")["state"] == "stopped"
    assert agent.service("eager")["state"] == "running"
    assert agent.act("start", "resting")["ok"]
    agent.stop()
    agent.start()
    assert agent.service("resting")["state"] == "running"


def test_a_declaration_with_mistakes_starts_nothing_and_changes_nothing(agent: Agent) -> None:
    agent.declare('[service.bad-name]\nkind = "command"\ncommand = ["/bin/true"]\ncolour = 1\n')
    before = sorted(agent.prefix.rglob("*"))
    refused = agent.ctl("run")
    assert refused.returncode == 1
    assert "bad_name" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert sorted(agent.prefix.rglob("*")) == before


def test_a_reload_restarts_only_what_has_to(agent: Agent) -> None:
    agent.declare(PAIR)
    agent.start()
    one, two = agent.service("one")["pid"], agent.service("two")["pid"]
    agent.declare(
        PAIR.replace("86411", "86417").replace("[service.two]\n", '[service.two]\nstop_timeout = "3s"\n')
        + '[service.three]\nkind = "command"\ncommand = ["/bin/sleep", "86418"]\n'
    )
    report = agent.client.request("POST", "/v1/reload")
    assert (report["restarted"], report["updated"], report["started"]) == (["one"], ["two"], ["three"])
    assert report["reasons"] == {"one": ["command"], "two": ["stop_timeout"]}
    assert agent.service("one")["pid"] != one
    assert agent.service("two")["pid"] == two
    assert not commanded("sleep 86411")
    agent.declare(PAIR)
    report = agent.client.request("POST", "/v1/reload")
    assert report["stopped"] == ["three"]
    assert not commanded("sleep 86418")


def test_a_bad_reload_is_refused_with_every_problem_and_changes_nothing(agent: Agent) -> None:
    agent.declare(PAIR)
    agent.start()
    before = [service["pid"] for service in agent.status()["services"]]
    agent.declare(PAIR + "colour = 1\nrestrat = 2\n")
    refused = agent.ctl("reload")
    assert refused.returncode == 1
    assert "service.two.colour" in refused.stderr
    assert "service.two.restrat" in refused.stderr
    assert [service["pid"] for service in agent.status()["services"]] == before
    assert agent.status()["agent"]["state"] == "running"


def test_systemd_is_told_ready_status_reloading_and_stopping(agent: Agent) -> None:
    agent.declare(PAIR)
    with notify_socket(agent.prefix) as (listener, name):
        listener.setblocking(True)
        listener.settimeout(20)
        agent.start(wait=False, environ={"NOTIFY_SOCKET": name})
        heard = _hear(listener, "READY=1")
        assert _hear(listener, "STATUS=2 running")
        agent.client.request("POST", "/v1/reload")
        reloading = _hear(listener, "RELOADING=1")
        stamp = int(re.search(r"MONOTONIC_USEC=(\d+)", reloading)[1])  # type: ignore[index]  # there, or it fails here
        assert abs(stamp / 1e6 - time.clock_gettime(time.CLOCK_MONOTONIC)) < 20
        assert _hear(listener, "READY=1")
        agent.stop()
        assert _hear(listener, "STOPPING=1")
    assert heard


def _hear(listener: socket.socket, wanted: str) -> str:
    """The next message that contains a line; the others are passed over."""
    while True:
        message = listener.recv(65536).decode()
        if wanted in message:
            return message


def test_the_watchdog_is_fed_while_the_control_socket_answers_and_not_when_it_does_not(agent: Agent) -> None:
    agent.declare(PAIR)
    with notify_socket(agent.prefix) as (listener, name):
        listener.setblocking(True)
        listener.settimeout(20)
        agent.start(wait=False, environ={"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "400000"})
        for _ in range(3):
            assert _hear(listener, "WATCHDOG=1")
        # Gone from under the agent, the socket is made anew.
        control = agent.prefix / "run" / "agent.sock"
        control.unlink()
        wait_until(control.exists)
        for _ in range(2):
            assert _hear(listener, "WATCHDOG=1")
        # With something else in its place the loop turns, the timers fire, and it is of no use to anybody.
        control.with_name("other").touch()
        control.with_name("other").replace(control)
        listener.settimeout(1.0)
        quiet = False
        for _ in range(10):
            try:
                listener.recv(65536)
            except TimeoutError:
                quiet = True
                break
        assert quiet


def test_the_agents_own_heartbeat_is_touched_and_gone_after_a_stop(agent: Agent) -> None:
    agent.declare('[agent]\nheartbeat = { interval = "200ms" }\n' + PAIR)
    agent.start()
    heartbeat = agent.prefix / "tmp" / "agent.heartbeat"
    first = heartbeat.stat().st_mtime_ns
    wait_until(lambda: heartbeat.stat().st_mtime_ns != first)
    agent.stop()
    assert not heartbeat.exists()


def test_a_job_runs_by_its_calendar_and_never_overlaps_itself(agent: Agent) -> None:
    agent.declare("""
[service.tick]
kind = "command"
command = ["/bin/sh", "-c", "echo begin; sleep 1.5; echo end"]
oncalendar = "*:*:*"
""")
    agent.start()
    assert agent.service("tick")["state"] in ("waiting", "running")
    agent.event("skipped", "tick")
    agent.event("completed", "tick")
    wait_until(lambda: agent.log("tick").count("begin") >= 2)
    words = [line.split(" ", 1)[1] for line in agent.log("tick").splitlines()]
    assert "begin begin" not in " ".join(words)
    timer = agent.client.request("GET", "/v1/timers")["timers"][0]
    assert timer["name"] == "tick"
    assert timer["next_run"] > time.time() - 1


def test_a_job_is_killed_at_its_timeout(agent: Agent) -> None:
    agent.declare("""
[service.slow]
kind = "command"
command = ["/bin/sleep", "86419"]
every = "1h"
timeout = "500ms"
""")
    agent.start()
    event = agent.event("failed", "slow")
    assert event["message"].startswith("ran longer than its timeout of 0.5 s")
    assert not commanded("sleep 86419")
    assert agent.service("slow")["state"] == "waiting"


def test_a_child_that_speaks_sd_notify_is_ready_when_it_says_so_and_its_status_is_shown(agent: Agent) -> None:
    agent.declare("""
[service.polite]
kind = "command"
command = ["/bin/sh", "-c", '''
until [ -e "$$SERVICE_DATA/go" ]; do sleep 0.05; done
systemd-notify --ready --status="serving 7 clients"
exec sleep 86420
''']
ready = "notify"
""")
    agent.start(wait=False)
    wait_until(lambda: (agent.prefix / "run" / "agent.sock").exists())
    report = agent.until("polite", state="starting")
    assert report["ready"] is False
    (agent.prefix / "spool" / "polite" / "go").touch()
    report = agent.until("polite", state="running")
    assert (report["ready"], report["health"]) == (True, "healthy")
    agent.until("polite", message="serving 7 clients")


def test_a_corrupt_database_is_moved_aside_with_a_message_and_never_deleted(agent: Agent) -> None:
    spool = agent.prefix / "spool" / "agent"
    spool.mkdir(parents=True)
    (spool / "events.db").write_bytes(b"this was a database once" * 1000)
    agent.declare(PAIR)
    agent.start()
    aside = list(spool.glob("events.db.corrupt-*"))
    assert len(aside) == 1
    assert aside[0].read_bytes().startswith(b"this was a database once")
    assert any("events.db" in event["message"] and "corrupt" in event["message"] for event in agent.events())


@pytest.mark.parametrize("name", ["one", "two"])
def test_concurrent_commands_on_one_service_queue(agent: Agent, name: str) -> None:
    agent.declare(PAIR)
    agent.start()
    runners = [
        os.posix_spawn(
            agent.command()[0],
            agent.command(action, name),
            agent.environment(),
            file_actions=[(os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0)],
        )
        for action in ("restart", "stop", "start", "restart")
    ]
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in runners]
    assert codes == [0, 0, 0, 0]
    assert len([pid for pid in marked(agent.prefix) if pid != agent.pid]) in (1, 2, 3)
    agent.act("start", name)
    worker = agent.service(name)["pid"]
    assert alive(worker)


def test_run_once_ends_with_the_jobs_own_exit_code(agent: Agent) -> None:
    agent.declare("""
[service.fine]
kind = "command"
command = ["/bin/echo", "all is well"]
every = "1h"

[service.misconfigured]
kind = "command"
command = ["/bin/sh", "-c", "exit 1"]
every = "1h"

[service.broken]
kind = "command"
command = ["/bin/sh", "-c", "echo so; exit 7"]
every = "1h"

[service.slow]
kind = "command"
command = ["/bin/sleep", "86421"]
every = "1h"
timeout = "300ms"
""")
    fine = agent.ctl("run-once", "fine")
    assert (fine.returncode, fine.stdout) == (0, "all is well\n")
    assert agent.ctl("run-once", "misconfigured").returncode == 1
    assert agent.ctl("run-once", "broken").returncode == 2
    slow = agent.ctl("run-once", "slow")
    assert slow.returncode == 2
    assert "ran longer than its timeout of 0.3 s" in slow.stderr
    absent = agent.ctl("run-once", "fime")
    assert absent.returncode == 1
    assert "did you mean fine?" in absent.stderr
    assert not commanded("sleep 86421")


def test_run_once_refuses_to_overlap_a_run_of_the_agent(agent: Agent) -> None:
    agent.declare("""
[service.long]
kind = "command"
command = ["/bin/sleep", "86422"]
""")
    agent.start()
    refused = agent.ctl("run-once", "long")
    assert refused.returncode == 2
    assert str(agent.pid) in refused.stderr
    assert len(commanded("sleep 86422")) == 1


def test_without_an_agent_every_command_says_so_in_one_line(agent: Agent) -> None:
    agent.declare(PAIR)
    for arguments in (["status"], ["start", "one"], ["events"], ["logs", "one"], ["timers"], ["reload"]):
        answer = agent.ctl(*arguments)
        assert answer.returncode == 2, arguments
        assert answer.stderr.count("\n") == 1
        assert str(agent.prefix / "run" / "agent.sock") in answer.stderr


def test_the_agent_can_be_killed_at_any_moment_of_its_start(agent: Agent) -> None:
    agent.declare(PAIR)
    for delay in (0.02, 0.08, 0.12, 0.16, 0.2, 0.25):
        agent.start(wait=False)
        assert agent.process is not None
        time.sleep(delay)
        os.kill(agent.process.pid, signal.SIGKILL)
        agent.process.wait()
    agent.start()
    wait_until(lambda: len(commanded("sleep 86412")) == 2)
    assert len(commanded("sleep 86411")) == 1
    assert len([pid for pid in marked(agent.prefix) if pid != agent.pid]) == 3


def test_strangers_that_become_our_children_are_reaped(agent: Agent) -> None:
    agent.declare("""
[service.parent]
kind = "command"
command = ["/bin/sh", "-c", "(setsid sh -c 'sleep 0.1' &) ; (setsid sh -c 'sleep 0.2' &) ; exec sleep 86423"]
""")
    agent.start()
    pid = agent.pid
    wait_until(lambda: _children(pid) == [agent.service("parent")["pid"]])


def _children(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_bytes().rpartition(b") ")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(entry.parent.name))
    return found


def test_a_killed_agents_socket_does_not_stop_the_next(agent: Agent) -> None:
    agent.declare(PAIR)
    agent.start()
    agent.kill()
    assert (agent.prefix / "run" / "agent.sock").exists()
    agent.start()
    assert agent.status()["agent"]["pid"] == agent.pid


def test_a_prefix_too_long_for_a_socket_address_works_all_the_same(tmp_path: Path, program: Path | None) -> None:
    agent = Agent(tmp_path / ("very_long_name_" * 10) / "srv", program)
    try:
        agent.declare("""
[service.polite]
kind = "command"
command = ["/bin/sh", "-c", "systemd-notify --ready; exec sleep 86424"]
ready = "notify"
""")
        agent.start()
        assert agent.until("polite", state="running")["ready"]
        assert agent.ctl("status").returncode == 0
    finally:
        agent.clean()


RAISE = '        raise ZeroDivisionError("a mistake")\n'
MOMENTS = {
    "the loop is up": "        self._prepare(History())\n",
    "it can be asked": "        recovered = self._recover(inherited)\n",
    "signals are heard": "        signal.pthread_sigmask(signal.SIG_UNBLOCK, ORDERS)\n\n    async def _announce(",
}
"""Places in agent/control/daemon.py, by what is so when a start comes to them."""


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_mistake_during_the_start_is_a_line_and_a_2_and_its_traceback_is_in_the_log_alone(
    agent: Agent, versions: Versions, moment: str
) -> None:
    versions.make("0.9.0", control__daemon=(MOMENTS[moment], RAISE + MOMENTS[moment]))
    versions.install("0.9.0")
    agent.declare(PAIR)
    failed = agent.ctl("run")
    assert (failed.returncode, failed.stdout) == (2, "")
    told = [line for line in failed.stderr.splitlines() if not re.match(r"[\d:]{8} agent: agent stop", line)]
    log = agent.prefix / "log" / "agent.log"
    assert len(told) == 1
    assert re.fullmatch(
        rf"agent: internal error: ZeroDivisionError: a mistake \(at daemon\.py:\d+; details in {log}\)", told[0]
    )
    assert agent.log("agent").count("Traceback (most recent call last)") == 1
    assert [path.name for path in log.parent.iterdir()] == ["agent.log"]
    assert not marked(agent.prefix)
    # Nothing of it stands in the way of the next.
    versions.install("1.0.0")
    agent.start()
    assert agent.service("one")["state"] == "running"
    assert agent.stop() == 0


def test_after_kill_9_nothing_is_left_of_a_service_that_is_no_longer_declared(agent: Agent) -> None:
    secrets = agent.prefix / "key" / "secrets"
    secrets.mkdir(mode=0o700)
    (secrets / "token").write_text("swordfish")
    (secrets / "token").chmod(0o600)
    agent.declare(
        PAIR
        + """
[service.gone]
kind = "command"
command = ["/bin/sleep", "86425"]
secrets = ["token"]
group = "nogroup"
heartbeat = { interval = "10s", timeout = "60s" }
"""
    )
    agent.start()
    assert (agent.prefix / "run" / "gone.secrets" / "token").exists()
    agent.kill()
    agent.declare(PAIR)
    agent.start()
    left = [path.name for place in ("run", "tmp") for path in (agent.prefix / place).glob("gone*")]
    assert left == ["gone.lock"]


def test_copies_of_secrets_are_there_only_while_the_service_runs(agent: Agent) -> None:
    secrets = agent.prefix / "key" / "secrets"
    secrets.mkdir(mode=0o700)
    (secrets / "token").write_text("swordfish")
    (secrets / "token").chmod(0o600)
    agent.declare("""
[service.holder]
kind = "command"
command = ["/bin/sleep", "86426"]
secrets = ["token"]
group = "nogroup"
""")
    agent.start()
    copy = agent.prefix / "run" / "holder.secrets" / "token"
    assert copy.stat().st_mode & 0o777 == 0o400
    agent.act("stop", "holder")
    assert not copy.parent.exists()


def test_a_killed_run_once_leaves_a_lock_that_keeps_its_job_from_overlapping(agent: Agent) -> None:
    agent.declare('[service.long]\nkind = "command"\ncommand = ["/bin/sleep", "86427"]\nevery = "1h"\n')
    runner = os.posix_spawn(agent.command()[0], agent.command("run-once", "long"), agent.environment())
    wait_until(lambda: len(commanded("sleep 86427")) == 1)
    os.kill(runner, signal.SIGKILL)
    os.waitpid(runner, 0)
    refused = agent.ctl("run-once", "long")
    assert refused.returncode == 2
    assert len(commanded("sleep 86427")) == 1
    agent.start()
    agent.event("skipped", "long")
    assert agent.service("long")["state"] == "waiting"
    assert len(commanded("sleep 86427")) == 1
    os.kill(commanded("sleep 86427")[0], signal.SIGKILL)


def test_a_smaller_log_is_in_force_after_a_reload_without_a_restart(agent: Agent) -> None:
    text = """
[service.writer]
kind = "command"
command = ["/bin/sh", "-c", "while :; do echo a line of forty characters or so, again; sleep 0.002; done"]
log = { size = "%s", keep = 1 }
"""
    agent.declare(text % "10MiB")
    agent.start()
    worker = agent.service("writer")["pid"]
    agent.declare(text % "8KiB")
    assert agent.client.request("POST", "/v1/reload")["updated"] == ["writer"]
    wait_until(lambda: (agent.prefix / "log" / "writer.log.1").exists())
    assert agent.service("writer")["pid"] == worker


def test_the_last_words_of_what_failed_are_told_with_its_state(agent: Agent) -> None:
    agent.declare("""
[service.port]
kind = "command"
command = ["/bin/sh", "-c", "echo 'cannot bind: address in use' >&2; exit 1"]
""")
    agent.start()
    report = agent.until("port", state="failed")
    assert report["message"] == "exited 1 (configuration error: not retried): cannot bind: address in use"
    assert agent.event("exited", "port")["message"] == "exited 1; last words: cannot bind: address in use"


def test_a_stop_by_hand_outlives_a_reload_that_disables_and_enables(agent: Agent) -> None:
    text = '[service.resting]\nkind = "command"\ncommand = ["/bin/sleep", "86428"]\nrestart = "unless-stopped"\n'
    agent.declare(text)
    agent.start()
    agent.act("stop", "resting")
    for enabled in ("false", "true"):
        agent.declare(text + f"enabled = {enabled}\n")
        agent.client.request("POST", "/v1/reload")
    assert agent.service("resting")["state"] == "stopped"


def test_a_prefix_that_is_read_only_is_one_line(agent: Agent) -> None:
    with mounted(agent.prefix, "mode=755"):
        (agent.prefix / "key").mkdir()
        agent.declare(PAIR)
        agent.start()
        agent.stop()
        subprocess.run(["mount", "-o", "remount,ro", agent.prefix], check=True)
        for words in (["run"], ["run-once", "one"]):
            refused = agent.ctl(*words)
            assert (refused.returncode, refused.stdout) == (2, "")
            assert re.fullmatch(rf"agent(ctl)?: {agent.prefix}/\S+: .*: Read-only file system\n", refused.stderr)
        assert not commanded("sleep 86412")
        told = agent.ctl("doctor")
        assert told.returncode == 2
        assert f"prefix        fail    {agent.prefix}/run is on a file system that is mounted read-only" in told.stdout
