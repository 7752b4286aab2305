"""``agentctl upgrade``: another version tried out, installed and followed; or refused, and the one before goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.binary import Edit, built
from tests.harness import wait_until
from tests.system.host import UNIT, Host

NEXT = "0.1.1"

MOON = Edit(
    "agent/cli/proofs.py",
    "def calendar(",
    "def calendar(*_: object) -> Proof:\n    raise RuntimeFailure('a moon is in the way')\n\n\ndef _old(",
)
"""By which a version fails its self-test."""

WEB = """
[service.web]
kind = "command"
command = ["/usr/bin/python3", "-m", "http.server", "8000"]
"""


@pytest.fixture
def host(installed: Host) -> Host:
    """The agent is up, and systemd holds its socket."""
    installed.declare(WEB)
    installed.run(["systemctl", "enable", "--now", "--quiet", "agent.socket", UNIT])
    return installed


def offered(host: Host) -> str:
    """The one file of the next version, as an operator has copied it."""
    host.copy_in(built(NEXT).onefile, "/root/agentctl-next")
    return "/root/agentctl-next"


def running(host: Host) -> tuple[str, int, int | None]:
    """Which version runs, as which process, with which worker."""
    return host.status()["agent"]["version"], host.pid, host.service("web")["pid"]


def refused(host: Host, file: str, code: int) -> str:
    """The one line with which a file is refused, after which everything is as it was."""
    before = running(host)
    done = host.agentctl("upgrade", file, check=False)
    assert done.returncode == code, done.stderr
    assert running(host) == before
    assert host.run(["readlink", "/srv/lib/agent/current"]).stdout == f"{before[0]}\n"
    return done.stderr.splitlines()[-1]


def test_another_version_is_installed_and_followed_with_every_worker_running_on(host: Host) -> None:
    _, process, worker = running(host)
    done = host.agentctl("upgrade", offered(host))
    assert f"version 0.1.0 handed over to {NEXT}; for " in done.stdout
    assert running(host) == (NEXT, process, worker)
    assert host.run(["readlink", "/srv/lib/agent/current"]).stdout == f"{NEXT}\n"
    assert host.show(UNIT, "NRestarts") == {"NRestarts": "0"}
    # The version before stays, to go back to; and again there is nothing to do.
    assert host.path("/srv/lib/agent/0.1.0/agentctl").exists()
    again = json.loads(host.agentctl("upgrade", "/root/agentctl-next", "--json").stdout)
    assert again["message"] == f"{NEXT} is installed, and runs"
    assert running(host) == (NEXT, process, worker)
    host.agentctl("upgrade")
    assert running(host) == (NEXT, process, worker)


def settled(host: Host, process: int) -> int:
    """How many descriptors the agent has open, once whoever asked it last has hung up."""
    looks: list[int] = []

    def steady() -> bool:
        looks.append(len(list(host.path(f"/proc/{process}/fd").iterdir())))
        return looks[-10:] == 10 * looks[-1:]

    wait_until(steady, lambda: f"{looks[-10:]} descriptors")
    return looks[-1]


def test_versions_follow_each_other_as_often_as_they_are_installed(host: Host) -> None:
    _, process, worker = running(host)
    file = offered(host)
    descriptors = []
    for _ in range(3):
        host.agentctl("upgrade", file)
        assert running(host) == (NEXT, process, worker)
        host.run(["/root/agentctl", "install", "--force"])
        host.systemctl("reload")
        assert running(host) == ("0.1.0", process, worker)
        descriptors.append(settled(host, process))
    assert descriptors[0] == descriptors[-1], "none is left behind"
    environment = host.path(f"/proc/{process}/environ").read_bytes()
    assert environment.count(b"LD_LIBRARY_PATH=") <= 1
    assert host.show(UNIT, "NRestarts", "NFileDescriptorStore") == {"NRestarts": "0", "NFileDescriptorStore": "0"}
    assert len([event for event in host.events() if event["kind"] == "handed_over"]) == 6


def test_without_an_agent_it_is_only_installed(host: Host) -> None:
    host.run(["systemctl", "stop", "agent.socket", UNIT])
    assert host.agentctl("upgrade", offered(host)).stdout == f"{NEXT} is installed; no agent runs\n"
    host.systemctl("start")
    assert host.status()["agent"]["version"] == NEXT


def test_what_is_no_program_for_this_machine_is_refused(host: Host) -> None:
    host.write("/root/notes", "not a program\n", 0o755)
    assert "/root/notes: is no agentctl, nor any other program" in refused(host, "/root/notes", 1)
    assert "/root/nowhere: cannot be read: No such file" in refused(host, "/root/nowhere", 1)
    host.run(["mkfifo", "/root/pipe"])
    assert "/root/pipe: is no agentctl" in refused(host, "/root/pipe", 1)
    foreign = host.path("/root/foreign")
    foreign.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xb7\x00" + bytes(100))
    foreign.chmod(0o755)
    assert "is for aarch64, and this machine is x86_64: get the agentctl for x86_64" in refused(
        host, "/root/foreign", 1
    )
    host.run(["cp", "/bin/true", "/root/true"])
    assert "/root/true: does not say which version of agentctl it is" in refused(host, "/root/true", 2)
    host.run(["chmod", "-x", "/root/agentctl"])
    assert "may not be executed: chmod +x" in refused(host, "/root/agentctl", 1)


def test_a_version_whose_self_test_fails_is_refused_before_anything_is_touched(host: Host) -> None:
    host.copy_in(built(NEXT, MOON).onefile, "/root/broken")
    assert "fails its self-test: calendar: a moon is in the way; nothing was changed" in refused(
        host, "/root/broken", 2
    )
    assert not host.path(f"/srv/lib/agent/{NEXT}").exists()


def test_a_version_that_cannot_take_over_leaves_the_one_before_running_and_installed(host: Host) -> None:
    broken = built(
        NEXT,
        Edit(
            "agent/supervisor/unit.py",
            "        host = self._host\n        self.state",
            "        raise LookupError('no such thing')\n        self.state",
        ),
    )
    host.copy_in(broken.onefile, "/root/broken")
    told = refused(host, "/root/broken", 2)
    assert f"version {NEXT} cannot take over: no such thing; 0.1.0 is installed again" in told
    host.systemctl("restart")
    assert host.status()["agent"]["version"] == "0.1.0"


def test_a_truncated_download_is_refused(host: Host) -> None:
    whole = offered(host)
    host.run(["sh", "-c", f"head -c 6000000 {whole} > /root/half && chmod +x /root/half"])
    refused(host, "/root/half", 2)


def test_an_upgrade_that_is_killed_at_any_time_stops_nobody_and_the_next_finishes_it(host: Host) -> None:
    (_, process, worker), file = running(host), offered(host)
    said, library = host.path("/root/said"), host.path("/srv/lib/agent")

    def says(word: str) -> Callable[[], bool]:
        return lambda: said.exists() and word in said.read_text()

    def record() -> dict[str, Any]:
        found: dict[str, Any] = json.loads((library / "install.json").read_text())
        return found

    for moment in (
        says("trying it out"),
        says("installing it below"),
        lambda: not record()["complete"],
        lambda: (library / NEXT / "agentctl").exists(),
        lambda: str((library / "current").readlink()) == NEXT and not record()["complete"],
    ):
        said.unlink(missing_ok=True)
        # Each begins with what the one before has left, and gets further.
        assert host.kill_when(moment, ["sh", "-c", f"exec agentctl upgrade {file} 2>/root/said"])
        assert moment()
        assert running(host) == ("0.1.0", process, worker)
    # From here on it goes on without whoever has asked for it.
    host.kill_when(says("hands over"), ["sh", "-c", f"exec agentctl upgrade {file} 2>/root/said"])
    wait_until(lambda: running(host) == (NEXT, process, worker))
    host.agentctl("upgrade", file)
    assert running(host) == (NEXT, process, worker)
    assert (record()["version"], record()["complete"]) == (NEXT, True)
    assert not list(library.rglob("*.agentctl"))
    assert host.show(UNIT, "NRestarts", "ActiveState") == {"NRestarts": "0", "ActiveState": "active"}


def test_an_upgrade_by_somebody_who_may_not_is_refused(host: Host) -> None:
    file = offered(host)
    host.run(["chmod", "755", "/root", file])
    before = running(host)
    done = host.run(["/srv/bin/agentctl", "upgrade", file], user="nobody", check=False)
    assert done.returncode == 2
    assert done.stderr == "agentctl: installing another version takes root: do it as root (sudo)\n"
    assert running(host) == before


def test_two_at_the_same_instant_both_find_what_they_want_running(host: Host) -> None:
    _, process, worker = running(host)
    file = offered(host)
    both = f"/srv/bin/agentctl upgrade {file} & /srv/bin/agentctl upgrade {file}; first=$?; wait $! && exit $first"
    done = host.run(["sh", "-c", both], check=False)
    assert done.returncode == 0, done.stderr
    assert running(host) == (NEXT, process, worker)
    assert host.show(UNIT, "NRestarts") == {"NRestarts": "0"}
    told = done.stdout.splitlines()
    assert len(told) == 2
    assert all(f" handed over to {NEXT}; for " in line or line == f"{NEXT} is installed, and runs" for line in told)
