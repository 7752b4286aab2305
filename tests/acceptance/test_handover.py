"""Another version of the agent follows in the same process: nobody is restarted, and nothing is lost."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from agent.errors import RequestRefused
from agent.linux.process import descendants
from agent.workers.scan.memory.reading import Memory
from tests.acceptance.versions import (
    COUNTING,
    Versions,
    dawdling,
    decided,
    follows,
    numbers,
    pids,
    upgrade,
)
from tests.harness import PATIENCE, Agent, alive, commanded, environment, marked, wait_gone, wait_until


def test_workers_go_on_with_their_pids_their_history_and_every_line_they_print(
    agent: Agent, versions: Versions, wrapper: tuple[str, ...]
) -> None:
    versions.make("1.1.0")
    agent.declare(
        COUNTING
        + """
[service.quiet]
kind = "command"
command = ["/bin/sh", "-c", "setsid sleep 86451 & exec sleep 86451"]
"""
    )
    agent.start(wrapper=wrapper)
    process, since = agent.pid, agent.status()["agent"]["since"]
    agent.act("restart", "quiet")
    before, quiet = pids(agent), agent.service("quiet")
    wait_until(lambda: len(numbers(agent)) > 100)
    versions.install("1.1.0")
    done = agent.ctl("reload")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "2 services unchanged\n"
    assert re.fullmatch(r"version 1\.0\.0 handed over to 1\.1\.0; for [\d.]+ ms nobody supervised\n", done.stderr), (
        done.stderr
    )
    status = agent.status()["agent"]
    assert (status["version"], status["pid"], status["since"]) == ("1.1.0", process, since)
    assert agent.pid == process
    assert pids(agent) == before
    after = agent.service("quiet")
    assert {name: after[name] for name in ("state", "ready", "restarts", "since", "processes")} == {
        name: quiet[name] for name in ("state", "ready", "restarts", "since", "processes")
    }
    seen = len(numbers(agent))
    wait_until(lambda: len(numbers(agent)) > seen + 100)
    found = numbers(agent)
    assert found == list(range(1, len(found) + 1))
    assert agent.stop() == 0
    assert not marked(agent.prefix)


def test_how_a_worker_ends_while_nobody_supervises_is_known_afterwards(agent: Agent, versions: Versions) -> None:
    # The next version dawdles before it looks at anything.
    slow = dawdling(1.0)
    versions.make("1.1.0", control__daemon=slow)
    agent.declare("""
[service.ends]
kind = "command"
command = ["/bin/sh", "-c", "trap 'echo last words; exit 7' USR1; echo armed; while :; do sleep 0.01; done"]
restart = "no"
""")
    agent.start()
    wait_until(lambda: "armed" in agent.log("ends"))
    worker = agent.service("ends")["pid"]
    versions.install("1.1.0")
    begun = agent.client.request("POST", "/v1/upgrade")
    wait_until(lambda: follows(agent.pid, "1.1.0"))
    os.kill(worker, signal.SIGUSR1)
    wait_gone(worker)
    report = agent.until("ends", state="failed")
    assert agent.client.request("GET", "/v1/handover")["id"] == begun["id"]
    assert report["last_exit"] == "exited 7"
    assert "last words" in report["message"]
    assert "last words" in agent.log("ends")


def test_a_start_a_stop_and_a_backoff_under_way_go_on_with_the_time_they_have_left(
    agent: Agent, versions: Versions
) -> None:
    agent.declare("""
[service.late]
kind = "command"
command = ["/bin/sleep", "86452"]
ready = "notify"
start_timeout = "3s"
restart = "no"
enabled = false

[service.deaf]
kind = "command"
command = ["/bin/sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 0.1; done"]
stop_timeout = "3s"

