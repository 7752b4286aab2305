"""The Debian package: the same to the bit, right by Debian's own judge, and at home on a Debian that runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import deb
from agent import __version__
from agent.declaration.default import TEMPLATE
from tests.binary import built
from tests.harness import wait_until
from tests.system.container import Container
from tests.system.root import CACHE
from tests.system.test_install import things

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


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The package of this version and of the next."""
    place = tmp_path_factory.mktemp("packages")
    return {version: deb.package(built(version).tree, place) for version in (__version__, NEXT)}


@pytest.fixture
def host(packages: dict[str, Path]) -> Iterator[Container]:
    """A Debian that has just booted, with both packages at hand."""
    with Container(binds={path: inside(version) for version, path in packages.items()}) as container:
        yield container


def inside(version: str) -> str:
    """Where a container finds the package of that version."""
    return f"/root/agent-{version}.deb"


def dpkg(host: Container, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    environment = {"DEBIAN_FRONTEND": "noninteractive"}
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
        if line.startswith(f"{deb.PACKAGE}: "):
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
    return {path.stem: path.read_text() for path in host.path("/srv/run").glob("[sl]*.pid")}


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
    dpkg(host, "-i", inside(__version__))
    declare(host, SERVICES)
    host.run(["systemctl", "reload", "agent.service"])
    agent, running = host.show("agent.service", "MainPID"), workers(host)
    dpkg(host, "-i", inside(NEXT))
    assert version(host) == NEXT
    assert (host.show("agent.service", "MainPID"), workers(host)) == (agent, running)
    assert sorted(path.name for path in host.path("/usr/lib/agent").iterdir()) == [NEXT, "current"]
    host.run(["bash", "-c", f"kill -KILL {running['loopback']}"])
    wait_until(lambda: workers(host).get("loopback") not in (None, running["loopback"]))
    exe = host.run(["readlink", f"/proc/{workers(host)['loopback'].strip()}/exe"]).stdout
    assert exe == f"/usr/lib/agent/{NEXT}/agentctl\n"


def test_a_version_that_cannot_be_followed_goes_on_with_its_files(host: Container) -> None:
    """The declaration is wrong when the package is upgraded."""
    dpkg(host, "-i", inside(__version__))
    declare(host, SERVICES)
    host.run(["systemctl", "reload", "agent.service"])
    agent, running = host.show("agent.service", "MainPID"), workers(host)
    declare(host, "[service.")
    said = dpkg(host, "-i", inside(NEXT)).stderr
    assert "agent: the last version goes on, with its files; agentctl upgrade tries again" in said
    assert version(host) == __version__
    assert (host.show("agent.service", "MainPID"), workers(host)) == (agent, running)
    host.run(["bash", "-c", f"kill -KILL {running['loopback']}"])
    wait_until(lambda: workers(host).get("loopback") not in (None, running["loopback"]))
    declare(host, SERVICES)
    host.run(["agentctl", "upgrade"])
    assert version(host) == NEXT
    assert workers(host)["sleeper"] == running["sleeper"]
    host.run(["dpkg-reconfigure", "agent"])
    assert sorted(path.name for path in host.path("/usr/lib/agent").iterdir()) == [NEXT, "current"]


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
