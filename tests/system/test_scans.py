"""Scans as an operator has them, on an installed host: declared, expected, changed, told, held, ended, reported."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.harness import wait_until
from tests.system.host import Host

DECLARED = """
[agent]
group = "agent"

[service.lan]
kind = "scan"
targets = ["10.99.0.2"]
ports = "20-100,2222"
profile = "services"
oncalendar = "yearly"
"""

NOTIFIED = """
[notify.page]
command = ["/bin/sh", "-c", "cat >> /srv/spool/watch/page"]
kinds = ["drift_*", "port_*"]
severity = "notice"
group = "1s"
"""

SLOW = """
[service.slow]
kind = "scan"
targets = ["10.99.0.2"]
ports = "1-20000"
rate = 100
oncalendar = "yearly"
"""
"""A scan of minutes."""

MEMBER = "amy"


@pytest.fixture
def lan(installed: Host) -> Host:
    """The host has a neighbour, 10.99.0.2, and an operator who is a member of the agent's group."""
    installed.veth("near0", "far0")
    installed.run(["useradd", "--groups", "agent", MEMBER])
    installed.lay_program("/usr/bin/ssh-keygen")
    return installed


def serve(host: Host, port: int) -> None:
    """The neighbour has an SSH server from now on: this machine's own, which nmap knows by its first line."""
    host.lay_program("/usr/sbin/sshd")
    host.run(["sh", "-c", "id -u sshd || useradd --system sshd; mkdir -p /run/sshd"])
    if not host.path("/root/key").exists():
        host.run(["/usr/bin/ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/root/key"])
    inside = ("-p", "NetworkNamespacePath=/run/netns/far0")
    server = ["/usr/sbin/sshd", "-D", "-f", "/dev/null", "-o", "HostKey=/root/key", "-p", str(port)]
    host.run(["systemd-run", f"--unit=ssh{port}", *inside, *server])
    listening = ["ip", "netns", "exec", "far0", "ss", "-Hltn", f"sport = {port}"]
    wait_until(lambda: bool(host.run(listening).stdout))


def found(host: Host, *words: str, **options: Any) -> Any:
    """What a command says in JSON, and its exit code."""
    done = host.agentctl(*words, "--json", check=False, **options)
    assert done.returncode in (0, 2), done.stderr
    return json.loads(done.stdout), done.returncode


def paged(host: Host) -> list[tuple[str, str]]:
    """Service and kind of each event that the program was told of."""
    file = host.path("/srv/spool/watch/page")
    text = file.read_text() if file.exists() else ""
    return re.findall(r'"service":"(\w+)","kind":"(\w+)","severity":"\w+","message"', text)


def test_from_the_first_scan_to_who_is_told_of_a_change(lan: Host) -> None:
    serve(lan, 22)
    lan.declare(DECLARED)
    lan.systemctl("start")

    first = lan.agentctl("scan", "now", "lan").stdout
    assert first.splitlines()[-1].startswith("lan: 10.99.0.2: 1 host up, 1 port open, took ")
    (host,) = found(lan, "scan", "hosts")[0]["hosts"]
    (port,) = host["ports"]
    assert (port["number"], port["state"], port["service"], port["product"]) == (22, "open", "ssh", "OpenSSH")

    lan.agentctl("expect", "from-scan", "lan", "-o", "/root/expect.toml")
    expected = lan.path("/root/expect.toml").read_text()
    assert 'hosts = ["10.99.0.2"]' in expected and "OpenSSH" in expected
    lan.declare(DECLARED + expected + NOTIFIED)
    lan.systemctl("reload")
    lan.until("watch", state="running", ready=True)
    rows, code = found(lan, "drift", "--exit-code")
    assert (rows["rows"], code) == ([], 0)

    serve(lan, 2222)
    lan.agentctl("scan", "now", "lan")
    difference, code = found(lan, "scan", "diff", "--exit-code")
    assert code == 2
    assert [(one["kind"], one["ports"]) for one in difference["changes"]] == [("port_opened", "2222")]

    for user in ("root", MEMBER):
        told, code = found(lan, "drift", "--exit-code", user=user)
        (row,) = told["rows"]
        assert (code, row["kind"], row["host"], row["port"]) == (2, "open_undeclared", "10.99.0.2", 2222)
    wait_until(
        lambda: sorted(paged(lan)) == [("lan", "port_opened"), ("watch", "drift_found")], lambda: str(paged(lan))
    )

    lan.agentctl("scan", "report", "-o", "/root/report.html")
    report = lan.path("/root/report.html").read_text()
    assert "2222" in report and "is not declared" in report
    counted, _ = found(lan, "scan", "list", user=MEMBER)
    assert [run["status"] for run in counted["scans"][0]["runs"]] == ["finished", "finished"]


def packets(host: Host) -> int:
    """How many have left the host for its neighbour."""
    return int(host.path("/sys/class/net/near0/statistics/tx_packets").read_text())


def grows(host: Host) -> Callable[[], bool]:
    """Whether packets leave since now."""
    return partial(lambda before: packets(host) > before + 5, packets(host))


def test_an_operator_holds_and_ends_a_scan_and_a_member_of_the_group_may_look_alone(lan: Host) -> None:
    lan.declare(DECLARED + SLOW)
    lan.systemctl("start")
    lan.agentctl("scan", "now", "slow", "--no-wait")
    wait_until(lambda: lan.service("slow")["figures"].get("phase") == "ports")
    wait_until(grows(lan))
    refused = lan.agentctl("scan", "pause", "slow", check=False, user=MEMBER)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert MEMBER in refused.stderr and "Traceback" not in refused.stderr
    lan.agentctl("status", user=MEMBER)
    assert lan.agentctl("scan", "pause", "slow").stdout == "slow: paused (running)\n"
    wait_until(lambda: lan.service("slow")["figures"].get("held") == "paused by hand")
    stands = packets(lan)
    lan.systemctl("restart")
    lan.agentctl("scan", "now", "slow", "--no-wait")
    wait_until(lambda: lan.service("slow")["figures"].get("held") == "paused by hand")
    assert packets(lan) - stands < 10  # neighbours ask for one another
    lan.agentctl("scan", "resume", "slow")
    wait_until(grows(lan))
    assert lan.agentctl("scan", "stop", "slow").stdout == "slow: has ended its run (waiting)\n"
    counted, _ = found(lan, "scan", "list", "slow")
    assert counted["scans"][0]["runs"][0]["status"] == "stopped"


def test_a_scan_that_systemd_starts_is_held_and_ended_in_the_same_way(lan: Host) -> None:
    job = "agent-job@slow.service"
    lan.declare(DECLARED.replace('group = "agent"', 'scheduler = "systemd"') + SLOW)
    lan.systemctl("start")
    lan.agentctl("timers", "sync")
    lan.run(["systemctl", "start", "--no-block", job])
    wait_until(grows(lan))
    assert lan.agentctl("scan", "pause", "slow").stdout == "slow: paused (waiting)\n"
    wait_until(
        lambda: "paused by hand" in lan.show(job, "StatusText")["StatusText"], lambda: str(lan.show(job, "StatusText"))
    )
    assert lan.agentctl("scan", "resume", "slow").stdout == "slow: resumed (waiting)\n"
    wait_until(grows(lan))
    assert lan.agentctl("scan", "stop", "slow").stdout == "slow: told to end its run (waiting)\n"
    lan.wait_unit_state(job, ActiveState="inactive")
    counted, _ = found(lan, "scan", "list", "slow")
    assert counted["scans"][0]["runs"][0]["status"] == "stopped"
