"""What a cgroup with controllers holds back: forks, memory, processor time."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.installation.timers import OWN_MEMORY, OWN_TASKS
from tests.harness import Agent, commanded, marked, wait_until


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    made = Agent(tmp_path / "srv")
    yield made
    made.clean()


def test_a_fork_bomb_is_bounded_by_pids_and_ends_with_its_service(agent: Agent) -> None:
    agent.declare("""
[service.bomb]
kind = "command"
command = ["/bin/sh", "-c", "bomb() { bomb | bomb & }; bomb; exec sleep 86441"]
limits = { pids = 40 }
stop_timeout = "1s"
max_restarts = 1000

[service.bystander]
kind = "command"
command = ["/bin/sleep", "86442"]
""")
    agent.start()
    assert agent.status()["agent"]["containment"] == "cgroup"
    bystander = agent.service("bystander")["pid"]
    peak = 0
    for _ in range(50):
        peak = max(peak, agent.service("bomb")["processes"] or 0)
    assert 0 < peak <= 40
    assert agent.act("stop", "bomb")["ok"]
    assert not [pid for pid in marked(agent.prefix) if pid not in (agent.pid, bystander)]
    assert agent.service("bystander")["pid"] == bystander


def test_a_service_that_exceeds_its_memory_dies_as_a_whole_and_is_restarted(agent: Agent) -> None:
    agent.declare("""
[service.glutton]
kind = "command"
command = ["/bin/sh", "-c", "sleep 86443 & exec tail /dev/zero"]
limits = { memory = "30M" }
max_restarts = 2
""")
    agent.start()
    report = agent.until("glutton", state="failed")
    assert "killed by SIGKILL" in report["message"]
    assert any(event["kind"] == "out_of_memory" for event in agent.events(service="glutton"))
    assert not commanded("sleep 86443")


def test_a_service_gets_no_more_processor_time_than_its_share(agent: Agent) -> None:
    agent.declare("""
[service.burner]
kind = "command"
command = ["/bin/sh", "-c", "while :; do :; done"]
limits = { cpus = 0.2 }
""")
    agent.start()
    limit = Path("/sys/fs/cgroup") / next(Path("/sys/fs/cgroup").rglob("service.burner")) / "cpu.max"
    assert limit.read_text().split() == ["20000", "100000"]
    stat = limit.with_name("cpu.stat")

    def throttled() -> bool:
        return int(dict(line.split() for line in stat.read_text().splitlines())["nr_throttled"]) > 0

    wait_until(throttled)


JOBS = """
[service.bounded]
kind = "command"
command = ["/bin/sh", "-c", "cat /proc/self/cgroup"]
every = "1h"
limits = { memory = "64M", cpus = 0.5, pids = 20 }

[service.larger]
kind = "command"
command = ["/bin/true"]
every = "1h"
limits = { memory = "32M", cpus = 0.2, pids = 30 }
"""


@pytest.fixture
def unit() -> Iterator[Path]:
    """A cgroup with the limits that systemd sets for the job ``bounded``, as that is rendered."""
    root = Path("/sys/fs/cgroup")
    (root / "cgroup.subtree_control").write_text("+cpu +memory +pids")
    made = root / "agent-job@bounded.service"
    made.mkdir()
    (made / "memory.max").write_text(str(64 * 1024**2 + OWN_MEMORY))
    (made / "cpu.max").write_text("50000 100000")
    (made / "pids.max").write_text(str(20 + OWN_TASKS))
    yield made
    made.rmdir()


def test_run_once_names_the_limits_that_its_unit_does_not_put_in_force(agent: Agent, unit: Path) -> None:
    agent.declare(JOBS)
    enter = ["/bin/sh", "-ec", f'echo 0 > {unit}/cgroup.procs; exec "$@"', "sh"]

    def run_once(name: str) -> subprocess.CompletedProcess[str]:
        command = [*enter, *agent.command("run-once", name)]
        return subprocess.run(command, env=agent.environment(), capture_output=True, text=True, check=True, cwd="/")

    bounded = run_once("bounded")
    assert (bounded.stdout, bounded.stderr) == (f"0::/{unit.name}\n", "")
    assert run_once("larger").stderr == (
        "agentctl: larger: memory, cpus of its limits: run-once does not put them in force\n"
    )
