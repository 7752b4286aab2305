"""The Debian package: the same to the bit, right by Debian's own judge, and at home on a Debian that runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import deb
from agent import __version__
from agent.declaration.default import TEMPLATE
from tests.binary import ROOT, built, vary
from tests.harness import wait_until
from tests.system.container import Container
from tests.system.root import CACHE
from tests.system.test_install import things
from tests.system.test_upgrade import MOON

pytestmark = pytest.mark.timeout(300)

NEXT = "0.1.1"

SERVICES = """
[service.sleeper]
kind = "command"
command = ["/usr/bin/sleep", "100000"]

[service.loopback]
kind = "capture"
interfaces = ["lo"]
"""

SLOW = """
[service.slow]
kind = "command"
command = ["/bin/sh", "-c", "until [ -e /opt/open ]; do sleep 0.1; done; systemd-notify --ready; exec sleep 100000"]
ready = "notify"

[service.loopback]
kind = "capture"
interfaces = ["lo"]
"""

JOBS = """
[agent]
scheduler = "systemd"

[service.report]
kind = "command"
command = ["/bin/sh", "-c", "until [ -e /opt/open ]; do sleep 0.1; done"]
oncalendar = "yearly"
persistent = true

[service.backup]
kind = "command"
command = ["/bin/true"]
oncalendar = "yearly"
persistent = true
"""

TIMERS = ["agent-job@backup.timer", "agent-job@report.timer"]


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The package of this version as it is published, and that of the next packed as quickly as can be."""
    place = tmp_path_factory.mktemp("packages")
    return {
        __version__: deb.package(built().tree, place),
        NEXT: deb.package(built(NEXT).tree, place, level=0),
    }


@pytest.fixture
def host(packages: dict[str, Path]) -> Iterator[Container]:
    """A Debian that has just booted, with both packages at hand."""
    with Container(binds={path: inside(version) for version, path in packages.items()}) as container:
        yield container


def inside(version: str) -> str:
    """Where a container finds the package of that version."""
    return f"/root/agent-{version}.deb"


