"""What whoever has just installed it meets: the first declaration, the usual slips, and what is told about them."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any

import pytest

from tests.binary import built
from tests.harness import PATIENCE, wait_until
from tests.system.container import Container
from tests.system.host import UNIT, Host

WEB = """
[service.web]
kind = "command"
command = ["/usr/bin/python3", "-m", "http.server", "8000"]
"""

WRONG = WEB + "colour = 3\n"

OF_THE_AGENT = ["run", "tmp", "spool", "log"]


@pytest.fixture
def enabled(installed: Host) -> Host:
    """Socket and service as the installation suggests it: enabled, and started."""
    installed.run(["systemctl", "enable", "--quiet", "--now", "agent.socket", UNIT])
    return installed


def doctor(host: Host, **options: Any) -> tuple[int, dict[str, dict[str, str]]]:
    """What ``agentctl doctor`` finds, by the name of the check, of each the worst; and its exit code."""
    done = host.agentctl("doctor", "--json", check=False, **options)
    worst = sorted(json.loads(done.stdout)["checks"], key=lambda check: ("ok", "warn", "fail").index(check["verdict"]))
    return done.returncode, {check["name"]: check for check in worst}


def foreign(host: Host) -> list[str]:
    """What lies where the agent writes and belongs to somebody else; its socket is systemd's."""
    places = [f"/srv/{name}" for name in OF_THE_AGENT]
    found = host.run(["find", *places, "!", "-user", "agent", "!", "-name", "agent.sock"]).stdout
    return found.splitlines()


def test_an_example_of_the_first_declaration_works_as_soon_as_it_is_no_comment(enabled: Host) -> None:
    assert "declare some in /srv/key/env.toml, then: agentctl reload\n" in enabled.agentctl("status").stdout
    text = enabled.path("/srv/key/env.toml").read_text()
    commented = re.sub(r"^#(?! \S)", "", text[text.index("#[service.api]") :], flags=re.MULTILINE)
    api, told, notify = commented.partition("[expect.")
    with enabled.path("/srv/key/env.toml").open("a") as file:
        file.write(api)
    assert "api: started\n" in enabled.agentctl("reload").stdout
    assert enabled.service("api")["state"] == "running"
    code, found = doctor(enabled)
    assert code == 0, found
    assert found["prefix"]["finding"] == "/srv is writable for user agent"
    with enabled.path("/srv/key/env.toml").open("a") as file:
        file.write(told + notify)
    assert "watch: started\n" in enabled.agentctl("reload").stdout
    code, found = doctor(enabled)
    assert (code, found["mail"]["mend"]) == (2, "install a mail system, such as postfix or msmtp-mta")
    enabled.lay_program("/usr/sbin/sendmail")
    assert doctor(enabled)[0] == 0


def test_a_file_that_an_editor_gave_to_root_is_told_with_the_command_that_mends_it(enabled: Host) -> None:
    enabled.declare(WEB)
    enabled.systemctl("reload")
    file = enabled.path("/srv/key/env.toml")
    for path in ("/srv/key/env.toml", "/srv/key/.env", "/srv/key/projects/shop.toml"):
        # Written beside it and renamed, under root's own umask.
        enabled.write(f"{path}.new", WEB if path.endswith("env.toml") else "", 0o600)
        enabled.run(["mv", f"{path}.new", path])
        refused = enabled.agentctl("reload", check=False)
        mend = f"chgrp agent {path} && chmod g+r {path}"
        assert refused.returncode == 1
        assert refused.stderr.startswith(f"{path}: may not be read by user agent: {mend}")
        assert refused.stderr.count("\n") == 1
        judged = enabled.agentctl("validate", check=False)
        assert (judged.returncode, judged.stdout, judged.stderr) == (1, "", refused.stderr)
        code, found = doctor(enabled)
        assert (code, found["declaration"]["verdict"]) == (2, "fail")
        assert mend in found["declaration"]["finding"]
        enabled.run(["sh", "-c", mend])
        enabled.systemctl("reload")
        assert doctor(enabled)[0] == 0
    # The same before a start, when nobody but the directories can tell whose eyes matter.
    enabled.run(["systemctl", "stop", "agent.socket", UNIT])
    file.chmod(0o600)
    assert "may not be read by user agent: chmod g+r" in doctor(enabled)[1]["declaration"]["finding"]
    warned = enabled.agentctl("validate")
    assert warned.stderr.startswith("warning: /srv/key/env.toml: may not be read by user agent: chmod g+r")


