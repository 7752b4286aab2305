"""``make bench-installed``: the program as it is installed, measured on a booted systemd of its own.

The one file installs itself in a container as on any host (tests/system), and everything runs in there, in one run:
what is timed is started and waited for by a process inside (bench/inside). Rounds take the programs in turn, in random
order. The same agent from its source takes turns with the installed one in the very same unit.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.control.client import Client
from bench import installed_report as report
from bench import page, process
from bench.contestants import (
    PEERS,
    ROOT,
    agent_declaration,
    install_peers,
    published_version,
    supervisord_configuration,
)
from bench.installed_report import Cable, Figures, Handovers
from tests.binary import built
from tests.harness import wait_until
from tests.system.host import UNIT, Host

MANY = 100
STARTS = 9
ROUNDS = 25
HANDOVERS = 8
SETTLE = 3.0
"""Seconds after a start before memory is looked at."""
RATE = 100_000
"""Packets per second."""
ASKED = 100_500
"""What is asked of the sender, which may be stopped in the middle of a pause, and is to reach ``RATE``."""
RING_KIB = 16 * 1024
"""A capture's default ``ring``; tcpdump gets as much."""
LAST_BLOCK = 1.5
"""Seconds after the last packet in which tcpdump gets it: it asks for blocks that are full, or a second old."""
NEXT = "0.1.1"
PATIENCE = 60.0

INSIDE = Path(__file__).with_name("inside")
PACKAGES = "/opt/packages"
SOURCE = "/opt/source"
SUPERVISORD = "/opt/supervisord/supervisord.conf"

FROM_SOURCE = f"""\
[Service]
Environment=PYTHONPATH={SOURCE}:{PACKAGES}
ExecStart=
ExecStart=/usr/bin/python3 -P -m agent run
"""

CAPTURE = """
[service.cable]
kind = "capture"
interfaces = ["near"]
filter = "udp port 9"
"""

SUPERVISORCTL = """\
import sys
from supervisor.{module} import main
sys.exit(main())
"""
"""What pip makes of an entry point."""


def main() -> None:
    if os.geteuid() != 0:
        sys.exit("make bench-installed boots a container, and that takes root")
    if sys.version_info[:2] != (3, 11):
        sys.exit(
            "make bench-installed runs the source with the container's Python, 3.11, and needs the libraries for it"
        )
    install_peers()
    note("building, unless it has been")
    program, following = built(), built(NEXT)
    with Host(binds={Path(sysconfig.get_path("platlib")): PACKAGES}) as host:
        prepare(host)
        figures = Figures(
            one_file=program.onefile.stat().st_size,
            installed=[path.stat().st_size for path in program.tree.rglob("*") if path.is_file()],
        )
        for count in (1, MANY):
            names = [f"w{number}" for number in range(count)]
            host.declare(agent_declaration(names))
            if count == 1:
                measure_starts(host, figures)
            measure_memory(host, figures, count)
            with supervisord(host, names):
                note(f"{count} services: {ROUNDS} rounds of programs")
                figures.programs[count] = timed(host, ROUNDS, report.PROGRAMS)
        host.copy_in(following.tree, f"/srv/lib/agent/{NEXT}")
        note(f"{MANY} services: {HANDOVERS} hand-overs")
        figures.handovers[MANY] = hand_over_and_back(host)
        note(f"a capture of {RATE:,} packets per second: {HANDOVERS} hand-overs")
        measure_cable(host, figures)
    text = report.render(figures, many=MANY, rate=RATE)
    print(text)
    if "--write" in sys.argv[1:]:
        method = report.METHOD.format(
            starts=STARTS,
            rounds=ROUNDS,
            handovers=HANDOVERS,
            settle=SETTLE,
            rate=RATE,
            supervisor=published_version("supervisor"),
        )
        page.write("bench-installed", report.TITLE, text, method)


