"""Another version follows in the same process, and the control socket that systemd holds, under a real systemd."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.binary import Edit, built, vary
from tests.harness import SOURCE, wait_until
from tests.system.container import PATIENCE
from tests.system.host import UNIT, Host

NEXT = "0.1.1"

WEB = """
[service.web]
kind = "command"
command = ["/usr/bin/python3", "-m", "http.server", "8000"]
"""

CAPTURE = """
[service.cable]
kind = "capture"
interfaces = ["near"]
filter = "udp port 9"
"""

# Sends datagrams in a steady stream until its input ends, says when it has begun, and then how many it has sent.
SENDER = """
import select, socket, sys, time
rate, number = int(sys.argv[1]), 0
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
    begun = time.monotonic()
    while number % 64 or not select.select([sys.stdin], [], [], 0)[0]:
        # Connected, it would be told that nobody listens.
        sender.sendto(b"%08d" % number, ("10.99.0.1", 9))
        number += 1
        if number == 1000:
            print("begun", flush=True)
        if number % 64 == 0 and (ahead := number / rate - (time.monotonic() - begun)) > 0:
            time.sleep(ahead)
print(number)
"""

# What fails its self-test, and otherwise is the version before.
FAILING = """#!/bin/sh
[ $1 = selftest ] || exec /srv/lib/agent/0.1.0/agentctl "$@"
echo cannot do it >&2
exit 2
"""

# What passes its self-test, dies soon after it is to take over, and otherwise is the version before. Before it dies it
# keeps the log as it is, and waits until the worker has said more.
DEADLY = """#!/bin/sh
case $1 in
  selftest) exit 0 ;;
  daemon)
    cd /srv/spool/speaker
    cp /srv/log/speaker.log log
    heard=$(cat said-*)
    until [ $(cat said-*) -gt $((heard + 50)) ]; do sleep 0.01; done
    kill -KILL $$ ;;
  *) exec /srv/lib/agent/0.1.0/agentctl "$@" ;;
esac
"""

# Where a version stops on its way out: systemd has been given everything, and the next version is not executed yet.
HALTING = Edit(
    "agent/control/succession.py",
    "            environment = self._environment(program, {baton.VARIABLE: str(fd)})\n",
    "            os.kill(os.getpid(), 19)  # SIGSTOP\n"
    "            environment = self._environment(program, {baton.VARIABLE: str(fd)})\n",
)

# Counts, and keeps in a file what it has said so far.
SPEAKER = """
import os, time
said, number = os.open(f"{os.environ['SERVICE_DATA']}/said-{os.getpid()}", os.O_WRONLY | os.O_CREAT), 0
while True:
    number += 1
    print(os.getpid(), number, flush=True)
    os.pwrite(said, b"%d" % number, 0)
    time.sleep(0.001)