[service.failing]
kind = "command"
command = ["/bin/sh", "-c", "sleep 0.1; exit 2"]
""")
    agent.start()
    wait_until(lambda: "deaf" in agent.log("deaf"))
    begun = time.time()
    for action, name in (("stop", "deaf"), ("start", "late")):
        agent.client.request("POST", f"/v1/services/{name}/{action}", {"wait": "false"})
    runs = agent.until("failing", state="backoff")["restarts"]
    assert upgrade(agent)["state"] == "done"
    late, deaf = agent.until("late", state="failed"), agent.until("deaf", state="stopped")
    assert "not ready within 3 s" in late["message"]
    assert 2.5 < late["since"] - begun < 6
    assert 2.5 < deaf["since"] - begun < 6
    assert "killed" in [event["kind"] for event in agent.events(service="deaf")]
    wait_until(lambda: agent.service("failing")["restarts"] > runs)


def test_what_a_worker_says_while_nobody_supervises_is_heard(agent: Agent, versions: Versions) -> None:
    slow = dawdling(1.0)
    versions.make("1.1.0", control__daemon=slow)
    speaker = "import os, signal, socket, time\n" + (
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "say = lambda text: s.sendto(text.encode(), os.environ['NOTIFY_SOCKET'])\n"
        "signal.signal(signal.SIGUSR1, lambda *_: say('STATUS=in the meantime'))\n"
        "say('READY=1')\n"
        "while True: time.sleep(60)\n"
    )
    agent.declare(f"""
[service.speaker]
kind = "command"
command = ["{sys.executable}", "-c", {json.dumps(speaker)}]
ready = "notify"
""")
    agent.start()
    worker = agent.service("speaker")["pid"]
    versions.install("1.1.0")
    agent.client.request("POST", "/v1/upgrade")
    wait_until(lambda: follows(agent.pid, "1.1.0"))
    os.kill(worker, signal.SIGUSR1)
    assert agent.until("speaker", message="in the meantime")["pid"] == worker
    assert agent.status()["agent"]["version"] == "1.1.0"


def test_a_job_that_falls_due_while_nobody_supervises_runs_once(agent: Agent, versions: Versions) -> None:
    agent.declare("""
[service.tick]
kind = "command"
command = ["/bin/date", "+%s"]
oncalendar = "*:*:*"
""")
    agent.start()
    agent.event("completed", "tick")
    for _ in range(5):
        assert upgrade(agent)["state"] == "done"
    agent.event("completed", "tick", after=agent.events()[-1]["cursor"])
    seconds = [int(line.split()[1]) for line in agent.log("tick").splitlines()]
    assert seconds == list(range(seconds[0], seconds[-1] + 1))


def test_a_capture_goes_on_under_the_next_version(agent: Agent, versions: Versions) -> None:
    versions.make("1.1.0")
    agent.declare("""
[service.loopback]
kind = "capture"
interfaces = ["lo"]
""")
    agent.start()
    worker = agent.service("loopback")["pid"]
    versions.install("1.1.0")
    assert agent.ctl("reload").returncode == 0
    cursor = agent.events()[-1]["cursor"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(10):
            sender.sendto(b"seen", ("127.0.0.1", 9))
    wait_until(lambda: agent.service("loopback")["figures"].get("received", 0) >= 10)
    report = agent.service("loopback")
    assert (report["pid"], report["state"], report["health"], report["restarts"]) == (worker, "running", "healthy", 0)
    agent.act("restart", "loopback")
    new = agent.service("loopback")["pid"]
    assert follows(new, "1.1.0"), "a worker that starts now is of the version that runs"
    assert b"AGENT_HANDOVER" not in environment(new)
    assert not [event for event in agent.events(after=str(cursor)) if event["kind"] in ("hung", "bug")]


def test_a_scan_goes_on_with_its_nmap_and_ends_as_if_nothing_had_been(agent: Agent, versions: Versions) -> None:
    versions.make("1.1.0")
    with talker() as port:
        agent.declare(f"""
