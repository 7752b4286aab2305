"""What a cgroup with controllers holds back: forks, memory, processor time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

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
