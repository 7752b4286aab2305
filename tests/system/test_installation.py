"""Installed, used and taken back on a real system: nothing is missing in between, and nothing is left in the end."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.binary import built
from tests.system.host import UNIT, Host

WEB = """
[service.web]
kind = "command"
command = ["/usr/bin/python3", "-m", "http.server", "8000"]

[service.lan]
kind = "capture"
interfaces = ["near0"]
"""

OF_THE_SYSTEM = (
    *("/proc", "/sys", "/dev", "/run", "/tmp", "/var/tmp", "/var/log", "/var/lib/systemd"),
    *("/etc/.pwd.lock", "/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-", "/etc/.updated"),
    *("/var/.updated", "/opt/agentctl"),
)
"""What every system changes by itself, or keeps of any change of its users; and the one file that we bring."""

ACCOUNTS = ("/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow")


@pytest.fixture
def bare() -> Iterator[Host]:
    """A machine with the one file on it, and nothing installed."""
    with Host() as host:
        host.copy_in(built().onefile, "/opt/agentctl")
        host.veth("near0", "far0")
        yield host


def everything(host: Host) -> dict[str, str]:
    """Every path of the system with what it is, and the text of the files that name users."""
    apart = [word for path in OF_THE_SYSTEM for word in ("-path", path, "-prune", "-o")]
    form = "%p\\t%y %m %U:%G %l\\n"
    lines = host.run(["find", "/", *apart, "-printf", form]).stdout.splitlines()
    found = dict(line.split("\t", 1) for line in lines)
    return found | {path: host.path(path).read_text() for path in ACCOUNTS}


def laid(host: Host) -> dict[str, str]:
    """The same without what the agent writes while it runs."""
    written = ("/srv/run", "/srv/tmp", "/srv/spool", "/srv/log")
    return {path: what for path, what in everything(host).items() if not path.startswith(written)}


def test_uninstall_leaves_nothing_of_what_was_installed_and_ran(bare: Host) -> None:
    before = everything(bare)
    bare.run(["/opt/agentctl", "install"])
    bare.declare(WEB)
    bare.run(["systemctl", "enable", "--quiet", "--now", "agent.socket", UNIT])
    bare.until("lan", state="running")
    bare.reboot()
    bare.veth("near0", "far0")
    bare.wait_unit_state(UNIT, ActiveState="active")
    processes = set(bare.processes())
    bare.agentctl("uninstall", "--purge")
    assert everything(bare) == before
    left = {pid: words for pid, words in bare.processes().items() if pid not in processes}
    assert left == {}
    assert not [words for words in bare.processes().values() if "agent" in words[0]]
    units = bare.run(["systemctl", "list-units", "--all", "--plain", "--no-legend", "agent*"]).stdout
    assert units == ""


def test_uninstall_without_purge_keeps_what_the_operator_and_the_agent_have_written(bare: Host) -> None:
    bare.run(["/opt/agentctl", "install"])
    bare.declare(WEB)
    bare.systemctl("start")
    bare.until("lan", state="running")
    bare.agentctl("uninstall")
    assert bare.show(UNIT, "LoadState") == {"LoadState": "not-found"}
    assert bare.path("/srv/key/env.toml").read_text() == WEB
    assert bare.path("/srv/spool/agent/events.db").exists()
    assert not bare.path("/srv/bin").exists()
    # Installed again it goes on where it was.
    bare.run(["/opt/agentctl", "install"])
    bare.systemctl("start")
    assert [service["name"] for service in bare.status()["services"]] == ["lan", "web"]
    assert len([event for event in bare.events() if event["kind"] == "agent_started"]) == 2


def test_installing_again_changes_nothing_and_does_not_disturb_what_runs(bare: Host) -> None:
    bare.run(["/opt/agentctl", "install"])
    bare.declare(WEB)
    bare.systemctl("start")
    bare.until("lan", state="running")
    before, pid = laid(bare), bare.pid
    assert bare.run(["/opt/agentctl", "install"]).stdout == "nothing to do: 0.1.0 is installed below /srv\n"
    assert laid(bare) == before
    assert bare.pid == pid


def test_another_prefix_is_a_whole_installation_of_its_own(bare: Host) -> None:
    before = everything(bare)
    bare.run(["/opt/agentctl", "install", "--prefix", "/opt/deep/agent"])
    bare.write("/opt/deep/agent/key/env.toml", WEB, 0o640)
    bare.run(["chown", "root:agent", "/opt/deep/agent/key/env.toml"])
    bare.systemctl("start")
    status = json.loads(bare.run(["/opt/deep/agent/bin/agentctl", "status", "--json"]).stdout)
    assert status["agent"]["prefix"] == "/opt/deep/agent"
    assert [service["state"] for service in status["services"]] == ["running", "running"]
    assert bare.path("/opt/deep/agent/run/agent.pid").read_text() == f"{bare.pid}\n"
    assert list(bare.path("/srv").iterdir()) == []
    bare.run(["/opt/deep/agent/bin/agentctl", "uninstall", "--purge"])
    assert everything(bare) == before