def prepare(host: Host) -> None:
    """The program installed, and beside it supervisor, the source, and what measures."""
    host.install()
    for script in INSIDE.glob("[a-z]*.py"):
        host.program(script.stem, script.read_text())
    # Where and as what pip would put them, without reaching for an index in there.
    site = "/usr/local/lib/python3.11/dist-packages"
    host.copy_in(next(PEERS.glob("lib/python*/site-packages/supervisor")), f"{site}/supervisor")
    for module in ("supervisord", "supervisorctl"):
        host.write(f"/usr/local/bin/{module}", f"#!/usr/bin/python3\n{SUPERVISORCTL.format(module=module)}", 0o755)
    host.copy_in(ROOT / "agent", f"{SOURCE}/agent")
    host.run(["python3", "-m", "compileall", "-q", f"{site}/supervisor", SOURCE], timeout=PATIENCE)


def timed(host: Host, rounds: int, programs: dict[str, list[str]]) -> dict[str, list[report.Timing]]:
    """Each program's times, by name."""
    asked = json.dumps({"rounds": rounds, "programs": programs})
    answer = json.loads(host.run(["/opt/tests/timing"], stdin=asked, timeout=PATIENCE).stdout)
    return {name: [report.Timing(*one) for one in found] for name, found in answer.items()}


# -- starting, and what it weighs -------------------------------------------------------------------------------------


def measure_starts(host: Host, figures: Figures) -> None:
    note(f"{STARTS} starts of each form")
    for _ in range(STARTS):
        for form in random.sample(report.FORMS, len(report.FORMS)):
            returned, ready = begin(host, form)
            figures.returned[form].append(returned)
            figures.ready[form].append(ready)
            host.systemctl("stop")


def begin(host: Host, form: str) -> tuple[float, float]:
    """Start the unit with the agent in that form; how many seconds that took by our clock, and by systemd's."""
    host.drop_in("form", FROM_SOURCE if form == report.SOURCE else "[Service]\n")
    (took,) = timed(host, 1, {"start": ["systemctl", "start", UNIT]})["start"]
    asked = ("ExecMainStartTimestampMonotonic", "ActiveEnterTimestampMonotonic")
    shown = host.show(UNIT, *asked)
    started, active = (int(shown[name]) for name in asked)
    return took.wall, (active - started) / 1e6


def measure_memory(host: Host, figures: Figures, count: int) -> None:
    """Of each form; the installed one runs on."""
    for form in (report.SOURCE, report.INSTALLED):
        note(f"{count} services: memory of the {form}")
        begin(host, form)
        time.sleep(SETTLE)
        figures.memory[form][count] = process.proportional_memory([host.pid], host.path("/proc"))
        if form == report.SOURCE:
            host.systemctl("stop")


@contextmanager
def supervisord(host: Host, names: list[str]) -> Iterator[None]:
    """supervisord running a worker of each name, as a service of its own."""
    host.write(SUPERVISORD, supervisord_configuration(names))
    unit = ["systemd-run", "--quiet", "--unit=supervisord", "--service-type=exec", "--collect"]
    host.run([*unit, "/usr/local/bin/supervisord", "-c", SUPERVISORD])
    asked = report.PROGRAMS[report.SUPERVISORCTL]
    wait_until(
        lambda: host.run(asked, check=False).stdout.count(" RUNNING ") == len(names),
        lambda: host.journal("-u", "supervisord"),
        PATIENCE,
    )
    yield
    host.run(["systemctl", "stop", "supervisord"])


# -- another version following ----------------------------------------------------------------------------------------