"""


def lay_next(host: Host) -> None:
    """The next version lies beside the one that runs, and is what ``current`` leads to."""
    host.copy_in(built(NEXT).tree, f"/srv/lib/agent/{NEXT}")
    swap(host, NEXT)


def swap(host: Host, version: str) -> None:
    host.run(["ln", "-sfn", version, "/srv/lib/agent/next"])
    host.run(["mv", "-T", "/srv/lib/agent/next", "/srv/lib/agent/current"])


def pids(host: Host) -> dict[str, Any]:
    return {service["name"]: service["pid"] for service in host.status()["services"]}


def by_reload(host: Host) -> None:
    """Whatever has installed it, systemd is asked to have it followed."""
    lay_next(host)
    host.systemctl("reload")


def by_upgrade(host: Host) -> None:
    """As an operator does who has copied its one file to the machine."""
    host.copy_in(built(NEXT).onefile, "/root/next")
    host.agentctl("upgrade", "/root/next")


@pytest.mark.parametrize("followed", [by_reload, by_upgrade])
def test_another_version_follows_with_the_process_the_workers_and_every_packet(
    installed: Host, followed: Callable[[Host], None]
) -> None:
    installed.veth("near", "far")
    installed.declare(WEB + CAPTURE)
    installed.systemctl("start")
    process, before = installed.pid, pids(installed)
    sender = installed.program("sender", SENDER)
    with installed.popen(
        ["ip", "netns", "exec", "far", sender, "12000"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as sending:
        assert sending.stdin is not None and sending.stdout is not None
        assert sending.stdout.readline() == b"begun\n"
        followed(installed)
        sending.stdin.close()
        count = int(sending.stdout.read())
    assert installed.status()["agent"]["version"] == NEXT
    assert (installed.pid, pids(installed)) == (process, before)
    assert installed.show(UNIT, "NRestarts", "ActiveState") == {"NRestarts": "0", "ActiveState": "active"}
    report = installed.until("cable", restarts=0, state="running")
    wait_until(lambda: installed.service("cable")["figures"]["received"] >= count)
    figures = installed.service("cable")["figures"]
    assert report["pid"] == before["cable"]
    assert figures["received"] == count
    assert (figures["dropped_kernel"], figures["not_written"]) == (0, 0)
    installed.agentctl("stop", "cable")
    segments = sorted(installed.path("/srv/spool/cable").rglob("*.pcap"))
    stored = [
        subprocess.run(["tcpdump", "-r", file, "-nn"], capture_output=True, text=True, check=True).stdout
        for file in segments
    ]
    assert sum(text.count(".9: UDP") for text in stored) == count
    (told,) = [event["message"] for event in installed.events() if event["kind"] == "handed_over"]
    assert told.startswith(f"version 0.1.0 handed over to {NEXT}; for ")
    # Who starts now is of the next version, and the executable of the process is the next one's.
    installed.agentctl("restart", "web")
    assert installed.path(f"/proc/{process}/exe").readlink() == Path(f"/srv/lib/agent/{NEXT}/agentctl")


def test_systemctl_reload_fails_when_the_next_version_does_not_work_here(installed: Host) -> None:
    installed.declare(WEB)
    installed.systemctl("start")
    before = pids(installed)
    installed.write("/srv/lib/agent/0.1.1/agentctl", FAILING, 0o755)
    swap(installed, "0.1.1")
    assert installed.systemctl("reload", check=False).returncode == 1
    assert "fails its self-test (exited 2): cannot do it" in installed.journal("-u", UNIT)
    swap(installed, "0.1.0")
    assert installed.status()["agent"]["version"] == "0.1.0"
    assert pids(installed) == before
    installed.systemctl("reload")


def started_anew(host: Host, program: str, process: int, killed: int) -> int:
    """Wait until systemd has replaced the agent ``process`` and the one speaker ``killed``; the PID of the new speaker.

    All that has died ran under version 0.1.0.
    """
    host.wait_unit_state(UNIT, ActiveState="active", SubState="running")
    assert host.pid not in (0, process)
    assert host.show(UNIT, "NRestarts") == {"NRestarts": "1"}
    (failed,) = [event for event in host.events() if event["kind"] == "handover_failed"]
    assert "the agent died while version 0.1.0 handed over" in failed["message"]
    speaker: int = host.until("speaker", state="running")["pid"]
    assert speaker != killed
    assert [words for words in host.processes().values() if words[-1:] == [program]] == [["/usr/bin/python3", program]]
    return speaker


def said_by(host: Host, pid: int) -> int:
    """How far a speaker has counted by its own account."""
    return int(host.path(f"/srv/spool/speaker/said-{pid}").read_text())


def assert_no_word_is_lost(host: Host, killed: int, speaker: int) -> None:
    """Everything that the one had said is there, and what its pipe had kept comes before the words of the other."""
    said = said_by(host, killed)
    wait_until(lambda: str(speaker) in host.log("speaker"))
    words = [line.split()[1:] for line in host.log("speaker").splitlines()[:-1]]
    before = [int(number) for pid, number in words if int(pid) == killed]
    assert before == list(range(1, len(before) + 1))
    assert len(before) in (said, said + 1)  # killed between the one and the other
    assert [int(pid) for pid, _ in words] == [killed] * len(before) + [speaker] * (len(words) - len(before))


def test_an_agent_that_dies_in_the_middle_is_started_anew_and_finds_what_systemd_kept(installed: Host) -> None:
    # It says something while nobody listens any more: that is still in its pipe when systemd has killed it.
    program = installed.program("speaker", SPEAKER)
    installed.declare(f'[service.speaker]\nkind = "command"\ncommand = ["{program}"]\n')
    installed.systemctl("start")
    killed = installed.service("speaker")["pid"]
    installed.write("/srv/lib/agent/0.1.1/agentctl", DEADLY, 0o755)
    swap(installed, "0.1.1")
    process = installed.pid
    done = installed.systemctl("reload", check=False)
    assert done.returncode == 1
    speaker = started_anew(installed, program, process, killed)
    heard = int(installed.path("/srv/spool/speaker/log").read_text().splitlines()[-2].split()[-1])
    assert said_by(installed, killed) - heard > 50, "it has said more than the agent before had heard"
    assert_no_word_is_lost(installed, killed, speaker)
    # Nothing is left in the store: the next start begins from nothing.
    installed.wait_unit_state(UNIT, NFileDescriptorStore="0")


def test_an_agent_that_dies_on_its_way_out_is_started_anew_as_the_next_version(installed: Host, tmp_path: Path) -> None:
    vary(tmp_path / "0.1.0", "0.1.0", {HALTING.file: HALTING.made(SOURCE)})
    installed.copy_in(tmp_path / "0.1.0/agentctl", "/srv/lib/agent/0.1.0/agentctl")
    program = installed.program("speaker", SPEAKER)
    installed.declare(f'[service.speaker]\nkind = "command"\ncommand = ["{program}"]\n')
    installed.systemctl("start")
    process, killed = installed.pid, installed.service("speaker")["pid"]
    lay_next(installed)
    reloading = installed.popen(["systemctl", "reload", UNIT], stderr=subprocess.DEVNULL)
    status = installed.path(f"/proc/{process}/status")
    wait_until(lambda: "State:\tT" in status.read_text())
    heard = len(installed.log("speaker").splitlines())
    wait_until(lambda: said_by(installed, killed) > heard + 50)
    installed.wait_unit_state(UNIT, NFileDescriptorStore="2")  # what is known, and the speaker's pipe
    assert installed.pid == process
    installed.signal(process, signal.SIGKILL)
    assert reloading.wait(PATIENCE) == 1
    speaker = started_anew(installed, program, process, killed)
    assert installed.status()["agent"]["version"] == NEXT
    assert_no_word_is_lost(installed, killed, speaker)
    installed.wait_unit_state(UNIT, NFileDescriptorStore="0")


# -- the control socket -----------------------------------------------------------------------------------------------


@pytest.fixture
def activated(installed: Host) -> Host:
    """Only the socket is up."""
    installed.declare(WEB)
    installed.run(["systemctl", "start", "agent.socket"])
    assert installed.show(UNIT, "ActiveState") == {"ActiveState": "inactive"}
    return installed


def test_who_asks_first_starts_the_agent_and_gets_an_answer(activated: Host) -> None:
    assert activated.status()["agent"]["version"] == "0.1.0"
    activated.wait_unit_state(UNIT, ActiveState="active")
    # The same when it has run before and was stopped.
    activated.systemctl("stop")
    assert activated.show(UNIT, "ActiveState") == {"ActiveState": "inactive"}
    assert activated.status()["agent"]["version"] == "0.1.0"
    activated.wait_unit_state(UNIT, ActiveState="active")


def test_nobody_is_refused_while_the_agent_restarts(activated: Host) -> None:
    activated.systemctl("start")
    restarting = activated.popen(["sh", "-c", f"for i in 1 2 3 4 5; do systemctl restart {UNIT} || exit 1; done"])
    asked = 0
    while restarting.poll() is None:
        activated.agentctl("status")
        asked += 1
    assert restarting.returncode == 0
    assert asked > 3
    # Nor when it is killed, and systemd takes its time to start it again.
    activated.signal(activated.pid, signal.SIGKILL)
    assert activated.status()["agent"]["state"] in ("starting", "running")


def test_a_stop_of_socket_and_service_leaves_nothing_that_answers(activated: Host) -> None:
    activated.systemctl("start")
    activated.run(["systemctl", "stop", "agent.socket", UNIT])
    refused = activated.agentctl("status", check=False)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert not activated.path("/srv/run/agent.sock").exists()


def test_the_socket_outlives_a_hand_over(activated: Host) -> None:
    activated.systemctl("start")
    lay_next(activated)
    activated.systemctl("reload")
    assert activated.status()["agent"]["version"] == NEXT
    activated.systemctl("restart")
    assert activated.status()["agent"]["version"] == NEXT
    assert activated.show("agent.socket", "ActiveState", "SubState") == {"ActiveState": "active", "SubState": "running"}