def dpkg(host: Container, *words: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    environment |= {"DEBIAN_FRONTEND": "noninteractive"}
    return host.run(["dpkg", *words], check=check, environment=environment, timeout=120)


def field(package: Path, name: str) -> str:
    return subprocess.run(["dpkg-deb", "-f", package, name], capture_output=True, text=True, check=True).stdout.strip()


def listed(package: Path) -> dict[str, tuple[str, str]]:
    """Mode and owner of everything in the package, by its path; links with where they lead."""
    shown = subprocess.run(["dpkg-deb", "-c", package], capture_output=True, text=True, check=True).stdout
    rows = (line.split(maxsplit=5) for line in shown.splitlines())
    return {path.removeprefix("."): (mode, owner) for mode, owner, _, _, _, path in rows}


# -- what it is -------------------------------------------------------------------------------------------------------


def test_the_same_installed_form_becomes_the_same_package_to_the_bit(packages: dict[str, Path], tmp_path: Path) -> None:
    """Wherever it lies, whenever, with whatever umask, locale and time zone."""
    copy = tmp_path / built().tree.name
    shutil.copytree(built().tree, copy)
    for path in copy.rglob("*"):
        os.utime(path)
    environment = {"PATH": os.environ["PATH"], "TZ": "Pacific/Auckland", "LC_ALL": "tr_TR.UTF-8", "XZ_OPT": "-0"}
    command = [sys.executable, str(deb.ROOT / "packaging/deb.py"), str(tmp_path)]
    done = subprocess.run(command, check=True, umask=0o077, env=environment, cwd="/", capture_output=True, text=True)
    made = tmp_path / packages[__version__].name
    assert done.stdout == f"  {made}\n"
    assert made.read_bytes() == packages[__version__].read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {made.name, copy.name}, "nothing is left beside it"


def test_lintian_has_nothing_to_say_but_what_is_explained(packages: dict[str, Path]) -> None:
    done = subprocess.run(
        ["lintian", "--allow-root", "--fail-on", "error,warning", packages[__version__]],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


OF_SOME_PYTHONS = ("library-not-linked-against-libc",)
"""What Debian's own Python, by which a program may be built as well, has no such modules for."""


def test_every_override_has_its_reason_above_it_and_is_used(packages: dict[str, Path]) -> None:
    text = (deb.SCRIPTS / "lintian-overrides").read_text()
    for paragraph in text.split("\n\n"):
        lines = paragraph.strip().splitlines()
        assert lines[0].startswith("# ") and lines[-1].startswith(f"{deb.PACKAGE}: ")
    shown = subprocess.run(
        ["lintian", "--allow-root", "--show-overrides", "--info", packages[__version__]],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    for line in text.splitlines():
        if line.startswith(f"{deb.PACKAGE}: ") and line.split()[1] not in OF_SOME_PYTHONS:
            assert f"O: {deb.PACKAGE}: {line.split()[1]}" in shown
    assert "mismatched-override" not in shown and "unused-override" not in shown


def test_it_says_what_it_is_and_what_it_needs(packages: dict[str, Path]) -> None:
    package = packages[__version__]
    assert package.name == f"agent_{__version__}-1_{field(package, 'Architecture')}.deb"
    needed = re.split(r", ", field(package, "Depends"))
    assert {"nmap", "zlib1g", "systemd (>= 252)"} <= set(needed)
    assert any(re.fullmatch(r"libc6 \(>= 2\.\d+\)", one) for one in needed)
    size = sum(path.stat().st_size for path in built().tree.rglob("*") if path.is_file()) // 1024
    assert size < int(field(package, "Installed-Size")) < size * 1.1 + 200


def test_everything_is_where_debian_has_it_and_roots(packages: dict[str, Path]) -> None:
    found = listed(packages[__version__])
    assert {owner for _, owner in found.values()} == {"root/root"}
    assert {mode for mode, _ in found.values()} <= {"drwxr-xr-x", "-rw-r--r--", "-rwxr-xr-x", "lrwxrwxrwx"}
    assert {path for path in found if path.startswith("/usr/lib/systemd/system/agent")}
    for path in (
        "/usr/bin/agentctl -> ../lib/agent/current/agentctl",
        f"/usr/lib/agent/current -> {__version__}",
        f"/usr/lib/agent/{__version__}/agentctl",
        "/usr/lib/sysusers.d/agent.conf",
        "/usr/lib/tmpfiles.d/agent.conf",
        "/usr/share/man/man1/agentctl.1.gz",
        "/usr/share/bash-completion/completions/agentctl",
        "/usr/share/zsh/vendor-completions/_agentctl",
        "/usr/share/fish/vendor_completions.d/agentctl.fish",
        "/usr/share/doc/agent/copyright",
        "/usr/share/doc/agent/changelog.Debian.gz",
    ):
        assert path in found
    assert not any(path.startswith(("/srv", "/etc", "/var")) for path in found), "no conffiles, and no data"


def test_the_scripts_are_read_by_any_shell() -> None:
    for script in deb.SCRIPTS.iterdir():
        if script.name != "lintian-overrides":
            subprocess.run(["dash", "-n", script], check=True)


def test_without_an_installed_form_it_says_how_that_is_made(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"holds no installed form .*: make binary"):
        deb.package(tmp_path, tmp_path)


# -- what it does -----------------------------------------------------------------------------------------------------


def version(host: Container) -> str:
    """What the running agent says that it is."""
    return host.run(["agentctl", "status"]).stdout.splitlines()[0].partition(", version ")[2].partition(",")[0]


def declare(host: Container, text: str) -> None:
    host.run(["tee", "/srv/key/env.toml"], stdin=text)


def workers(host: Container) -> dict[str, str]:
    """The process of each service that has one just now."""
    found = {}
    for path in host.path("/srv/run").glob("[sl]*.pid"):
        with suppress(FileNotFoundError):  # it has ended since
            found[path.stem] = path.read_text()
    return found


def trees(host: Container) -> list[str]:
    """The versions whose files are there, and what else is beside them."""
    return sorted(path.name for path in host.path("/usr/lib/agent").iterdir())


def executed(host: Container, pid: str) -> str:
    """The file that a process executes."""
    return host.run(["readlink", f"/proc/{pid.strip()}/exe"]).stdout.strip()


def replaced(host: Container) -> str:
    """Kill the capture; the file that its successor executes."""
    before = workers(host)["loopback"]
    host.run(["bash", "-c", f"kill -KILL {before}"])
    wait_until(lambda: workers(host).get("loopback") not in (None, before))
    return executed(host, workers(host)["loopback"])


def runs(host: Container, text: str = SERVICES) -> tuple[dict[str, str], dict[str, str]]:
    """Install this version and have it do that; the processes of the agent and of its services."""
    dpkg(host, "-i", inside(__version__))
    declare(host, text)
    host.run(["systemctl", "reload", "agent.service"])
    return host.show("agent.service", "MainPID"), workers(host)


def sync(host: Container) -> None:
    """Install this version, and have systemd run jobs."""
    runs(host, JOBS)
    host.run(["agentctl", "timers", "sync"])
    assert active(host) == TIMERS


def active(host: Container) -> list[str]:
    """The timers of jobs that are started."""
    command = ["systemctl", "list-units", "--plain", "--no-legend", "--state=active", "agent-job@*.timer"]
    return [line.split()[0] for line in host.run(command).stdout.splitlines()]


def state(host: Container) -> str:
    """What dpkg says of the package."""
    return host.run(["dpkg-query", "-W", "-f", "${Status} ${Version}", "agent"]).stdout


def spoil(host: Container, path: str, call: str) -> None:
    """Have a maintainer script do what it does, and fail when it is called for that."""
    text = host.path(path).read_text()
    host.write(path, f'{text}\n[ "$1" != {call} ] || exit 1\n', 0o755)


def spoiled(host: Container, version: str, script: str, call: str) -> str:
    """The package of that version with a script that fails."""
    host.run(["dpkg-deb", "-R", inside(version), "/root/spoiled"])
    spoil(host, f"/root/spoiled/DEBIAN/{script}", call)
    host.run(["dpkg-deb", "-Znone", "-b", "/root/spoiled", "/root/spoiled.deb"], timeout=60)
    return "/root/spoiled.deb"


def test_installed_it_runs_and_purged_it_leaves_nothing(host: Container) -> None:
    before, accounts = things(host), host.run(["getent", "passwd"]).stdout + host.run(["getent", "group"]).stdout
    dpkg(host, "-i", inside(__version__))
    assert host.run(["systemctl", "is-enabled", "agent.service", "agent.socket"]).stdout == "enabled\nenabled\n"
    assert version(host) == __version__
    assert host.run(["cat", "/srv/key/env.toml"]).stdout == TEMPLATE
    assert host.run(["stat", "-c", "%U:%G %a", "/srv/key/env.toml"]).stdout == "root:agent 640\n"
    exe = host.run(["bash", "-c", "readlink /proc/$(systemctl show -P MainPID agent)/exe"]).stdout
    assert exe == f"/usr/lib/agent/{__version__}/agentctl\n"
    assert dpkg(host, "--verify", "agent").stdout == ""
    dpkg(host, "-P", "agent")
    assert {path for path in things(host) if not path.startswith("/var/lib/dpkg/")} == {
        path for path in before if not path.startswith("/var/lib/dpkg/")
    }
    assert host.run(["getent", "passwd"]).stdout + host.run(["getent", "group"]).stdout == accounts
    assert host.run(["systemctl", "list-units", "--all", "--plain", "--no-legend", "agent*"]).stdout == ""


def test_an_upgrade_stops_nothing(host: Container) -> None:
    before = runs(host)
    dpkg(host, "-i", inside(NEXT))
    assert version(host) == NEXT
    assert (host.show("agent.service", "MainPID"), workers(host)) == before
    assert trees(host) == [__version__, NEXT, "current"], "the capture is still of the version before"
    assert executed(host, before[1]["loopback"]).startswith(f"/usr/lib/agent/{__version__}/agentctl")
    assert replaced(host) == f"/usr/lib/agent/{NEXT}/agentctl"
    host.run(["dpkg-reconfigure", "agent"])
    assert trees(host) == [NEXT, "current"]
    assert dpkg(host, "--verify", "agent").stdout == ""


def test_the_same_version_again_and_the_one_before_stop_nothing_either(host: Container) -> None:
    before = runs(host)
    for following in (__version__, NEXT, __version__):
        dpkg(host, "-i", inside(following))
        assert version(host) == following
        assert (host.show("agent.service", "MainPID"), workers(host)) == before
        assert executed(host, before[0]["MainPID"]) == f"/usr/lib/agent/{following}/agentctl"
    assert replaced(host) == f"/usr/lib/agent/{__version__}/agentctl"
    assert trees(host) == [__version__, "current"]
    assert dpkg(host, "--verify", "agent").stdout == ""


def test_a_version_that_cannot_be_followed_goes_on_with_its_files(host: Container) -> None:
    """The declaration is wrong when the package is upgraded."""
    before = runs(host)
    declare(host, "[service.")
    said = dpkg(host, "-i", inside(NEXT)).stderr
    assert "agent: the last version goes on, with its files; agentctl upgrade tries again" in said
    assert version(host) == __version__
    assert (host.show("agent.service", "MainPID"), workers(host)) == before
    replaced(host)
    # It is not mended when the package is configured again, or installed.
    for command in (["dpkg-reconfigure", "agent"], ["dpkg", "-i", inside(NEXT)]):
        again = host.run(command, environment={"DEBIAN_FRONTEND": "noninteractive"}, timeout=60)
        assert "agent: the last version goes on, with its files" in again.stderr
        assert state(host) == f"install ok installed {NEXT}-1"
        assert trees(host) == [__version__, NEXT, "current"]
    replaced(host)
    declare(host, SERVICES)
    host.run(["agentctl", "upgrade"])
    assert version(host) == NEXT
    assert workers(host)["sleeper"] == before[1]["sleeper"]
    replaced(host)
    host.run(["dpkg-reconfigure", "agent"])
    assert trees(host) == [NEXT, "current"]


def test_a_version_that_fails_its_self_test_is_not_followed(host: Container, tmp_path: Path) -> None:
    before = runs(host)
    vary(tmp_path / "broken", NEXT, {MOON.file: MOON.made(ROOT)})
    host.copy_in(deb.package(tmp_path / "broken", tmp_path, level=0), "/root/broken.deb")
    said = dpkg(host, "-i", "/root/broken.deb").stderr
    assert "fails its self-test (exited 2): calendar: a moon is in the way" in said
    assert "agent: the last version goes on, with its files; agentctl upgrade tries again" in said
    assert version(host) == __version__
    assert (host.show("agent.service", "MainPID"), workers(host)) == before
    assert trees(host) == [__version__, NEXT, "current"]
    assert executed(host, before[0]["MainPID"]).startswith(f"/usr/lib/agent/{__version__}/agentctl")
    assert replaced(host) == f"/usr/lib/agent/{__version__}/agentctl"
    # Back to what works, or on to what does.
    dpkg(host, "-i", inside(__version__))
    assert (version(host), host.show("agent.service", "MainPID")) == (__version__, before[0])
    assert trees(host) == [__version__, "current"]
    dpkg(host, "-i", inside(NEXT))
    assert (version(host), host.show("agent.service", "MainPID")) == (NEXT, before[0])
    assert workers(host)["sleeper"] == before[1]["sleeper"]


def test_an_agent_that_is_starting_is_waited_for_and_followed(host: Container) -> None:
    """As when unattended-upgrades comes early in a boot."""
    dpkg(host, "-i", inside(__version__))
    declare(host, SLOW)
    host.run(["systemctl", "restart", "--no-block", "agent.service"])
    wait_until(lambda: workers(host).keys() == {"slow", "loopback"})
    before = host.show("agent.service", "MainPID"), workers(host)
    assert host.show("agent.service", "ActiveState") == {"ActiveState": "activating"}
    upgrade = host.popen(["dpkg", "-i", inside(NEXT)])
    wait_until(lambda: host.path(f"/usr/lib/agent/{NEXT}/agentctl").exists())
    with pytest.raises(subprocess.TimeoutExpired):
        upgrade.wait(5)
    assert host.show("agent.service", "ActiveState") == {"ActiveState": "activating"}
    host.write("/opt/open", "")
    assert upgrade.wait(60) == 0
    assert version(host) == NEXT
    assert (host.show("agent.service", "MainPID"), workers(host)) == before
    assert trees(host) == [__version__, NEXT, "current"]
    assert replaced(host) == f"/usr/lib/agent/{NEXT}/agentctl"


def test_a_run_of_a_job_that_systemd_has_started_keeps_its_files(host: Container) -> None:
    sync(host)
    host.run(["systemctl", "start", "--no-block", "agent-job@report.service"])
    wait_until(lambda: host.path("/srv/run/report.pid").exists())
    job = host.show("agent-job@report.service", "MainPID")["MainPID"]
    # The agent itself is down: nobody hands over, and the job still needs what it was started from.
    host.run(["systemctl", "disable", "--now", "--quiet", "agent.socket", "agent.service"])
    dpkg(host, "-i", inside(NEXT))
    assert executed(host, job).startswith(f"/usr/lib/agent/{__version__}/agentctl")
    assert trees(host) == [__version__, NEXT, "current"]
    host.write("/opt/open", "")
    host.wait_unit_state("agent-job@report.service", ActiveState="inactive", Result="success", StatusText="exited 0")
    host.run(["dpkg-reconfigure", "agent"])
    assert trees(host) == [NEXT, "current"]


def test_what_root_has_in_its_path_and_environment_changes_nothing(host: Container) -> None:
    for mine, packaged in ((NEXT, __version__), (__version__, NEXT)):
        host.copy_in(built(mine).onefile, "/usr/local/bin/agentctl")
        assert host.run(["agentctl", "--version"]).stdout == f"agentctl {mine}\n"
        dpkg(host, "-i", inside(packaged), PREFIX="/usr/local")
        assert trees(host) == [packaged, "current"]
        assert executed(host, host.show("agent.service", "MainPID")["MainPID"]) == f"/usr/lib/agent/{packaged}/agentctl"
        assert dpkg(host, "--verify", "agent").stdout == ""


@pytest.mark.parametrize(("script", "call"), [("preinst", "upgrade"), ("postrm", "failed-upgrade")])
def test_an_upgrade_that_dpkg_takes_back_is_taken_back(host: Container, script: str, call: str) -> None:
    """Before anything has changed; and when the agent has become the next version already."""
    before = runs(host)
    if script == "postrm":
        spoil(host, "/var/lib/dpkg/info/agent.postrm", "upgrade")
    assert dpkg(host, "-i", spoiled(host, NEXT, script, call), check=False).returncode != 0
    assert state(host) == f"install ok installed {__version__}-1"
    assert version(host) == __version__
    assert (host.show("agent.service", "MainPID"), workers(host)) == before
    assert replaced(host) == f"/usr/lib/agent/{__version__}/agentctl"
    assert trees(host) == [__version__, "current"]
    assert dpkg(host, "--verify", "agent").stdout == ""


def test_a_version_that_is_unpacked_and_not_configured_is_followed_and_can_be_removed(host: Container) -> None:
    before = runs(host)
    for following in (NEXT, __version__, NEXT):
        dpkg(host, "--unpack", inside(following))
        assert version(host) == following
        assert (host.show("agent.service", "MainPID"), workers(host)) == before
    dpkg(host, "--configure", "agent")
    assert trees(host) == [__version__, NEXT, "current"]
    dpkg(host, "--unpack", inside(__version__))
    dpkg(host, "-r", "agent")
    assert host.run(["pgrep", "-u", "agent"], check=False).stdout == ""
    assert not host.path("/usr/lib/agent").exists()


def test_removed_it_keeps_declaration_and_data_and_is_there_again_when_it_comes_back(host: Container) -> None:
    dpkg(host, "-i", inside(__version__))
    declare(host, SERVICES)
    host.run(["systemctl", "reload", "agent.service"])
    dpkg(host, "-r", "agent")
    assert host.run(["cat", "/srv/key/env.toml"]).stdout == SERVICES
    assert host.path("/srv/spool/agent/events.db").exists()
    assert host.run(["pgrep", "-u", "agent"], check=False).stdout == ""
    assert not host.path("/usr/lib/agent").exists()
    dpkg(host, "-i", inside(__version__))
    wait_until(lambda: "2 running" in host.run(["agentctl", "status"]).stdout)


def test_removed_it_stops_the_timers_of_jobs_and_starts_them_when_it_comes_back(host: Container) -> None:
    sync(host)
    host.run(["systemctl", "disable", "--now", "--quiet", TIMERS[0]])
    dpkg(host, "-r", "agent")
    assert active(host) == []
    dpkg(host, "-i", inside(__version__))
    assert active(host) == TIMERS[1:], "one is not enabled"
    # An operator's own stop lasts until the next boot: an upgrade does not end it.
    host.run(["systemctl", "stop", TIMERS[1]])
    dpkg(host, "-i", inside(NEXT))
    assert active(host) == []


def test_where_the_host_says_that_nothing_is_to_be_started_nothing_is(host: Container) -> None:
    sync(host)
    dpkg(host, "-r", "agent")
    host.write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", 0o755)
    dpkg(host, "-i", inside(__version__))
    assert active(host) == []
    assert host.show("agent.service", "ActiveState") == {"ActiveState": "inactive"}
    host.reboot()
    assert active(host) == TIMERS
    assert version(host) == __version__


def test_a_removal_that_dpkg_takes_back_has_everything_running_again(host: Container) -> None:
    sync(host)
    spoil(host, "/var/lib/dpkg/info/agent.prerm", "remove")
    assert dpkg(host, "-r", "agent", check=False).returncode != 0
    assert state(host) == f"deinstall ok installed {__version__}-1"
    assert active(host) == TIMERS
    assert version(host) == __version__


def test_a_purge_leaves_nothing_of_jobs_but_what_an_operator_has_made(host: Container) -> None:
    before = things(host)
    stamps = set(host.path("/var/lib/systemd/timers").glob("*"))
    sync(host)
    assert len(set(host.path("/var/lib/systemd/timers").glob("*")) - stamps) == 2
    mine = [
        "/etc/systemd/system/agent-job@backup.timer.d",
        "/etc/systemd/system/agent-job@backup.timer.d/mine.conf",
        "/etc/systemd/system/agent-job@own.timer.d",
        "/etc/systemd/system/agent-job@own.timer.d/10-declaration.conf",
    ]
    for path in mine[1::2]:
        host.write(path, "[Timer]\nOnCalendar=monthly\n")
    # As of a `timers sync` that was killed three times.
    host.write("/etc/systemd/system/agent-job@report.timer.d/.10-declaration.conf.agentctl", "[Ti")
    host.path("/etc/systemd/system/timers.target.wants/.agent-job@report.timer.agentctl").symlink_to("/nowhere")
    host.path("/etc/systemd/system/.agent-job@next.timer.d.agentctl").mkdir()
    dpkg(host, "-P", "agent")
    after = {path for path in things(host) if not path.startswith("/var/lib/dpkg/")}
    assert after == {path for path in before if not path.startswith("/var/lib/dpkg/")} | set(mine)
    assert set(host.path("/var/lib/systemd/timers").glob("*")) == stamps
    assert host.run(["systemctl", "list-units", "--all", "--plain", "--no-legend", "agent*"]).stdout == ""


def test_what_was_there_before_is_there_after_a_purge(host: Container) -> None:
    host.run(["useradd", "--system", "--user-group", "agent"])
    host.write("/srv/log/theirs", "theirs")
    host.write("/srv/key/env.toml", "# mine\n")
    dpkg(host, "-i", inside(__version__))
    assert host.run(["cat", "/srv/key/env.toml"]).stdout == "# mine\n"
    dpkg(host, "-P", "agent")
    assert host.run(["getent", "passwd", "agent"]).stdout
    assert host.run(["cat", "/srv/log/theirs", "/srv/key/env.toml"]).stdout == "theirs# mine\n"
    assert sorted(path.name for path in host.path("/srv").iterdir()) == ["key", "log"]


def test_a_host_whose_presets_say_no_has_it_disabled(host: Container) -> None:
    host.write("/etc/systemd/system-preset/00-none.preset", "disable agent.*\n")
    dpkg(host, "-i", inside(__version__))
    shown = host.run(["systemctl", "is-enabled", "agent.service", "agent.socket"], check=False).stdout
    assert shown == "disabled\ndisabled\n"
    assert host.show("agent.service", "ActiveState") == {"ActiveState": "inactive"}


def test_it_does_not_hide_behind_one_that_was_installed_by_hand(host: Container) -> None:
    host.copy_in(built().onefile, "/root/agentctl")
    host.run(["/root/agentctl", "install"])
    done = dpkg(host, "-i", inside(__version__), check=False)
    assert done.returncode != 0
    assert (
        "belongs to an agent installed by hand; agentctl uninstall takes that back, and its data stays" in done.stderr
    )
    assert host.run(["agentctl", "--version"]).stdout == f"agentctl {__version__}\n"
    host.run(["/root/agentctl", "uninstall"])
    dpkg(host, "-i", inside(__version__))
    assert version(host) == __version__
    done = host.run(["/root/agentctl", "install"], check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "the package agent is installed; apt remove agent first" in done.stderr


def test_an_image_that_is_being_built_has_it_after_its_first_boot(packages: dict[str, Path]) -> None:
    """In a chroot where no systemd runs."""
    with Container(boot=False) as host:
        host.copy_in(packages[__version__], inside(__version__))
        command = ["nsenter", f"--target={host._first}", "--mount", "--pid", "chroot", f"{CACHE}/mount/root"]
        done = subprocess.run(
            [*command, "dpkg", "-i", inside(__version__)],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        host.boot()
        assert version(host) == __version__
