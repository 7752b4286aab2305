"""The sandbox of ``agent.service``: how little it leaves exposed, what works in it, and what it forbids."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import wait_until
from tests.system.host import SOURCE, UNIT, Host
from tests.system.installation import installation

SCORE_MAX = 2.0

PROBE = Path(__file__).with_name("probe.py")
PAGE = SOURCE / "docs" / "systemd.md"

ALLOWED = {
    "write below its own directory",
    "make a network connection",
    "read the declaration",  # as the agent may: it is what tells its workers apart that is not there
}


@pytest.fixture
def prober(suite: str) -> Iterator[Host]:
    """A machine with something to find, on which nothing but the sandbox is in the way of the probe."""
    # What nspawn itself would keep from every process of a container.
    options = ["--capability=CAP_SYS_MODULE,CAP_SYS_TIME,CAP_BPF", "--system-call-filter=@module @clock bpf"]
    with Host(options=options, suite=suite, layer=installation(suite, "/srv")) as host:
        host.enable()
        host.copy_in(PROBE, "/opt/tests/probe.py")
        for inside in ("/opt/open", "/srv/open", "/home/somebody"):
            host.run(["mkdir", "--mode=1777", inside])
        host.write("/home/somebody/letter", "dear")
        host.write("/tmp/of-others", "theirs")
        host.run(["install", "-d", "-o", "agent", "/var/lib/thing"])
        host.run(["cp", "/usr/bin/id", "/opt/tests/setuid-id"])
        host.run(["chmod", "4755", "/opt/tests/setuid-id"])
        yield host


def probed(host: Host, keys: str = "") -> dict[str, str]:
    """What the probe says as a service of the agent."""
    host.declare(
        '[service.probe]\nkind = "command"\nrestart = "no"\n'
        f'command = ["/usr/bin/python3", "/opt/tests/probe.py", "/srv/spool/probe"]\n{keys}'
    )
    host.systemctl("restart")
    host.until("probe", state="completed")
    found: dict[str, str] = json.loads(host.log("probe").splitlines()[-1].split(" ", 1)[1])
    return found


def probed_outside(host: Host, user: str) -> dict[str, str]:
    """What it says in a service that nothing is forbidden to."""
    host.run(["install", "-d", "-o", user, f"/var/tmp/{user}"])
    done = host.run_in_unit(["/usr/bin/python3", "/opt/tests/probe.py", f"/var/tmp/{user}"], f"User={user}")
    found: dict[str, str] = json.loads(done.stdout)
    return found


# -- what is left exposed ---------------------------------------------------------------------------------------------


def exposure(host: Host) -> tuple[float, dict[str, float]]:
    """The score of the unit as it is installed, drop-ins included, and each setting that costs something."""
    text = host.run(["systemd-analyze", "security", "--no-pager", UNIT]).stdout
    lines = re.findall(r"^✗ (\S+) .* (\d\.\d) *$", text, re.MULTILINE)
    overall = re.search(r"Overall exposure level for agent.service: (\d+\.\d)", text)
    assert overall, text
    return float(overall[1]), {setting: float(cost) for setting, cost in lines}


def test_the_unit_scores_two_or_less_and_each_remaining_exposure_is_explained(installed: Host) -> None:
    score, exposed = exposure(installed)
    assert score <= SCORE_MAX
    rows = re.findall(r"^\| `([^`]+)` \| (\d\.\d) \| .+ \|$", PAGE.read_text(), re.MULTILINE)
    assert {setting.replace("\\|", "|"): float(cost) for setting, cost in rows} == exposed
    assert f"**{score}**" in PAGE.read_text()


@pytest.mark.parametrize("unit", ["agent.service", "agent-job@.service"])
def test_the_shipped_files_score_two_or_less_without_a_systemd_to_ask(installed: Host, unit: str) -> None:
    threshold = f"--threshold={SCORE_MAX * 10:.0f}"
    installed.run(["systemd-analyze", "security", "--offline=yes", threshold, f"/etc/systemd/system/{unit}"])


def test_a_job_of_systemds_is_in_the_same_sandbox_but_for_the_cgroups() -> None:
    """Whatever ``agent.service`` says from the first line about capabilities on, in the same order."""
    mine, jobs = (
        [line for line in sandbox_of(name) if not line.startswith("ProtectControlGroups=")]
        for name in ("agent.service", "agent-job@.service")
    )
    assert mine == jobs


def sandbox_of(unit: str) -> list[str]:
    text = (SOURCE / "systemd" / unit).read_text()
    lines = text[text.index("AmbientCapabilities=") :].partition("[Install]")[0].splitlines()
    return [line for line in lines if line and not line.startswith("#")]


# -- what it forbids --------------------------------------------------------------------------------------------------


def test_a_service_can_do_nothing_that_is_not_its_business(prober: Host) -> None:
    inside = probed(prober)
    refused = {name: outcome for name, outcome in inside.items() if outcome != "ok"}
    assert set(inside) - set(refused) == ALLOWED
    # None of it for another reason than the sandbox: without, root or an ordinary user may do each of these.
    as_root, as_user = probed_outside(prober, "root"), probed_outside(prober, "nobody")
    assert [name for name, outcome in refused.items() if outcome == as_root[name] == as_user[name]] == []


PRIVILEGED = {
    "see process 1",  # ProtectProc=default
    "give up what it holds",  # the system calls by which the agent becomes somebody else
}


@pytest.mark.parametrize("user", ["agent", "games"])
def test_the_privileged_drop_in_opens_little_more_to_services(prober: Host, user: str) -> None:
    prober.drop_in("privileged", (SOURCE / "systemd/privileged.conf").read_text())
    can = {name for name, outcome in probed(prober, f'user = "{user}"').items() if outcome == "ok"}
    # The declaration is for the agent's group.
    assert can == PRIVILEGED | (ALLOWED if user == "agent" else ALLOWED - {"read the declaration"})


def test_no_process_of_the_agent_can_gain_privileges_or_leave_its_filter(installed: Host) -> None:
    installed.veth("near0", "far0")
    installed.declare(
        '[service.lan]\nkind = "capture"\ninterfaces = ["near0"]\n'
        '[service.web]\nkind = "command"\ncommand = ["/bin/sleep", "4321"]\n'
    )
    installed.systemctl("start")
    pids = [installed.pid, installed.until("lan", state="running")["pid"], installed.service("web")["pid"]]
    for pid in pids:
        status = dict(
            line.split(":\t", 1)
            for line in installed.path(f"/proc/{pid}/status").read_text().splitlines()
            if ":\t" in line
        )
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == "2"
        assert int(status["CapBnd"], 16) == 1 << 13, "more than CAP_NET_RAW is within reach"
        assert status["Uid"].split() == [installed.run(["id", "-u", "agent"]).stdout.strip()] * 4


# -- what works in it -------------------------------------------------------------------------------------------------


def test_captures_see_every_packet_in_promiscuous_mode_without_cap_net_admin(installed: Host) -> None:
    installed.veth("near0", "far0")
    installed.declare(
        '[service.lan]\nkind = "capture"\ninterfaces = ["near0"]\nfilter = "udp port 4444"\npromiscuous = true\n'
    )
    installed.systemctl("start")
    installed.until("lan", state="running")
    assert "promiscuity 1" in installed.run(["ip", "-details", "link", "show", "near0"]).stdout
    # One hundred packets that are for nobody here: only who is promiscuous sees them.
    installed.run(
        ["ip", "-netns", "far0", "neighbour", "add", "10.99.0.77", "lladdr", "02:00:00:00:00:77", "dev", "far0"]
    )
    send = "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
    send += "for _ in range(100): s.sendto(b'x' * 64, ('10.99.0.77', 4444))\n"
    installed.run(["ip", "netns", "exec", "far0", "python3", "-c", send])
    wait_until(lambda: installed.service("lan")["figures"].get("written") == 100, lambda: str(installed.service("lan")))
    installed.systemctl("stop")
    (segment,) = installed.path("/srv/spool/lan").rglob("*.pcap*")
    inside = f"/{segment.relative_to(installed.root)}"
    assert installed.run(["tcpdump", "-n", "--count", "-r", inside]).stdout == "100 packets\n"


def test_scans_send_raw_syn_packets(installed: Host) -> None:
    installed.veth("near0", "far0")
    installed.declare(
        '[service.lan]\nkind = "scan"\ntargets = ["10.99.0.2"]\nports = "22,80"\nprofile = "ports"\nevery = "1d"\n'
    )
    with installed.popen(["ip", "netns", "exec", "far0", "python3", "-m", "http.server", "80"]) as server:
        listening = ["ip", "netns", "exec", "far0", "ss", "-Hltn", "sport = 80"]
        wait_until(lambda: bool(installed.run(listening).stdout))
        installed.systemctl("start")
        installed.agentctl("start", "lan")
        installed.until("lan", state="waiting", last_exit="exited 0")
        server.send_signal(signal.SIGKILL)
    finished = [event["data"] for event in installed.events("--service", "lan") if event["kind"] == "scan_finished"]
    assert finished[-1]["ports_open"] == 1
    (database,) = installed.path("/srv/spool/lan").glob("*.db")
    ask = "import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).execute('SELECT engine FROM runs').fetchone())"
    engine = installed.run(["python3", "-c", ask, f"/srv/spool/lan/{database.name}"]).stdout
    assert engine == "syn\n"


def test_figures_of_processes_are_there(installed: Host) -> None:
    installed.declare('[service.web]\nkind = "command"\ncommand = ["/usr/bin/python3", "-m", "http.server", "8000"]\n')
    installed.systemctl("start")
    wait_until(lambda: installed.service("web")["cpu_percent"] is not None)
    found = installed.service("web")
    assert found["rss_bytes"] > 5_000_000
    assert found["open_files"] >= 3
    assert (found["threads"], found["processes"]) == (1, 1)
    assert installed.status()["agent"]["rss_bytes"] > 5_000_000


def test_limits_are_in_force_as_far_as_the_machine_has_the_controllers(installed: Host) -> None:
    installed.declare(
        '[service.web]\nkind = "command"\ncommand = ["/bin/sleep", "4321"]\n'
        'limits = { memory = "64MiB", cpus = 0.5, pids = 20 }\n'
    )
    installed.systemctl("start")
    there = set(installed.path("/sys/fs/cgroup/cgroup.controllers").read_text().split())
    wanted = {"memory": ("memory.max", "67108864"), "cpu": ("cpu.max", "50000 100000"), "pids": ("pids.max", "20")}
    cgroup = installed.path("/sys/fs/cgroup/agent.slice/agent.service/service.web")
    for controller in there & set(wanted):
        file, value = wanted[controller]
        assert (cgroup / file).read_text() == f"{value}\n"
    told = [event["message"] for event in installed.events() if event["kind"] == "limits_not_in_force"]
    assert bool(told) == bool(set(wanted) - there)


# -- the way to open it -----------------------------------------------------------------------------------------------

OPENED = {
    "keeps data elsewhere": ("write to a directory of its own elsewhere",),
    "listens on a port below 1024": ("listen on a port below 1024",),
    "sends packets of its own making": ("send raw packets",),
    "gives up privileges by itself": ("give up what it holds",),
    "compiles while it runs": ("map memory to write and execute", "make written memory executable"),
    "executes what it unpacked below its spool": ("execute what it wrote",),
    "reads homes": ("see homes",),
    "shares `/tmp` with others": ("see the temporary files of others",),
    "sets priorities, pins processors": ("pin itself to a processor",),
    "is a container, a browser": ("make a user namespace",),
}
"""Rows of the page, by how they begin, and what a service then can."""


def test_what_the_page_says_opens_it_opens_that_and_nothing_else(prober: Host) -> None:
    table = PAGE.read_text().partition("\n## Opening it\n")[2]
    rows = dict(re.findall(r"^\| (.+?) \| (.+) \|$", table, re.MULTILINE))
    before = {name for name, outcome in probed(prober).items() if outcome == "ok"}
    for begins, can in OPENED.items():
        (needs,) = [needs for row, needs in rows.items() if row.startswith(begins)]
        words = re.findall(r"`(\w+ ?=[^`]*)`", needs)
        prober.drop_in("opened", "\n".join(["[Service]", *(word for word in words if word[0].isupper()), ""]))
        keys = "\n".join(word for word in words if word[0].islower())
        now = {name for name, outcome in probed(prober, keys).items() if outcome == "ok"}
        assert now - before == set(can), begins
        assert before <= now, begins


AS_NOBODY = """
[service.other]
kind = "command"
command = ["/opt/tests/other"]
user = "nobody"
secrets = ["word"]
heartbeat = { interval = "200ms", timeout = "5s" }
"""

OTHER = """
import os, pathlib, signal, time
data = pathlib.Path(os.environ["SERVICE_DATA"])
(data / "found").write_text(pathlib.Path(os.environ["WORD_FILE"]).read_text())
while True:
    pathlib.Path(os.environ["SERVICE_HEARTBEAT_FILE"]).touch()
    time.sleep(0.2)