def test_a_declaration_of_init_is_for_the_agent_to_read(installed: Host) -> None:
    installed.path("/srv/key/env.toml").unlink()
    installed.run(["sh", "-c", "umask 077; /srv/bin/agentctl init"])
    assert installed.run(["stat", "-c", "%U:%G %a", "/srv/key/env.toml"]).stdout == "root:agent 640\n"
    installed.systemctl("start")


def test_who_is_nobody_to_the_agent_is_told_so_and_no_more(enabled: Host) -> None:
    enabled.declare(WEB)
    code, found = doctor(enabled, user="nobody")
    assert code == 0, found
    assert "may not be read by user nobody, who may not enter /srv/key" in found["declaration"]["finding"]
    assert found["agent"]["mend"] == "ask as root"
    for name in ("prefix", "capabilities", "open files", "cgroup"):
        assert found[name]["finding"] == "cannot be judged by user nobody"
    closed = "may not be read by user nobody, who may not enter /srv/key: do it as root (sudo)\n"
    for words in (["validate"], ["run"], ["run-once", "web"], ["timers", "sync"]):
        refused = enabled.agentctl(*words, check=False, user="nobody")
        assert (refused.returncode, refused.stdout) == (1, "")
        assert f"/srv/key/env.toml: {closed}" in refused.stderr.splitlines(keepends=True)


def test_a_member_of_the_agents_group_is_not_told_to_make_its_secrets_his_own(enabled: Host) -> None:
    enabled.run(["useradd", "--groups", "agent", "amy"])
    enabled.declare(WEB + 'secrets = ["token"]\n')
    enabled.run(["install", "-o", "agent", "-g", "agent", "-m", "600", "/dev/null", "/srv/key/secrets/token"])
    enabled.systemctl("reload")
    refused = enabled.agentctl("validate", check=False, user="amy")
    told = "service.web.secrets: /srv/key/secrets/token may not be read by user amy: do it as root (sudo)\n"
    assert refused.stderr == f"/srv/key/env.toml:5: {told}"
    assert doctor(enabled, user="amy")[0] == 0
    enabled.run(["chown", "root", "/srv/key/secrets/token"])
    refused = enabled.agentctl("validate", check=False)
    assert (refused.returncode, refused.stderr) == (1, enabled.agentctl("reload", check=False).stderr)
    assert "may not be read by user agent: chown agent" in refused.stderr


def test_who_looks_below_the_wrong_prefix_is_told_the_right_one(container: Container) -> None:
    container.copy_in(built().onefile, "/opt/agentctl")
    container.run(["/opt/agentctl", "install", "--prefix", "/opt/agent"])
    hint = "; an agent is installed below /opt/agent: --prefix /opt/agent\n"
    told = container.run(["/opt/agentctl", "uninstall"]).stdout
    assert told == f"nothing to do: nothing is installed below /srv{hint}"
    for user in ("root", "nobody"):
        status = container.run(["/opt/agentctl", "status"], check=False, user=user)
        assert status.returncode == 2
        assert status.stderr.startswith("agentctl: the agent is not running: ") and status.stderr.endswith(hint)


def test_doctor_knows_what_the_unit_does_not_permit(enabled: Host) -> None:
    enabled.declare(WEB + 'user = "nobody"\nlimits = { memory = "64M" }\n' + WEB.replace("web", "low"))
    told = enabled.agentctl("reload").stdout
    assert "web: failed: cannot run as nobody: the agent is not permitted to act for others; " in told
    assert "low: failed" not in told
    code, found = doctor(enabled)
    assert code == 2
    assert found["users"]["finding"] == "service.web: the agent is not permitted to run it as nobody"
    assert "share/doc/agent/examples" in found["users"]["mend"]
    assert enabled.path("/srv/share/doc/agent/examples/privileged.conf").exists()


