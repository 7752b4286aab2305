"""``agentctl install`` on a real system: from the one file to a running service, to the next version, and back."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from agent import __version__
from tests.binary import Edit, built, vary
from tests.harness import SOURCE, wait_until
from tests.system.container import Container

ONE_FILE = "/root/agentctl"
NEXT = "0.1.1"
NEXT_FILE = "/root/agentctl-next"

LAID = f"/opt/demo/lib/agent/{__version__}/agentctl"
"""Where the one file goes when it is run for that prefix."""

SERVICE = """
[service.sleeper]
kind = "command"
command = ["/usr/bin/sleep", "100000"]

[service.loopback]
kind = "capture"
interfaces = ["lo"]
"""


@pytest.fixture
def host() -> Iterator[Container]:
    """A machine to which nothing has been brought but the one file of this version and of the next."""
    with Container(binds={built().onefile: ONE_FILE, built(NEXT).onefile: NEXT_FILE}) as container:
        yield container


def things(host: Container) -> set[str]:
    """Every path of the machine that outlives a boot, but for what systemd and apt keep for themselves."""
    apart = r"/(proc|sys|dev|run|tmp)(/.*)?|/var/(tmp|log|lib/systemd|lib/private|cache)/.*|.*/\.pwd\.lock|/etc/.*-"
    found = host.run(["find", "/", "-xdev", "-regextype", "posix-extended", "-regex", apart, "-prune", "-o", "-print"])
    return set(found.stdout.splitlines())


def stamps(host: Container) -> list[str]:
    """Inode, mode, owner and times of each path where an installation lays or makes something, its own data apart."""
    apart = [word for name in ("run", "tmp", "spool", "log") for word in ("-path", f"/srv/{name}", "-prune", "-o")]
    shown = host.run(["find", "/srv", "/etc", "/usr/local", *apart, "-printf", "%p %i %m %u %g %T@ %C@\n"])
    return sorted(shown.stdout.splitlines())


def declare(host: Container, text: str, prefix: str = "/srv") -> None:
    host.run(["tee", f"{prefix}/key/env.toml"], stdin=text)


def version(host: Container, prefix: str = "/srv") -> str:
    """What the running agent says that it is."""
    shown = host.run([f"{prefix}/bin/agentctl", "status"]).stdout.splitlines()[0]
    return shown.partition(", version ")[2].partition(",")[0]


def test_from_one_file_to_a_service_and_back_to_nothing(host: Container) -> None:
    before, accounts = things(host), host.run(["getent", "passwd"]).stdout + host.run(["getent", "group"]).stdout
    host.run([ONE_FILE, "install"])
    declare(host, SERVICE)
    host.run(["systemctl", "enable", "--now", "agent.socket", "agent.service"])
    assert host.show("agent.service", "ActiveState") == {"ActiveState": "active"}
    assert version(host) == __version__
    assert host.run(["agentctl", "install"]).stdout == f"nothing to do: {__version__} is installed below /srv\n"
    said = host.run(["agentctl", "uninstall"]).stdout
    assert "stopped   agent-job@*.timer, agent.socket, agent-job@*.service, agent.service, agent.slice" in said
    assert host.show("agent.service", "LoadState", "ActiveState") == {
        "LoadState": "not-found",
        "ActiveState": "inactive",
    }
    left = things(host) - before
    assert left and all(path.startswith(("/srv/key", "/srv/spool", "/srv/log", "/srv/lib")) for path in left)
    host.run([ONE_FILE, "uninstall", "--purge"])
    assert things(host) == before
    assert host.run(["getent", "passwd"]).stdout + host.run(["getent", "group"]).stdout == accounts
    assert (
        "agent"
        not in host.run(["systemctl", "list-units", "--all", "--plain", "agent*"]).stdout.split("loaded units")[0]
    )


def test_a_second_installation_beside_a_running_agent_changes_nothing_and_says_so(host: Container) -> None:
    host.run([ONE_FILE, "install"])
    declare(host, SERVICE)
    host.run(["systemctl", "enable", "--now", "agent.socket", "agent.service"])
    before, agent = stamps(host), host.show("agent.service", "MainPID")
    for program in (ONE_FILE, "agentctl"):
        assert host.run([program, "install"]).stdout == f"nothing to do: {__version__} is installed below /srv\n"
        assert stamps(host) == before
    assert host.show("agent.service", "MainPID") == agent


BASH_COMPLETION = "/usr/share/bash-completion/bash_completion"

LOOKED_UP = {
    "man": (["man", "-w", "agentctl"], "/opt/demo/share/man/man1/agentctl.1"),
    "bash": (
        ["bash", "-c", f". {BASH_COMPLETION}; _completion_loader agentctl; complete -p agentctl"],
        "complete -o nosort -F _agentctl_completion agentctl",
    ),
    "zsh": (["zsh", "-c", "autoload -Uz compinit; compinit -D; print $_comps[agentctl]"], "_agentctl"),
    "fish": (["fish", "-c", "complete -C 'agentctl unins'"], "uninstall"),
}
"""How Debian's own programs find the manual page and the completions, and what they then say."""


