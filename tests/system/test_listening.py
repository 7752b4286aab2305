"""Whose a socket is, on a systemd that has booted: told to root with the process, to anybody else by its cgroup."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.harness import wait_until
from tests.system.container import Container

SOURCE = Path(__file__).resolve().parents[2]

ASK = """
import json, os, sys
sys.path[:0] = ["/opt/ask"]
from agent.workers.watch.listening import listeners
if "nobody" in sys.argv:
    os.setgid(65534)
    os.setuid(65534)
print(json.dumps({
    one.port: [one.owner.unit, [process.name for process in one.processes], one.uid, one.dual] for one in listeners()
}))
"""


@pytest.fixture
def machine() -> Iterator[Container]:
    """A machine with a service, and a socket that systemd holds until somebody comes."""
    binds = {SOURCE / "agent": "/opt/ask/agent", Path(psutil.__file__).parent: "/opt/ask/psutil"}
    with Container(binds=binds, options=["--private-network"]) as booted:
        booted.run(["ip", "link", "set", "lo", "up"], check=False)
        booted.run(
            ["systemd-run", "--unit=web", "-p", "User=games", "python3", "-m", "http.server", "8000", "--bind", "::"]
        )
        booted.write("/etc/systemd/system/later.socket", "[Socket]\nListenStream=127.0.0.1:8001\n")
        booted.write("/etc/systemd/system/later.service", "[Service]\nExecStart=/bin/true\n")
        booted.run(["systemctl", "start", "later.socket"])
        wait_until(lambda: {"8000", "8001"} <= asked(booted).keys())
        yield booted


def asked(machine: Container, *arguments: str) -> Any:
    return json.loads(machine.run(["python3", "-c", ASK, *arguments]).stdout)


def test_the_unit_of_a_socket_is_told_to_root_and_to_anybody(machine: Container) -> None:
    games = int(machine.run(["id", "-u", "games"]).stdout)
    found = asked(machine)
    assert found["8000"] == ["web.service", ["python3"], games, True]
    assert found["8001"] == ["init.scope", ["systemd"], 0, False]
    found = asked(machine, "nobody")
    assert found["8000"] == ["web.service", [], games, True]
    assert found["8001"] == ["init.scope", [], 0, False]