[service.local]
kind = "scan"
targets = ["127.0.0.1"]
ports = "1-100,{port}"
profile = "services"
every = "1h"
timeout = "5min"
""")
        agent.start()
        nmap: list[int] = []

        def caught() -> bool:
            """However long the hand-over takes here, the scan lasts longer."""
            nmap[:] = nmaps_of(agent, "local")
            for pid in nmap:
                os.kill(pid, signal.SIGSTOP)
            return bool(nmap)

        wait_until(caught)
        before = agent.service("local")
        next_run = timer(agent, "local")["next_run"]
        versions.install("1.1.0")
        assert upgrade(agent)["after"] == "1.1.0"
        after = agent.service("local")
        assert (after["state"], after["pid"], after["since"]) == ("running", before["pid"], before["since"])
        assert nmaps_of(agent, "local") == nmap
    os.kill(nmap[0], signal.SIGCONT)
    finished = agent.event("scan_finished", "local")
    assert (finished["data"]["hosts_up"], finished["data"]["hosts_total"]) == (1, 1)
    agent.until("local", state="waiting", last_exit="exited 0", restarts=0, health="healthy")
    assert timer(agent, "local")["next_run"] == next_run
    assert not alive(nmap[0])
    with Memory(agent.prefix / "spool" / "local" / "scan.db") as memory:
        [run] = memory.runs()
        assert (run.status, run.message) == ("finished", "")
        [host] = memory.hosts(run.id)
        assert host.state_of("tcp", port) == "closed", "as it was when nmap could ask"


@contextmanager
def talker() -> Iterator[int]:
    """A port that greets as nobody does, and then waits: nmap takes long to find out what that is."""
    held: list[socket.socket] = []

    def greet() -> None:
        with suppress(OSError):
            while True:
                held.append(listener.accept()[0])
                held[-1].sendall(b"who goes there?\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=greet)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for one in held:
                one.close()


def nmaps_of(agent: Agent, name: str) -> list[int]:
    """The PIDs of what a scan has executed nmap in to ask others, not to ask nmap what it is."""
    found = []
    for pid in descendants(agent.service(name)["pid"] or 0):
        with suppress(FileNotFoundError, ProcessLookupError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if command[0].endswith(b"/nmap") and b"-oX" in command:
                found.append(pid)
    return found


def timer(agent: Agent, name: str) -> dict[str, Any]:
    """When a job runs next, when it ran last and how that ended."""
    timers = {timer["name"]: timer for timer in agent.client.request("GET", "/v1/timers")["timers"]}
    found: dict[str, Any] = timers[name]
    return found


def test_a_job_goes_on_and_its_result_and_next_time_are_kept(
    agent: Agent, versions: Versions, wrapper: tuple[str, ...]
) -> None:
    versions.make("1.1.0")
    agent.declare("""
[service.job]
kind = "command"
command = ["/bin/sh", "-c", "echo begun; until [ -e $$SERVICE_DATA/go ]; do sleep 0.05; done; echo ended"]
every = "1h"
timeout = "5min"
""")
    agent.start(wrapper=wrapper)
    wait_until(lambda: "begun" in agent.log("job"))
    before, planned = agent.service("job"), timer(agent, "job")
    versions.install("1.1.0")
    assert upgrade(agent)["after"] == "1.1.0"
    assert timer(agent, "job") == planned
    after = agent.service("job")
    assert (after["state"], after["pid"], after["since"]) == ("running", before["pid"], before["since"])
    (agent.prefix / "spool" / "job" / "go").touch()
    agent.until("job", state="waiting", last_exit="exited 0", restarts=0, health="healthy")
    assert [line.split()[1] for line in agent.log("job").splitlines()] == ["begun", "ended"]
    assert timer(agent, "job") == planned | {"state": "waiting", "last_exit": "exited 0"}
    assert upgrade(agent)["state"] == "done"
    assert timer(agent, "job") == planned | {"state": "waiting", "last_exit": "exited 0"}


def test_a_job_has_the_time_that_was_left_of_its_timeout(agent: Agent, versions: Versions) -> None:
    versions.make("1.1.0", control__daemon=dawdling(2.0))
    agent.declare("""
