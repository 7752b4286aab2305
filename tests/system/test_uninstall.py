"""Taken back after it was installed, ran and was rebooted: nothing is left, or all that the operator wants kept."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agent.telemetry.kinds import KINDS
from tests.binary import built
from tests.harness import wait_until
from tests.system.host import UNIT, Host

WEB = """
[service.web]
kind = "command"
command = ["/usr/bin/python3", "-m", "http.server", "8000"]

[service.lan]
kind = "capture"
interfaces = ["near0"]
"""

JOBS = """
[agent]
scheduler = "systemd"

[service.nightly]
kind = "command"
command = ["/bin/true"]
oncalendar = "03:00"
persistent = true

[service.failing]
kind = "command"
command = ["/bin/false"]
oncalendar = "*:*:*"
"""

OF_THE_SYSTEM = (
    *("/proc", "/sys", "/dev", "/run", "/tmp", "/var/tmp", "/var/log", "/var/lib/systemd"),
    *("/etc/.pwd.lock", "/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-", "/etc/.updated"),
    *("/var/.updated", "/root/agentctl"),
)
"""What every system changes by itself, or keeps of any change of its users; and the one file that we bring."""

ACCOUNTS = ("/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow")


@pytest.fixture
def bare(suite: str) -> Iterator[Host]:
    """A machine with the one file on it, and nothing installed."""
    with Host(suite=suite) as host:
        host.copy_in(built().onefile, "/root/agentctl")
        host.veth("near0", "far0")
        yield host


def everything(host: Host) -> dict[str, str]:
    """Every path of the system with what it is, and the text of the files that name users."""
    apart = [word for path in OF_THE_SYSTEM for word in ("-path", path, "-prune", "-o")]
    form = "%p\\t%y %m %U:%G %l\\n"
    lines = host.run(["find", "/", *apart, "-printf", form]).stdout.splitlines()
    found = dict(line.split("\t", 1) for line in lines)
    return found | {path: host.path(path).read_text() for path in ACCOUNTS}


def passing(host: Host) -> set[str]:
    """What bears the name of the agent, or of what it unpacks, where everything else is left out of account."""
    named = ("(", "-name", "*agent*", "-o", "-name", "_MEI*", ")")
    places = ("/run", "/tmp", "/var/tmp", "/var/lib/systemd")
    # Of a unit that failed systemd 252 may leave its own note of LogExtraFields= there until the next boot.
    of_systemds = ("-not", "-path", "/run/log/journal/*", "-not", "-path", "/run/systemd/units/log-extra-fields:*")
    return set(host.run(["find", *places, *named, *of_systemds]).stdout.splitlines())


def explained(host: Host) -> set[str]:
    """The kinds of our events that the journal's catalog explains."""
    known = host.run(["journalctl", "--list-catalog"]).stdout
    return {name for name, kind in KINDS.items() if kind.id in known}


def test_uninstall_leaves_nothing_of_what_was_installed_and_ran(bare: Host) -> None:
    bare.run(["journalctl", "--update-catalog"])
    before, before_of_the_system = everything(bare), passing(bare)
    bare.run(["/root/agentctl", "install"])
    assert explained(bare) == set(KINDS)
    bare.declare(JOBS + WEB)
    bare.run(["systemctl", "enable", "--quiet", "--now", "agent.socket", UNIT])
    bare.until("lan", state="running")
    bare.agentctl("timers", "sync")
    bare.wait_unit_state("agent-job@failing.service", Result="exit-code")
    bare.reboot()
    bare.veth("near0", "far0")
    bare.wait_unit_state(UNIT, ActiveState="active")
    processes = set(bare.processes())
    bare.agentctl("uninstall", "--purge")
    assert everything(bare) == before
    # systemd forgets what it notes of a unit when it forgets the unit, which is a moment after it ended.
    wait_until(lambda: passing(bare) == before_of_the_system, lambda: str(passing(bare) - before_of_the_system))
    assert explained(bare) == set()
    left = {pid: words for pid, words in bare.processes().items() if pid not in processes}
    assert left == {}
    assert not [words for words in bare.processes().values() if "agent" in words[0]]
    units = bare.run(["systemctl", "list-units", "--all", "--plain", "--no-legend", "agent*"]).stdout
    assert units == ""


def test_a_user_who_is_still_at_work_is_not_deleted_and_keeps_the_data(bare: Host) -> None:
    bare.run(["/root/agentctl", "install"])
    with bare.popen(["runuser", "-u", "agent", "--", "sleep", "86400"]):
        wait_until(lambda: bare.run(["pgrep", "-u", "agent"], check=False).returncode == 0)
        refused = bare.agentctl("uninstall", "--purge", check=False)
        assert refused.returncode == 2
        assert "agentctl: still running as user agent, who is to be deleted: process " in refused.stderr
        assert bare.path("/srv/key/env.toml").exists() and bare.path("/srv/bin/agentctl").exists()
        bare.agentctl("uninstall")
        bare.run(["pkill", "-u", "agent"])
    bare.run(["/root/agentctl", "uninstall", "--purge"])
    assert bare.run(["getent", "passwd", "agent"], check=False).returncode == 2


def test_an_agent_whose_units_lie_on_a_read_only_disk_runs_on(bare: Host) -> None:
    bare.run(["/root/agentctl", "install"])
    bare.declare(WEB)
    bare.systemctl("start")
    agent = bare.pid
    bare.run(["mount", "--bind", "/etc", "/etc"])
    bare.run(["mount", "-o", "remount,bind,ro", "/etc"])
    refused = bare.agentctl("uninstall", check=False)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == "agentctl: /etc: its file system is mounted read-only: remount it, then try again\n"
    assert bare.pid == agent


def test_uninstall_without_purge_keeps_what_the_operator_and_the_agent_have_written(bare: Host) -> None:
    bare.run(["/root/agentctl", "install"])
    bare.declare(WEB)
    bare.systemctl("start")
    bare.until("lan", state="running")
    bare.agentctl("uninstall")
    assert bare.show(UNIT, "LoadState") == {"LoadState": "not-found"}
    assert bare.path("/srv/key/env.toml").read_text() == WEB
    assert bare.path("/srv/spool/agent/events.db").exists()
    assert not bare.path("/srv/bin").exists()
    # Installed again it goes on where it was.
    bare.run(["/root/agentctl", "install"])
    bare.systemctl("start")
    assert [service["name"] for service in bare.status()["services"]] == ["lan", "web"]
    assert len([event for event in bare.events() if event["kind"] == "agent_started"]) == 2
