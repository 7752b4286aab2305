"""The same program and the same units under a newer systemd, which knows more and may think differently."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.binary import built
from tests.system.host import UNIT, Host
from tests.system.root import NEWER

DECLARED = """
[agent]
scheduler = "systemd"

[service.web]
kind = "command"
command = ["/usr/bin/python3", "-m", "http.server", "8000"]

[service.cable]
kind = "capture"
interfaces = ["near"]

[service.tick]
kind = "command"
command = ["/bin/true"]
oncalendar = "*:*:0/2"
"""


@pytest.fixture
def newer() -> Iterator[Host]:
    """Debian 13 with the agent installed."""
    with Host(suite=NEWER) as host:
        host.install()
        host.veth("near", "far")
        host.declare(DECLARED)
        yield host


def test_it_is_installed_starts_upgrades_runs_jobs_and_is_taken_back(newer: Host) -> None:
    assert int(newer.run(["systemctl", "--version"]).stdout.split()[1]) > 252
    newer.run(["systemctl", "enable", "--now", "--quiet", "agent.socket", UNIT])
    status = newer.status()
    assert [service["state"] for service in status["services"]] == ["running", "waiting", "running"]
    assert status["agent"]["containment"] == "cgroup"
    newer.agentctl("timers", "sync")
    newer.wait_journal(lambda line: "Finished agent-job@tick.service" in line, "-u", "agent-job@tick.service")
    process, workers = newer.pid, {one["name"]: one["pid"] for one in newer.status()["services"]}
    newer.copy_in(built("0.1.1").onefile, "/root/next")
    report = json.loads(newer.agentctl("upgrade", "/root/next", "--json").stdout)
    assert (report["state"], report["after"]) == ("done", "0.1.1")
    assert newer.pid == process
    assert {one["name"]: one["pid"] for one in newer.status()["services"]} == workers
    newer.declare(DECLARED + "colour = 3\n")
    assert newer.systemctl("reload", check=False).returncode == 1
    newer.declare(DECLARED)
    newer.systemctl("reload")
    newer.systemctl("restart")
    assert newer.status()["agent"]["state"] == "running"
    newer.agentctl("uninstall", "--purge")
    assert not newer.path("/srv/lib/agent").exists()


def test_it_finds_nothing_to_complain_of_in_the_units(newer: Host) -> None:
    newer.systemctl("start")
    verified = newer.run(
        [
            "systemd-analyze",
            "verify",
            "--man=no",
            *(f"/etc/systemd/system/{name}" for name in (UNIT, "agent.socket", "agent.slice")),
        ],
        check=False,
    )
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")
    said = newer.journal("-u", UNIT, "-p", "warning", "_PID=1")
    assert said == "", "what systemd itself warns of"
