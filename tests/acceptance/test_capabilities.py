"""What the agent may do stays with it: an agent that is an ordinary user with CAP_NET_RAW, and one that is root."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from agent.linux.capability_sets import Sets, mask, parse_sets
from tests.harness import PATIENCE, SOURCE, Agent, wait_until
from tests.linux.processes import own_directory
from tests.workers.capture.lab import Network, network, numbers

USER = 58731
"""Nobody has this number, and so nothing else on this machine is theirs."""
RAW = mask(["CAP_NET_RAW"])
BIND = mask(["CAP_NET_BIND_SERVICE"])
NOTHING = (0, 0, 0, 0)

OPEN = """
set -e
while [ "$1" != -- ]; do
  closed=$1 tree=$2; shift 2
  mount --bind "$closed" /mnt
  mount -t tmpfs -o mode=755 none "$closed"
  mkdir -p "$tree"
  mount --bind "/mnt${tree#"$closed"}" "$tree"
  umount -l /mnt
done
shift
exec "$@"
"""
"""For each pair, put over a directory that only root may enter one with nothing in it but that tree."""


def opened(*trees: Path) -> tuple[str, ...]:
    """A prefix of a command, in whose mount namespace these can be reached by anybody."""
    pairs: dict[Path, Path] = {}
    for tree in [one for one in trees if not any(one != other and one.is_relative_to(other) for other in trees)]:
        closed = [place for place in (tree, *tree.parents) if place.stat().st_mode & 0o005 != 0o005]
        if closed:
            assert pairs.setdefault(closed[-1], tree) == tree, f"two trees below {closed[-1]}"
    words = [str(path) for pair in pairs.items() for path in pair]
    return ("unshare", "--mount", "--propagation", "private", "sh", "-c", OPEN, "sh", *words, "--")


def ordinary(*names: str) -> tuple[str, ...]:
    """A prefix of a command: as an ordinary user, with these as a unit's ``AmbientCapabilities=`` gives them."""
    given = ",".join(["-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in names)])
    ids = (f"--reuid={USER}", f"--regid={USER}", "--clear-groups")
    return ("setpriv", *ids, f"--inh-caps={given}", f"--ambient-caps={given}", "--no-new-privs")


class Ordinary(Agent):
    """An agent that is started as an ordinary user."""

    def __init__(self, prefix: Path, program: Path | None, *before: str) -> None:
        super().__init__(prefix, program)
        self.before = before
        os.chown(prefix, USER, USER)

    def begin(self, *names: str, before: tuple[str, ...] = (), option: str | None = None) -> None:
        """Start it with these capabilities, and wait until it answers."""
        last = () if option is None else ("sh", "-c", f'exec "$@" {option}', "sh")
        # Its abstract socket for READY=1 would not be found from another network namespace.
        self.start(wrapper=(*self.before, *before, *self.as_user(*names), *last), wait=False)
        wait_until(self.answers, self.console)

    def as_user(self, *names: str) -> tuple[str, ...]:
        return (*opened(Path(sys.base_prefix), Path(sys.prefix), SOURCE, self.prefix), *ordinary(*names))

    def environment(self, more: Any = None) -> dict[str, str]:
        return {**super().environment(more), "HOME": "/"}


@pytest.fixture
def user(tmp_path: Path, program: Path | None, containment: str) -> Iterator[Ordinary]:
    """An agent of an ordinary user, who has a cgroup or not."""
    if containment == "sweep":
        without = ("unshare", "--mount", "sh", "-c", 'umount -R -l /sys/fs/cgroup; exec "$@"', "sh")
        agent = Ordinary(tmp_path / "srv", program, *without)
        yield agent
        agent.clean()
        return
    delegated = own_directory() / f"capabilities-{os.getpid()}"
    delegated.mkdir()
    with suppress(OSError):
        os.setxattr(delegated, "user.delegate", b"1")  # as systemd marks it
    for path in (
        delegated,
        *(delegated / name for name in ("cgroup.procs", "cgroup.subtree_control", "cgroup.threads")),
    ):
        os.chown(path, USER, USER)
    agent = Ordinary(tmp_path / "srv", program, "sh", "-c", f'echo 0 > {delegated}/cgroup.procs; exec "$@"', "sh")
    yield agent
    agent.clean()
    (delegated / "cgroup.kill").write_text("1")
    wait_until(lambda: "populated 0" in (delegated / "cgroup.events").read_text())
    for directory, _, _ in os.walk(delegated, topdown=False):
        Path(directory).rmdir()


def sets(pid: int) -> Sets:
    return parse_sets(Path(f"/proc/{pid}/status").read_text())


def held(pid: int) -> tuple[int, int, int, int]:
    """What a process holds: inheritable, permitted, effective, ambient."""
    found = sets(pid)
    return found.inheritable, found.permitted, found.effective, found.ambient


def owner(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


COMMANDS = """
[service.plain]
kind = "command"
command = ["/bin/sh", "-c", "sleep 86431; :"]

[service.bound]
kind = "command"
command = ["/bin/sh", "-c", "sleep 86432; :"]
capabilities = ["net_bind_service"]

[service.none]
kind = "command"
command = ["/bin/sleep", "86433"]
capabilities = []
"""


def arguments(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_command_holds_nothing_but_what_it_declares(user: Ordinary, containment: str) -> None:
    user.declare(COMMANDS)
    user.begin("CAP_NET_RAW", "CAP_NET_BIND_SERVICE")
    pids = {name: user.until(name, state="running")["pid"] for name in ("plain", "bound", "none")}
    assert user.status()["agent"]["containment"] == containment
    assert {owner(pid) for pid in pids.values()} == {USER}
    assert held(user.pid) == (0, RAW | BIND, RAW | BIND, 0)
    wait_until(lambda: bool(children(pids["plain"]) and children(pids["bound"])))
    assert held(pids["plain"]) == held(*children(pids["plain"])) == held(pids["none"]) == NOTHING
    assert held(pids["bound"]) == held(*children(pids["bound"])) == (BIND,) * 4
    # And so it is for whoever takes the place of one that was killed.
    for name, holds in (("plain", NOTHING), ("bound", (BIND,) * 4)):
        os.kill(pids[name], signal.SIGKILL)
        user.until(name, state="running", restarts=1)
        assert held(user.service(name)["pid"]) == holds
    assert user.stop() == 0


def test_what_the_agent_does_not_hold_fails_for_good_and_says_how_to_grant_it(user: Ordinary) -> None:
    user.declare(COMMANDS)
    user.begin("CAP_NET_RAW")
    report = user.until("bound", state="failed")
    assert report["message"] == (
        "cannot start /bin/sh: its `capabilities` ask for CAP_NET_BIND_SERVICE, which the agent does not hold; "
        "a drop-in of its unit grants it: AmbientCapabilities=CAP_NET_BIND_SERVICE and "
        "CapabilityBoundingSet=CAP_NET_BIND_SERVICE (configuration error: not retried)"
    )
    assert report["restarts"] == 0
    assert [event["kind"] for event in user.events(service="bound")] == ["spawn_failed", "failed"]
    assert not (user.prefix / "run" / "bound.pid").exists()
    assert user.until("plain", state="running")["pid"]
    assert user.stop() == 0


def test_a_reload_that_changes_capabilities_restarts_with_them(user: Ordinary) -> None:
    user.declare(COMMANDS)
    user.begin("CAP_NET_BIND_SERVICE")
    before = {name: user.until(name, state="running")["pid"] for name in ("plain", "bound", "none")}
    user.declare(COMMANDS.replace('capabilities = ["net_bind_service"]', "").replace("capabilities = []", ""))
    done = user.ctl("reload")
    assert "bound: restarted (capabilities)" in done.stdout
    assert "none: restarted (capabilities)" in done.stdout
    after = user.until("bound", state="running")["pid"]
    assert after != before["bound"]
    assert held(after) == NOTHING
    assert user.service("plain")["pid"] == before["plain"]
    user.declare(COMMANDS.replace('["net_bind_service"]', '["CAP_NET_BIND_SERVICE"]'))
    assert "bound: restarted (capabilities)" in user.ctl("reload").stdout
    assert held(user.until("bound", state="running")["pid"]) == (BIND,) * 4
    user.declare(COMMANDS)
    assert "3 services unchanged" in user.ctl("reload").stdout
    assert user.stop() == 0


def test_the_way_through_the_command_lines_parser_loses_nothing(user: Ordinary) -> None:
    user.declare(COMMANDS)
    user.begin("CAP_NET_RAW", "CAP_NET_BIND_SERVICE", option="--json")
    assert b"daemon" in Path(f"/proc/{user.pid}/cmdline").read_bytes().split(b"\0")
    assert held(user.pid) == (0, RAW | BIND, RAW | BIND, 0)
    assert held(user.until("bound", state="running")["pid"]) == (BIND,) * 4
    assert held(user.until("plain", state="running")["pid"]) == NOTHING
    assert user.stop() == 0


def test_doctor_looks_at_what_the_running_agent_holds(user: Ordinary) -> None:
    user.declare(COMMANDS)
    user.begin("CAP_NET_RAW")
    rows = {row["finding"]: row for row in json.loads(user.ctl("doctor", "--json").stdout)["checks"]}
    row = rows["service.bound: the agent does not hold CAP_NET_BIND_SERVICE"]
    assert (row["name"], row["verdict"]) == ("capabilities", "fail")
    assert "AmbientCapabilities=CAP_NET_BIND_SERVICE" in row["mend"]
    assert rows["CAP_NET_RAW is effective"]["verdict"] == "ok"
    assert user.stop() == 0


@pytest.fixture
def net() -> Iterator[Network]:
    """A namespace with one pair, and itself."""
    with network() as made:
        made.pair("near", "far")
        made.up("lo")
        yield made


WORKERS = """
[service.edge]
kind = "capture"
interfaces = ["far"]
rotate = { size = "64KiB", every = "1m" }
budget = "4MiB"

[service.quick]
kind = "scan"
targets = ["127.0.0.1"]
ports = "1-20"

[service.slow]
kind = "scan"
targets = ["10.88.0.0/24"]
profile = "discovery"
rate = 1
"""


def test_captures_and_scans_have_raw_sockets_and_so_has_nmap_alone(user: Ordinary, net: Network) -> None:
    link = ("link add idle type veth peer name void", "link set void up", "link set idle up")
    for command in (*link, "addr add 10.88.0.1/24 dev idle"):  # where nobody answers
        subprocess.run(["ip", "-n", net.name, *command.split()], check=True)
    user.declare(WORKERS + COMMANDS.replace("net_bind_service", "net_raw"))
    user.begin("CAP_NET_RAW", before=("nsenter", f"--net=/run/netns/{net.name}"))
    edge = user.until("edge", state="running")["pid"]
    net.send("near", 300)
    wait_until(lambda: user.service("edge")["figures"].get("written", 0) >= 300, lambda: str(user.service("edge")))
    assert held(edge) == (0, RAW, RAW, 0)
    slow = user.until("slow", state="running")["pid"]
    assert held(slow) == (0, RAW, RAW, 0)
    wait_until(lambda: any(b"-oX" in arguments(pid) for pid in children(slow)))
    [nmap] = children(slow)
    assert (owner(nmap), held(nmap)) == (USER, (RAW,) * 4)
    assert held(user.until("plain", state="running")["pid"]) == NOTHING
    user.until("quick", state="completed")
    with closing(sqlite3.connect(user.prefix / "spool" / "quick" / "scan.db")) as database:
        assert database.execute("SELECT status, engine FROM runs").fetchall() == [("finished", "syn")]
    assert "connect" not in user.log("quick") + user.log("slow")
    assert user.stop() == 0
    assert numbers(user.prefix / "spool" / "edge", "far") == list(range(300))


def test_without_the_capability_a_capture_says_so_and_a_scan_does_without(user: Ordinary, net: Network) -> None:
    user.declare(WORKERS)
    user.begin(before=("nsenter", f"--net=/run/netns/{net.name}"))
    user.until("quick", state="completed")
    assert "CAP_NET_RAW is not held: ports are asked by connect" in user.log("quick")
    wait_until(lambda: "CAP_NET_RAW" in user.log("edge"))
    assert user.stop() == 0


ONCE = """
[service.job]
kind = "command"
command = ["grep", "-E", "Cap(Inh|Prm|Eff|Amb)", "/proc/self/status"]
oncalendar = "yearly"

[service.granted]
kind = "command"
command = ["grep", "-E", "Cap(Inh|Prm|Eff|Amb)", "/proc/self/status"]
capabilities = ["CAP_NET_RAW"]
oncalendar = "yearly"

[service.refused]
kind = "command"
command = ["/bin/true"]
capabilities = ["CAP_SYS_TIME"]
oncalendar = "yearly"

[service.lan]
kind = "scan"
targets = ["127.0.0.1"]
ports = "1-20"
oncalendar = "yearly"
"""


def test_run_once_hands_on_what_the_agent_would(user: Ordinary, net: Network) -> None:
    user.declare(ONCE)

    def once(name: str) -> subprocess.CompletedProcess[str]:
        before = (*user.before, "nsenter", f"--net=/run/netns/{net.name}")
        command = [*before, *user.as_user("CAP_NET_RAW"), *user.command("run-once", name)]
        return subprocess.run(
            command, env=user.environment(), capture_output=True, text=True, timeout=PATIENCE, check=False, cwd="/"
        )

    for name, holds in (("job", 0), ("granted", RAW)):
        done = once(name)
        assert done.returncode == 0, done.stderr
        assert [int(line.split()[1], 16) for line in done.stdout.splitlines()] == [holds] * 4
    refused = once("refused")
    assert refused.returncode == 1
    assert "AmbientCapabilities=CAP_SYS_TIME" in refused.stderr
    assert refused.stderr.count("\n") == 1
    done = once("lan")
    assert done.returncode == 0, done.stderr
    with closing(sqlite3.connect(user.prefix / "spool" / "lan" / "scan.db")) as database:
        assert database.execute("SELECT status, engine FROM runs").fetchall() == [("finished", "syn")]


OF_ROOT = """
[service.almighty]
kind = "command"
command = ["/bin/sleep", "86434"]

[service.confined]
kind = "command"
command = ["/bin/sh", "-c", "sleep 86435; :"]
capabilities = ["net_raw"]

[service.powerless]
kind = "command"
command = ["/bin/sleep", "86436"]
capabilities = []

[service.somebody]
kind = "command"
command = ["/bin/sleep", "86437"]
user = "nobody"

[service.granted]
kind = "command"
command = ["/bin/sh", "-c", "sleep 86438; :"]
user = "nobody"
capabilities = ["net_bind_service", "net_raw"]

[service.edge]
kind = "capture"
interfaces = ["far"]
user = "nobody"
rotate = { size = "64KiB", every = "1m" }
budget = "4MiB"

[service.all]
kind = "capture"
interfaces = ["far"]
rotate = { size = "64KiB", every = "1m" }
budget = "4MiB"
"""


def test_an_agent_that_is_root_gives_exactly_what_is_declared_and_to_other_users_nothing_else(
    agent: Agent, containment: str, net: Network
) -> None:
    agent.declare(OF_ROOT)
    without = ("unshare", "--mount", "sh", "-c", 'umount -R -l /sys/fs/cgroup; exec "$@"', "sh")
    where = ("nsenter", f"--net=/run/netns/{net.name}", *(without if containment == "sweep" else ()))
    opening = opened(Path(sys.base_prefix), Path(sys.prefix), SOURCE, agent.prefix)
    agent.start(wrapper=(*where, *opening), wait=False)
    wait_until(agent.answers, agent.console)
    names = ("almighty", "confined", "powerless", "somebody", "granted", "edge", "all")
    pids = {name: agent.until(name, state="running")["pid"] for name in names}
    assert agent.status()["agent"]["containment"] == containment
    everything = sets(agent.pid).bounding
    assert held(pids["almighty"]) == (0, everything, everything, 0)
    wait_until(lambda: bool(children(pids["confined"]) and children(pids["granted"])))
    assert held(pids["confined"]) == held(*children(pids["confined"])) == (RAW,) * 4
    assert held(pids["powerless"]) == NOTHING
    assert {owner(pids[name]) for name in ("almighty", "confined", "powerless", "all")} == {0}
    assert {owner(pids[name]) for name in ("somebody", "granted", "edge")} == {65534}
    assert held(pids["somebody"]) == NOTHING
    assert held(pids["granted"]) == held(*children(pids["granted"])) == (RAW | BIND,) * 4
    assert held(pids["edge"]) == (0, RAW, RAW, 0)
    assert held(pids["all"]) == (0, everything, everything, 0)
    net.send("near", 50)
    wait_until(lambda: agent.service("edge")["figures"].get("written", 0) >= 50, lambda: str(agent.service("edge")))
    assert agent.stop() == 0
    assert numbers(agent.prefix / "spool" / "edge", "far") == list(range(50))