def test_the_manual_page_and_the_completions_are_found_wherever_the_prefix_is(host: Container) -> None:
    host.run([ONE_FILE, "install", "--prefix", "/opt/demo"])
    said = {who: host.run(command, check=False) for who, (command, _) in LOOKED_UP.items()}
    assert {who: one.stdout.strip().partition("\t")[0] for who, one in said.items()} == {
        who: expected for who, (_, expected) in LOOKED_UP.items()
    }, said
    host.run(["agentctl", "uninstall"])
    assert host.run(LOOKED_UP["man"][0], check=False).returncode == 16, "the page is gone"


def test_any_prefix_is_as_good(host: Container) -> None:
    before = things(host)
    host.run([ONE_FILE, "install", "--prefix", "/opt/some-where/agent"])
    declare(host, SERVICE, "/opt/some-where/agent")
    host.run(["systemctl", "enable", "--now", "agent.socket", "agent.service"])
    assert version(host, "/opt/some-where/agent") == __version__
    assert not any(path.startswith("/srv/") for path in things(host))
    host.run(["agentctl", "uninstall", "--purge"])
    assert things(host) == before


def test_a_prefix_that_is_a_link_is_as_good(host: Container) -> None:
    before = things(host)
    host.run(["sh", "-c", "mkdir -p /data/srv && rmdir /srv && ln -s /data/srv /srv"])
    said = host.run([ONE_FILE, "install"]).stdout
    assert f"{__version__} is installed below /data/srv\n" in said
    declare(host, SERVICE)
    host.run(["systemctl", "enable", "--now", "agent.socket", "agent.service"])
    assert host.run(["agentctl", "install"]).stdout == f"nothing to do: {__version__} is installed below /data/srv\n"
    host.run(["agentctl", "upgrade", NEXT_FILE])
    assert version(host) == NEXT
    host.run(["agentctl", "--prefix", "/srv", "uninstall", "--purge"])
    host.run(["sh", "-c", "rm /srv && mkdir /srv && rmdir /data/srv /data"])
    assert things(host) == before


def test_the_next_version_is_installed_beside_a_running_agent_that_then_becomes_it(host: Container) -> None:
    host.run([ONE_FILE, "install"])
    declare(host, SERVICE)
    host.run(["systemctl", "enable", "--now", "agent.socket", "agent.service"])
    agent = host.show("agent.service", "MainPID")["MainPID"]
    said = host.run([NEXT_FILE, "install"]).stdout
    assert f"another version is still running (process {agent}" in said
    assert version(host) == __version__
    host.run(["systemctl", "reload", "agent.service"])
    wait_until(lambda: version(host) == NEXT)
    assert host.show("agent.service", "MainPID")["MainPID"] == agent
    older = host.run([ONE_FILE, "install"], check=False)
    assert older.returncode == 1
    assert older.stderr == (
        f"agentctl: {NEXT} is installed below /srv, and this is {__version__}: --force goes back to it\n"
    )


PATIENT = Edit("systemd/agent.service", "WatchdogSec=30s\n", "WatchdogSec=45s\n")