[service.slow]
kind = "command"
command = ["/bin/sleep", "86456"]
every = "1h"
timeout = "4s"
""")
    agent.start()
    agent.until("slow", state="running")
    versions.install("1.1.0")
    assert upgrade(agent)["after"] == "1.1.0"
    begun, failed = agent.event("started", "slow"), agent.event("failed", "slow")
    assert failed["message"].startswith("ran longer than its timeout of 4 s")
    assert failed["time"] - begun["time"] > 3.9
    assert failed["time"] - agent.event("handed_over")["time"] < 3, "it does not begin again with the next version"
    assert not commanded("sleep 86456")


def test_the_declaration_is_made_true_by_the_version_that_follows(agent: Agent, versions: Versions) -> None:
    versions.make("1.1.0")
    agent.declare(COUNTING)
    agent.start()
    counting = agent.service("counting")["pid"]
    versions.install("1.1.0")
    agent.declare(COUNTING + '[service.more]\nkind = "command"\ncommand = ["/bin/sleep", "86453"]\n')
    done = agent.ctl("reload", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["started"], report["unchanged"]) == (["more"], 1)
    assert agent.service("counting")["pid"] == counting


def test_clients_wait_instead_of_failing_and_streams_go_on(agent: Agent, versions: Versions) -> None:
    agent.declare(COUNTING)
    agent.start()
    following = [
        subprocess.Popen(agent.command(*words), env=agent.environment(), stdout=subprocess.PIPE, text=True, cwd="/")
        for words in (("logs", "-f", "-n", "0", "counting"), ("events", "-f", "--json"))
    ]
    logs, events = (process.stdout for process in following)
    assert logs is not None and events is not None
    first = int(logs.readline().split()[-1])
    failures: list[str] = []
    enough = threading.Event()

    def ask() -> None:
        while not enough.is_set():
            try:
                agent.status()
            except Exception as error:
                failures.append(repr(error))

    clients = [threading.Thread(target=ask) for _ in range(4)]
    for client in clients:
        client.start()
    for _ in range(3):
        assert upgrade(agent)["state"] == "done"
    last = numbers(agent)[-1]
    enough.set()
    for client in clients:
        client.join(PATIENCE)
    assert not failures
    seen = [first]
    while seen[-1] < last:
        seen.append(int(logs.readline().split()[-1]))
    assert seen == list(range(first, seen[-1] + 1)), "no line is missing, and none comes twice"
    kinds: list[str] = []
    while kinds.count("handed_over") < 3:
        kinds.append(json.loads(events.readline())["kind"])
    for process in following:
        process.terminate()
        process.communicate()


def test_five_in_a_row_leave_no_descriptor_behind(agent: Agent, versions: Versions) -> None:
    agent.declare(COUNTING + '[service.tick]\nkind = "command"\ncommand = ["/bin/true"]\nevery = "1s"\n')
    agent.start()
    upgrade(agent)

    def open_files() -> list[str]:
        links = []
        for entry in Path(f"/proc/{agent.pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed by now
                links.append(str(entry.readlink()))
        return sorted(re.sub(r"[:\[]\d+]?", "", link) for link in links if "tick" not in link)

    before, size = len(open_files()), len(environment(agent.pid))
    for _ in range(5):
        assert upgrade(agent)["state"] == "done"
    wait_until(lambda: len(open_files()) <= before, lambda: "\n".join(open_files()))
    assert abs(len(environment(agent.pid)) - size) < 3, "only the number of a descriptor may be longer"
    assert agent.service("counting")["restarts"] == 0


def test_a_stop_in_the_middle_is_a_stop(agent: Agent, versions: Versions) -> None:
    slow = dawdling(0.5)
    versions.make("1.1.0", control__daemon=slow)
    agent.declare(COUNTING)
    agent.start()
    worker = agent.service("counting")["pid"]
    versions.install("1.1.0")
    agent.client.request("POST", "/v1/upgrade")
    wait_until(lambda: follows(agent.pid, "1.1.0"))
    assert agent.stop() == 0
    assert not alive(worker)
    assert not marked(agent.prefix)


def test_a_reload_during_a_hand_over_leaves_nothing_half_way(agent: Agent, versions: Versions) -> None:
    deaf = """