def test_without_nmap_a_scan_says_what_to_install_and_works_as_soon_as_it_is_there(enabled: Host) -> None:
    told = "nmap is not installed: apt-get install nmap"
    enabled.run(["mv", "/usr/bin/nmap", "/opt/nmap"])
    enabled.run(["ip", "link", "set", "lo", "up"])
    enabled.declare(
        f'{WEB}[service.local]\nkind = "scan"\ntargets = ["127.0.0.1"]\nports = "1-10"\noncalendar = "yearly"\n'
    )
    enabled.systemctl("reload")
    agent, web = enabled.pid, enabled.service("web")["pid"]
    refused = enabled.agentctl("start", "local", check=False)
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
    report = enabled.until("local", state="waiting", last_exit="exited 2")
    assert report["message"] == f"last run failed: exited 2: {told}"
    assert [line.split(" ", 1)[1] for line in enabled.log("local").splitlines()] == [told]
    by_hand = enabled.agentctl("run-once", "local", check=False)
    assert (by_hand.returncode, by_hand.stdout) == (2, f"{told}\n")
    code, found = doctor(enabled)
    assert (code, found["nmap"]["verdict"], found["nmap"]["mend"]) == (2, "fail", "apt install nmap")
    assert (enabled.pid, enabled.service("web")["pid"]) == (agent, web)
    assert enabled.service("web")["state"] == "running"
    enabled.run(["mv", "/opt/nmap", "/usr/bin/nmap"])
    assert enabled.agentctl("start", "local").stdout.startswith("local: started")
    enabled.until("local", state="waiting", last_exit="exited 0")
    assert doctor(enabled)[0] == 0
    assert (enabled.pid, enabled.service("web")["pid"]) == (agent, web)


# -- a wrong declaration, and a socket that starts the agent ----------------------------------------------------------