def hand_over_and_back(host: Host) -> Handovers:
    """The versions following each other, the last one being the first again."""
    found = Handovers()
    client = Client(host.path("/srv/run/agent.sock"))
    worker = host.service(host.status()["services"][0]["name"])["pid"]
    for number in range(HANDOVERS):
        version = NEXT if number % 2 == 0 else built().version
        host.run(["ln", "-sfn", version, "/srv/lib/agent/next"])
        host.run(["mv", "-T", "/srv/lib/agent/next", "/srv/lib/agent/current"])
        with inside(host, "/opt/tests/asker", "/srv/run/agent.sock") as asking:
            (took,) = timed(host, 1, {"reload": ["systemctl", "reload", UNIT]})["reload"]
            found.waits.append(float(finished(asking)))
        report_of_it = client.request("GET", "/v1/handover")
        assert (report_of_it["state"], report_of_it["after"]) == ("done", version), report_of_it
        found.pauses.append(report_of_it["pause_ms"] / 1000)
        found.reloads.append(took.wall)
    assert host.service(host.status()["services"][0]["name"])["pid"] == worker, "a worker was restarted"
    return found


def measure_cable(host: Host, figures: Figures) -> None:
    """Hand-overs under a capture of a steady stream, with tcpdump beside it, which nobody hands over."""
    host.veth("near", "far")
    host.declare(agent_declaration(["w0"]) + CAPTURE)
    host.systemctl("restart")
    host.until("cable", state="running", ready=True)
    mac = host.path("/sys/class/net/near/address").read_text().strip()
    control = ["tcpdump", "-Z", "root", "-i", "near", "-B", str(RING_KIB), "-w", "/opt/control.pcap", "udp port 9"]
    with host.popen(control, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as dumping:
        assert dumping.stderr
        assert b"listening on near" in dumping.stderr.readline()
        with inside(host, "ip", "netns", "exec", "far", "/opt/tests/sender", "far", str(ASKED), mac) as sending:
            figures.handovers[1] = hand_over_and_back(host)
            sent = json.loads(finished(sending))
        lost_on_the_way = int(
            host.run(["ip", "netns", "exec", "far", "cat", "/sys/class/net/far/statistics/tx_dropped"]).stdout
        )
        expected = sent["sent"] - lost_on_the_way
        # What waits in a ring is handed over within a moment; what was dropped counts as received.
        wait_until(lambda: host.service("cable")["figures"]["received"] >= expected, lambda: str(host.service("cable")))
        time.sleep(LAST_BLOCK)
        (dumper,) = [pid for pid, words in host.processes().items() if words[0] == "tcpdump"]
        os.kill(dumper, signal.SIGINT)
        told = dumping.stderr.read().decode()
    host.agentctl("stop", "cable")
    counted = host.service("cable")["figures"]
    segments = [str(path.relative_to(host.root)) for path in host.path("/srv/spool/cable").rglob("*.pcap")]
    figures.cable = Cable(
        sent=sent["sent"],
        rate=sent["sent"] / sent["seconds"],
        lost_on_the_way=lost_on_the_way,
        received=counted["received"],
        dropped=counted["dropped_kernel"],
        written=counted["written"],
        stored=sum(packets(host, f"/{segment}") for segment in segments),
        control_stored=packets(host, "/opt/control.pcap"),
        control_dropped=int(re.findall(r"^(\d+) packets? dropped by kernel", told, re.MULTILINE)[0]),
    )


def packets(host: Host, file: str) -> int:
    """How many packets a savefile holds, by tcpdump's count."""
    done = host.run(["tcpdump", "--count", "-r", file], timeout=PATIENCE)
    return int(re.findall(r"^(\d+) packet", done.stdout, re.MULTILINE)[0])


@contextmanager
def inside(host: Host, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program that works from when it has said ``begun`` until it is ``finished``."""
    with host.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdout
        assert running.stdout.readline() == b"begun\n"
        yield running


def finished(running: subprocess.Popen[bytes]) -> str:
    """End it; its last words."""
    said, _ = running.communicate(timeout=PATIENCE)
    assert running.returncode == 0
    return said.decode()


def note(text: str) -> None:
    print(f"bench: {text} (load {os.getloadavg()[0]:.1f})", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