[service.deaf]
kind = "command"
command = ["/bin/sh", "-c", "trap '' TERM; echo {word}; while :; do sleep 0.1; done"]
stop_timeout = "4s"
"""
    agent.declare(deaf.format(word="before"))
    agent.start()
    wait_until(lambda: "before" in agent.log("deaf"))
    with ThreadPoolExecutor(1) as pool:
        begun = pool.submit(agent.client.request, "POST", "/v1/upgrade")
        wait_until(lambda: agent.status()["agent"]["state"] == "reloading")
        agent.declare(deaf.format(word="after"))
        with pytest.raises(RequestRefused, match="being upgraded: ask again afterwards"):
            agent.client.request("POST", "/v1/reload")
        report = decided(agent, begun.result()["id"])
    assert report["state"] == "done"
    assert report["reload"]["restarted"] == ["deaf"]
    agent.until("deaf", state="running")
    wait_until(lambda: "after" in agent.log("deaf"))
    agent.kill()  # in place of an end that would wait for the deaf


def test_a_stop_in_the_last_moment_before_it_is_a_stop(agent: Agent, versions: Versions) -> None:
    suspended = "            control = await self._server.suspend()\n"
    versions.make(
        "0.9.0", control__daemon=(suspended, f"{suspended}            os.kill(os.getpid(), signal.SIGTERM)\n")
    )
    versions.install("0.9.0")
    agent.declare(COUNTING)
    agent.start()
    versions.install("1.0.0")
    agent.client.request("POST", "/v1/upgrade")
    assert agent.process is not None
    assert agent.process.wait(PATIENCE) == 0
    assert not marked(agent.prefix)


def test_what_takes_long_to_start_or_to_stop_does_not_hold_it_up(agent: Agent, versions: Versions) -> None:
    agent.declare("""
[service.late]
kind = "command"
command = ["/bin/sleep", "86454"]
ready = "notify"
start_timeout = "10min"
enabled = false

[service.deaf]
kind = "command"
command = ["/bin/sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 0.1; done"]
stop_timeout = "10min"
""")
    agent.start()
    wait_until(lambda: "deaf" in agent.log("deaf"))
    for action, name in (("stop", "deaf"), ("start", "late")):
        agent.client.request("POST", f"/v1/services/{name}/{action}", {"wait": "false"})
    before = pids(agent)
    for _ in range(2):
        assert upgrade(agent)["state"] == "done"
    assert (agent.service("late")["state"], agent.service("deaf")["state"]) == ("starting", "stopping")
    assert pids(agent) == before
    assert agent.status()["agent"]["state"] == "running"
    os.kill(before["deaf"] or 0, signal.SIGKILL)
    agent.until("deaf", state="stopped")


def test_who_waits_for_a_slow_start_is_told_and_the_start_goes_on(agent: Agent, versions: Versions) -> None:
    agent.declare("""
[service.late]
kind = "command"
command = ["/bin/sh", "-c", "until [ -e $$SERVICE_DATA/go ]; do sleep 0.05; done; systemd-notify --ready; sleep 86455"]
ready = "notify"
enabled = false
""")
    agent.start()
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(agent.ctl, "start", "late")
        agent.until("late", state="starting")
        worker = agent.service("late")["pid"]
        assert upgrade(agent)["state"] == "done"
        done = starting.result()
    assert done.returncode == 2
    assert "becomes another version of itself and waits for this no longer: see what became of it" in done.stderr
    (agent.prefix / "spool" / "late" / "go").touch()
    assert agent.until("late", state="running")["pid"] == worker


def test_a_restart_under_way_goes_on(agent: Agent, versions: Versions) -> None:
    agent.declare("""
[service.deaf]
kind = "command"
command = ["/bin/sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 0.1; done"]
stop_timeout = "6s"
""")
    agent.start()
    wait_until(lambda: "deaf" in agent.log("deaf"))
    worker = agent.service("deaf")["pid"]
    agent.client.request("POST", "/v1/services/deaf/restart", {"wait": "false"})
    assert upgrade(agent)["state"] == "done"
    report = agent.until("deaf", state="running")
    assert report["pid"] not in (None, worker)
    assert not alive(worker)
    agent.kill()  # in place of an end that would wait for the deaf
