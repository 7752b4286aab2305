"""The unit where controllers are: limits are in force for the user `agent`, and strike nobody but whom they are for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness import wait_until
from tests.system.host import UNIT, Host

HUNGRY = "import time\nkept = b'x' * (200 << 20)\ntime.sleep(3600)\n"
FORKS = """
import os, time
born = 0
try:
    while True:
        if os.fork() == 0:
            time.sleep(3600)
        born += 1
except OSError as error:
    print(f"after {born}: {error.strerror}", flush=True)
time.sleep(3600)
"""
DECLARATION = """
[service.calm]
kind = "command"
command = ["/bin/sleep", "4321"]
limits = { cpus = 0.5 }

[service.hungry]
kind = "command"
command = ["/opt/tests/hungry"]
restart = "no"
limits = { memory = "64MiB" }

[service.forks]
kind = "command"
command = ["/opt/tests/forks"]
limits = { pids = 20 }

[service.lan]
kind = "capture"
interfaces = ["near0"]
limits = { memory = "256MiB", pids = 20 }
"""


@pytest.mark.timeout(300)
def test_limits_are_in_force_under_the_unit_and_strike_only_their_own_service() -> None:
    """And who indexes stands back for the capture although nobody may be nice there."""
    with Host() as host:
        host.install()
        host.veth("near0", "far0")
        host.program("hungry", HUNGRY)
        host.program("forks", FORKS)
        host.declare(DECLARATION)
        host.systemctl("start")
        agent = host.pid
        host.until("hungry", state="failed")
        wait_until(lambda: "after 19: Resource temporarily unavailable" in host.log("forks"))
        kinds = [(event["service"], event["kind"]) for event in host.events()]
        assert ("hungry", "out_of_memory") in kinds
        assert not [kind for _, kind in kinds if kind == "limits_not_in_force"]
        tree = host.path("/sys/fs/cgroup/agent.slice/agent.service")
        assert (tree / "service.calm/cpu.max").read_text() == "50000 100000\n"
        # The unit itself did not take it amiss.
        assert host.show(UNIT, "ActiveState", "MainPID") == {"ActiveState": "active", "MainPID": str(agent)}
        assert host.service("calm")["state"] == "running"
        # And it starts again, with controllers in force, after it was killed.
        host.systemctl("kill", "--kill-whom=main", "--signal=KILL")
        host.wait_unit_state(UNIT, ActiveState="active", NRestarts="1")
        host.until("calm", state="running")
        stands_back(host)


def stands_back(host: Host) -> None:
    """Whether the index process of ``lan`` is in a cgroup of its own that weighs less, now and after a restart."""
    host.until("lan", state="running")
    service = host.path("/sys/fs/cgroup/agent.slice/agent.service/service.lan")
    aside = service / "aside"
    for turn in range(2):
        wait_until(lambda: (aside / "cgroup.threads").exists() and bool((aside / "cgroup.threads").read_text()))
        assert (aside / "cpu.weight.nice").read_text() == "10\n"
        assert int((service / "cpu.weight").read_text()) > int((aside / "cpu.weight").read_text())
        (index,) = [pid for pid, words in host.processes().items() if words[1:3] == ["worker", "index"]]
        assert Path(f"/proc/{index}/cgroup").read_text().rstrip().endswith("/service.lan/aside")
        # What holds for the service holds for it too, and goes on doing so for the next.
        assert host.service("lan")["processes"] == 2
        assert (service / "memory.max").read_text() == f"{256 << 20}\n"
        if not turn:
            host.agentctl("restart", "lan")
            host.until("lan", state="running")
    host.agentctl("stop", "lan")
    assert (service / "cgroup.events").read_text().startswith("populated 0")
    assert not [event for event in host.events() if event["kind"] == "limits_not_in_force"]
    host.systemctl("stop")
    assert not service.exists()