def test_systemd_reads_the_units_of_the_next_version_while_the_agent_runs_on(host: Container, tmp_path: Path) -> None:
    host.run([ONE_FILE, "install"])
    declare(host, SERVICE)
    host.run(["systemctl", "enable", "--now", "agent.socket", "agent.service"])
    unit = host.path("/etc/systemd/system/agent.service")
    before, agent = unit.read_text(), host.show("agent.service", "MainPID")
    vary(tmp_path / NEXT, NEXT, {PATIENT.file: PATIENT.made(SOURCE)})
    host.copy_in(tmp_path / NEXT, "/root/next")
    said = host.run(["/root/next/agentctl", "install"]).stdout.splitlines()
    assert {"replaced  /etc/systemd/system/agent.service", "reloaded  systemd"} <= set(said)
    assert unit.read_text() == before.replace(PATIENT.before, PATIENT.after) != before
    assert host.show("agent.service", "NeedDaemonReload", "MainPID") == {"NeedDaemonReload": "no", **agent}
    host.run(["systemctl", "restart", "agent.service"])
    assert host.show("agent.service", "WatchdogUSec") == {"WatchdogUSec": "45s"}
    assert version(host) == NEXT


def test_the_one_file_lays_what_it_runs_and_does_not_need_its_temporary_directory(host: Container) -> None:
    host.write("/opt/demo/key/env.toml", SERVICE)
    with host.popen(
        [ONE_FILE, "run", "--prefix", "/opt/demo"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout
        first = process.stdout.readline().decode()
        assert (
            first == f"agentctl: runs as /opt/demo/lib/agent/{__version__}/agentctl, and not from its unpacked files\n"
        )
        wait_until(lambda: host.run([ONE_FILE, "--prefix", "/opt/demo", "status"], check=False).returncode == 0)
        pid = host.path("/opt/demo/run/agent.pid").read_text().strip()
        assert host.run(["readlink", f"/proc/{pid}/exe"]).stdout == f"{LAID}\n"
        variables = host.run(["cat", f"/proc/{pid}/environ"]).stdout
        assert "/tmp/_MEI" not in variables
        host.run(["bash", "-c", "rm -rf /tmp/_MEI*"])

        def running() -> str:
            file = host.path("/opt/demo/run/loopback.pid")
            with suppress(FileNotFoundError):  # between one worker and the next
                return file.read_text().strip()
            return ""

        wait_until(lambda: running() != "")
        worker = running()
        host.run(["bash", "-c", f"kill -KILL {worker}"])
        wait_until(lambda: running() not in ("", worker))
        wait_until(
            lambda: (
                '"state": "running"'
                in host.run(
                    [
                        f"/opt/demo/lib/agent/{__version__}/agentctl",
                        "--prefix",
                        "/opt/demo",
                        "status",
                        "loopback",
                        "--json",
                    ]
                ).stdout
            )
        )
        host.run(["bash", "-c", f"kill -TERM {pid}"])
        assert process.wait(20) == 0
    assert not any(path.startswith("/etc/systemd/system/agent") for path in things(host))


def test_a_unit_of_somebodys_own_runs_the_one_file_where_its_child_may_say_that_it_is_ready(host: Container) -> None:
    host.write("/opt/demo/key/env.toml", SERVICE)
    host.write(
        "/etc/systemd/system/own.service",
        f"[Service]\nType=notify\nNotifyAccess=all\nTimeoutStartSec=20\nExecStart={ONE_FILE} run --prefix /opt/demo\n",
    )
    host.run(["systemctl", "daemon-reload"])
    host.run(["systemctl", "start", "own"])
    assert host.show("own.service", "ActiveState", "StatusText") == {
        "ActiveState": "active",
        "StatusText": "2 running",
    }
    host.run(["systemctl", "stop", "own"])
    assert host.show("own.service", "ActiveState", "Result") == {"ActiveState": "inactive", "Result": "success"}


@pytest.mark.parametrize("owner", ["root", "games"])
def test_an_agent_of_the_one_file_does_not_outlive_what_was_started(host: Container, owner: str) -> None:
    host.write("/opt/demo/key/env.toml", SERVICE)
    host.run(["sh", "-c", f"mkdir -p /opt/demo/run && chown {owner} /opt/demo/run"])
    with host.popen([ONE_FILE, "run", "--prefix", "/opt/demo"], stderr=subprocess.DEVNULL):
        wait_until(lambda: host.run([ONE_FILE, "--prefix", "/opt/demo", "status"], check=False).returncode == 0)
        agent = host.path("/opt/demo/run/agent.pid").read_text().strip()
        assert host.run(["stat", "--format=%U", f"/proc/{agent}"]).stdout == f"{owner}\n"
        unpacker = host.run(["ps", "-o", "ppid=", "-p", agent]).stdout.strip()
        host.run(["kill", "-KILL", unpacker])
        wait_until(lambda: host.run(["pgrep", "-f", "agentctl|sleep 100000"], check=False).returncode == 1)
    assert "agent_stopped" in host.path("/opt/demo/spool/agent/events.db").read_bytes().decode(errors="replace")


def test_the_one_file_runs_a_job_from_where_it_lays_it(host: Container) -> None:
    host.write(
        "/opt/demo/key/env.toml",
        '[service.job]\nkind = "command"\ncommand = ["/bin/sh", "-c", "echo done; exit 7"]\noncalendar = "yearly"\n',
    )
    for words in (
        ["run-once", "job", "--prefix", "/opt/demo"],
        ["once", "plain", "/opt/demo", "/opt/demo/key/env.toml", "job"],
    ):
        done = host.run([ONE_FILE, *words], check=False)
        assert done.returncode == 2
        assert done.stdout == "done\n"
        assert done.stderr.startswith(f"agentctl: runs as {LAID}, and not from")


def after(seconds: float, event: Callable[[], bool] = lambda: True) -> Callable[[], bool]:
    """Whether that much time has passed since the event."""
    due: list[float] = []

    def is_due() -> bool:
        if not due and event():
            due.append(time.monotonic() + seconds)
        return bool(due) and time.monotonic() >= due[0]

    return is_due


def incomplete(host: Container) -> bool:
    """Whether the record says that something was interrupted, or is under way."""
    record = host.path("/srv/lib/agent/install.json")
    return record.exists() and not json.loads(record.read_text())["complete"]


def test_an_installation_that_is_killed_at_any_time_is_finished_by_the_next(host: Container) -> None:
    before, begun = things(host), time.monotonic()
    host.run([ONE_FILE, "install"])
    took, whole = time.monotonic() - begun, things(host)
    host.run(["agentctl", "uninstall", "--purge"])
    early = [after(took * part / 10) for part in (1, 3, 5)]  # it unpacks itself
    late = [after(took * part / 16, host.path("/srv/lib/agent/install.json").exists) for part in range(7)]
    missing = incompletely = 0
    for moment in early + late:
        host.kill_when(moment, [ONE_FILE, "install"])
        found = things(host)
        missing += before < found and not whole <= found
        incompletely += incomplete(host)
        if found != before:
            host.run([ONE_FILE, "install"])
            assert things(host) == whole
            assert not incomplete(host)
            host.run(["agentctl", "uninstall", "--purge"])
            assert things(host) == before
    assert missing and incompletely > 2, f"hardly any was interrupted half-way: {missing}, {incompletely}"
    host.run([ONE_FILE, "install"])
    host.run(["systemctl", "start", "agent.service"])
    assert version(host) == __version__


def test_taking_back_a_running_agent_that_is_killed_at_any_time_is_finished_by_the_next(host: Container) -> None:
    before, halves, took = things(host), 0, 0.0

    def removing() -> bool:
        return not host.path("/etc/systemd/system/agent.service").exists()

    for part in (None, 2, 5, 6, 8, 10):
        host.run([ONE_FILE, "install"])
        laid = things(host)
        declare(host, SERVICE)
        host.run(["systemctl", "enable", "--quiet", "--now", "agent.socket", "agent.service"])
        begun = time.monotonic()
        if part is None:  # this one says how long it takes
            host.run(["agentctl", "uninstall", "--purge"])
            took = time.monotonic() - begun
        else:
            moment = after(took * part / 10) if part < 6 else after(took * (part - 6) / 16, removing)
            host.kill_when(moment, ["agentctl", "uninstall", "--purge"])
            halves += before < things(host) and not laid <= things(host)
            host.run([ONE_FILE, "uninstall", "--purge"])
        assert things(host) == before
        assert not [words for words in host.processes().values() if "agent" in words[0]]
        assert host.run(["systemctl", "list-units", "--all", "--plain", "--no-legend", "agent*"]).stdout == ""
    assert halves > 1, f"hardly any was interrupted half-way: {halves}"


def test_what_is_laid_is_the_installed_form(host: Container) -> None:
    host.run([ONE_FILE, "install"])
    laid = host.path(f"/srv/lib/agent/{__version__}")
    for path in built().tree.rglob("*"):
        if path.is_file():
            assert (laid / path.relative_to(built().tree)).read_bytes() == path.read_bytes()