@contextmanager
def by_hand(host: Host, program: str = "/srv/bin/agentctl") -> Iterator[IO[bytes]]:
    """An agent that somebody runs in the foreground, as what he sees of it, and ends with Ctrl-C."""
    process = host.popen([program, "run"], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr
    try:
        yield process.stderr
        host.signal(int(host.path("/srv/run/agent.pid").read_text()), signal.SIGINT)
        process.stderr.read()
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def starts(host: Host) -> int:
    return len(host.entries("-u", UNIT, "MESSAGE_ID=7d4958e842da4a758f6c1cdc7b36dcc5"))  # SD_MESSAGE_UNIT_STARTING


def test_who_asks_an_agent_that_cannot_start_is_told_why_and_starts_it_once(enabled: Host) -> None:
    enabled.declare(WRONG)
    assert enabled.systemctl("restart", check=False).returncode == 1
    enabled.wait_unit_state(UNIT, ActiveState="failed")
    before = starts(enabled)
    for number in (1, 2):
        refused = enabled.agentctl("status", check=False, timeout=8)
        assert refused.returncode == 2
        told = "agentctl: the agent cannot start: /srv/key/env.toml:5: service.web.colour: unknown key; did you mean"
        assert refused.stderr.startswith(told) and refused.stderr.count("\n") == 1
        enabled.wait_unit_state(UNIT, ActiveState="failed")
        assert starts(enabled) == before + number
    stranger = enabled.agentctl("status", check=False, user="nobody")
    assert stranger.stderr == "agentctl: the agent cannot start; its journal says why\n"
    enabled.wait_unit_state(UNIT, ActiveState="failed")
    # systemd has nobody left to start it for, and goes on listening.
    enabled.run(["systemctl", "daemon-reload"])
    assert starts(enabled) == before + 3
    assert enabled.show("agent.socket", "SubState") == {"SubState": "listening"}
    enabled.declare(WEB)
    assert enabled.status()["services"][0]["name"] == "web"


def test_who_asks_while_the_prefix_is_held_by_another_is_told_by_whom(installed: Host) -> None:
    installed.run(["systemctl", "stop", "agent.socket"])
    with by_hand(installed):
        wait_until(lambda: installed.path("/srv/run/agent.sock").exists())
        installed.path("/srv/run/agent.sock").unlink()
        installed.run(["systemctl", "start", "agent.socket"])
        refused = installed.agentctl("status", check=False)
        assert re.fullmatch(
            r"agentctl: the agent cannot start: an agent already runs on /srv: process \d+ holds it\n", refused.stderr
        )


def test_who_runs_an_agent_where_systemd_listens_is_told_the_units_to_turn_to(enabled: Host) -> None:
    enabled.run(["systemctl", "stop", UNIT])
    refused = enabled.agentctl("run", check=False)
    assert refused.returncode == 2
    told = "agent: /srv/run/agent.sock: systemd listens there already (agent.socket): `systemctl start agent`"
    assert refused.stderr.splitlines()[-1].startswith(told)


def test_an_agent_outlives_the_end_of_its_socket(enabled: Host) -> None:
    """Which takes the socket's file along: the watchdog would find nobody at home, and systemd kill it."""
    enabled.declare(WEB)
    enabled.run(["systemctl", "stop", "agent.socket", UNIT])
    enabled.drop_in("hasty", "[Service]\nWatchdogSec=4s\n")
    enabled.run(["systemctl", "start", "agent.socket", UNIT])
    before, worker = enabled.pid, enabled.service("web")["pid"]
    enabled.run(["systemctl", "stop", "agent.socket"])
    assert not enabled.path("/srv/run/agent.sock").exists()
    wait_until(lambda: enabled.path("/srv/run/agent.sock").exists())
    assert (enabled.pid, enabled.service("web")["pid"]) == (before, worker)
    (told,) = [event["message"] for event in enabled.events() if event["kind"] == "error"]
    assert told == "/srv/run/agent.sock was removed, and is made anew"
    enabled.systemctl("stop")
    assert not enabled.path("/srv/run/agent.sock").exists()
    assert enabled.show(UNIT, "NRestarts", "Result") == {"NRestarts": "0", "Result": "success"}


def test_socket_and_service_are_back_after_a_reboot_and_after_a_power_failure(enabled: Host) -> None:
    enabled.declare(WEB)
    enabled.systemctl("reload")
    for power_failure in (False, True):
        if power_failure:
            enabled.fail()
            enabled.boot()
        else:
            enabled.reboot()
        assert [service["state"] for service in enabled.status()["services"]] == ["running"]
        for unit in ("agent.socket", UNIT):
            enabled.wait_unit_state(unit, ActiveState="active")
        assert enabled.run(["systemctl", "--failed", "--plain", "--no-legend"]).stdout == ""


def test_a_reload_waits_for_a_start_and_leaves_a_service_that_backs_off_where_it_is(enabled: Host) -> None:
    enabled.systemctl("stop")
    gate = enabled.program(
        "gate", "import pathlib, time\nwhile not pathlib.Path('/opt/gate').exists(): time.sleep(0.05)\n"
    )
    slow = f'command = ["/bin/sh", "-c", "{gate}; systemd-notify --ready; exec sleep 4321"]\nready = "notify"\n'
    bad = 'command = ["/bin/sh", "-c", "exit 2"]\nmax_restarts = 1000\n'
    enabled.declare(f'[service.slow]\nkind = "command"\n{slow}[service.bad]\nkind = "command"\n{bad}')
    enabled.systemctl("start", "--no-block")
    enabled.until("bad", state="backoff")
    reloading = enabled.popen(["systemctl", "reload", UNIT])
    with pytest.raises(subprocess.TimeoutExpired):
        reloading.wait(1)
    enabled.write("/opt/gate", "")
    assert reloading.wait(PATIENCE) == 0
    report = enabled.until("bad", state="backoff")
    # Here and now: neither started at once, nor counted anew.
    assert enabled.agentctl("reload").stdout == "2 services unchanged\n"
    assert enabled.service("bad")["restarts"] >= report["restarts"] >= 2
    enabled.declare(f'[service.slow]\nkind = "command"\n{slow}[service.bad]\nkind = "command"\n{bad}colour = 3\n')
    assert enabled.systemctl("reload", check=False).returncode == 1
    assert enabled.service("bad")["restarts"] >= report["restarts"]


# -- root, who runs things by hand ------------------------------------------------------------------------------------

JOBS = """
[service.local]
kind = "scan"
targets = ["127.0.0.1"]
ports = "1-10"
every = "1h"

[service.whoami]
kind = "command"
command = ["/bin/sh", "-c", "id -un; grep CapPrm /proc/self/status; echo $$HOME"]
restart = "no"
"""


def test_root_runs_a_job_as_the_agent_would_and_leaves_nothing_that_the_agent_cannot_use(installed: Host) -> None:
    installed.declare(JOBS)
    assert installed.agentctl("run-once", "whoami").stdout == "agent\nCapPrm:\t0000000000000000\n/srv\n"
    done = installed.agentctl("run-once", "local")
    assert (done.returncode, done.stderr) == (0, "")
    assert foreign(installed) == []
    ask = "import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).execute('SELECT engine FROM runs').fetchone())"
    engine = installed.run(["python3", "-c", ask, "/srv/spool/local/scan.db"]).stdout
    assert engine == "syn\n", "what takes CAP_NET_RAW"
    installed.systemctl("start")
    installed.until("local", state="waiting", last_exit="exited 0")


def test_an_agent_that_root_runs_by_hand_is_the_same_agent(installed: Host) -> None:
    installed.declare(JOBS + '[service.lo]\nkind = "capture"\ninterfaces = ["lo"]\n' + WEB + 'user = "nobody"\n')
    installed.run(["ip", "link", "set", "lo", "up"])
    with by_hand(installed) as told:
        assert told.readline() == b"agent: runs as user agent, to whom the data below /srv belongs\n"
        wait_until(lambda: installed.agentctl("status", check=False).returncode == 0)
        installed.until("lo", state="running")
        installed.until("web", state="running")
        installed.until("local", last_exit="exited 0")
    assert [path for path in foreign(installed) if not path.startswith("/srv/spool/web")] == []
    installed.systemctl("start")
    installed.until("lo", state="running")
    # A unit says itself as whom it runs.
    installed.drop_in("root", "[Service]\nUser=root\nGroup=root\nCapabilityBoundingSet=CAP_DAC_OVERRIDE CAP_SETUID\n")
    installed.systemctl("restart")
    assert installed.show(UNIT, "User") == {"User": "root"}
    assert installed.path(f"/proc/{installed.pid}").stat().st_uid == 0


def test_an_agent_that_root_runs_after_an_uninstall_still_makes_nothing_that_is_roots(installed: Host) -> None:
    installed.declare(WEB)
    installed.systemctl("start")
    installed.until("web", state="running")
    installed.agentctl("uninstall")
    assert not installed.path("/srv/run").exists()
    with by_hand(installed, "/root/agentctl") as told:
        assert b"runs as /srv/lib/agent/" in told.readline()
        assert told.readline() == b"agent: runs as user agent, to whom the data below /srv belongs\n"
        wait_until(lambda: installed.run(["/root/agentctl", "status"], check=False).returncode == 0)
    assert foreign(installed) == []


def planted(host: Host) -> dict[str, str]:
    """What an intruder who has become the agent's user puts in root's way, and what each is to do, by its path."""
    host.run(["sh", "-c", "mkdir -m 700 /opt/one /opt/two && touch /opt/one/file /opt/two/file"])
    links = {
        "/srv/spool/agent/events.db": "/etc/shadow",
        "/srv/log/agent.log": "/etc/gshadow",
        "/srv/run/whoami.secrets": "/opt/one",
        "/srv/spool/web": "/opt/two",
    }
    for path, target in links.items():
        host.run(["rm", "-rf", path])
        host.run(["ln", "-s", target, path], user="agent")
    return links


def state(host: Host, paths: Iterable[str]) -> str:
    """Everything about these files and what is in them."""
    return host.run(["find", *paths, "-printf", "%p %i %y %m %U:%G %s %C@\\n"]).stdout


def test_root_by_hand_is_led_nowhere_by_what_the_agents_user_has_planted(installed: Host) -> None:
    installed.declare(JOBS + WEB + 'user = "nobody"\n')
    installed.systemctl("start")
    installed.systemctl("stop")
    victims = set(planted(installed).values())
    before = state(installed, [*victims, "/etc"])
    installed.agentctl("run-once", "whoami", check=False)
    installed.agentctl("run-once", "web", check=False)
    with by_hand(installed):
        wait_until(lambda: installed.agentctl("status", check=False).returncode == 0)
        refused = installed.until("web", state="failed")["message"]
    assert state(installed, [*victims, "/etc"]) == before
    assert "cannot run as nobody: /srv/spool/web: is a symbolic link, and not root's" in refused