"""


@pytest.fixture
def with_another_user(installed: Host) -> Host:
    installed.program("other", OTHER)
    installed.declare(AS_NOBODY)
    installed.write("/srv/key/secrets/word", "mellon", 0o600)
    installed.run(["chown", "agent:agent", "/srv/key/secrets/word"])
    return installed


def test_the_shipped_unit_runs_no_service_as_another_user_and_says_so(with_another_user: Host) -> None:
    with_another_user.systemctl("start")
    report = with_another_user.until("other", state="failed")
    assert "cannot run as nobody: the agent is not permitted to act for others" in report["message"]
    assert "privileged.conf" in report["message"]


def test_the_shipped_unit_runs_services_as_the_agents_own_user_by_name(with_another_user: Host) -> None:
    with_another_user.declare(AS_NOBODY.replace("nobody", "agent"))
    with_another_user.systemctl("start")
    with_another_user.until("other", state="running", health="healthy")


def test_the_privileged_drop_in_runs_services_as_other_users(with_another_user: Host) -> None:
    host = with_another_user
    host.drop_in("privileged", (SOURCE / "systemd/privileged.conf").read_text())
    score, _ = exposure(host)
    assert f"**{score}**" in PAGE.read_text()
    host.systemctl("start")
    report = host.until("other", state="running", health="healthy")
    uid, gid = (host.run(["id", flag, "nobody"]).stdout.strip() for flag in ("-u", "-g"))
    status = host.path(f"/proc/{report['pid']}/status").read_text()
    assert f"\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n" in status
    assert f"\nGid:\t{gid}\t{gid}\t{gid}\t{gid}\n" in status
    assert re.search(r"^CapPrm:\t0+$", status, re.MULTILINE), "a service holds what the agent does"
    wait_until(lambda: (host.path("/srv/spool/other/found")).exists())
    assert host.path("/srv/spool/other/found").read_text() == "mellon"
    assert report["rss_bytes"] > 1_000_000
    host.systemctl("reload")
    host.agentctl("restart", "other")
    assert host.until("other", state="running", health="healthy")["pid"] != report["pid"]
    host.systemctl("stop")
    assert not [words for words in host.processes().values() if "/opt/tests/other" in words]
    assert not host.path("/srv/run/other.secrets").exists()
