"""Whom the built program starts, and with what: itself with its own libraries, everything else with the host's."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PyInstaller.archive.readers import CArchiveReader

from agent.linux.process import descendants
from tests.binary import Built, built
from tests.harness import PATIENCE, Agent, environment, marked, wait_gone, wait_until

pytestmark = pytest.mark.timeout(300)  # the first one may build

KINDS = """
[service.edge]
kind = "capture"
interfaces = ["lo"]
filter = "udp dst port 4789"

[service.sweep]
kind = "scan"
targets = ["127.0.0.1"]
ports = "{port}"
profile = "services"
every = "1h"

[service.other]
kind = "command"
command = ["sleep", "1000"]
"""
"""A service of each kind; of a server that speaks and says nothing that nmap knows nmap asks for a minute."""

SHORT = KINDS.replace('"services"', '"discovery"').replace('ports = "{port}"\n', "")
"""The same with a scan of an instant."""

NUMPYS = {"_multiarray_umath", "libstdc++"}
"""What is mapped where numpy is loaded."""


class Frozen(Agent):
    """An agent of the built program, found by ``entry``."""

    def __init__(self, prefix: Path, entry: Path) -> None:
        super().__init__(prefix)
        self.entry = entry

    def command(self, *arguments: str) -> list[str]:
        return [str(self.entry), *arguments]


@pytest.fixture
def agent(program: Built, tmp_path: Path) -> Iterator[Frozen]:
    """An agent of the installed form that has not been started."""
    made = Frozen(tmp_path / "srv", program.program)
    yield made
    made.clean()


@pytest.fixture
def kinds() -> Iterator[str]:
    """The declaration, and the server that the scan is at."""

    def speak() -> None:
        with suppress(OSError):
            while True:
                connections.append(listener.accept()[0])
                connections[-1].send(b"?\r\n")

    connections: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=speak)
        thread.start()
        yield KINDS.format(port=listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    for connection in connections:
        connection.close()


def libraries(pid: int) -> dict[str, Path]:
    """The shared libraries that a process has mapped, by name without version."""
    maps = Path(f"/proc/{pid}/maps").read_text()
    return {stem(place): Path(place) for place in re.findall(r"(/\S+\.so\S*)$", maps, re.MULTILINE)}


def stem(path: Path | str) -> str:
    return Path(path).name.partition(".so")[0].partition(".cpython")[0]


def variables(pid: int) -> dict[str, str]:
    """What a process found in its environment."""
    entries = environment(pid).decode().split("\0")
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


class Program(NamedTuple):
    """What a process that lives has loaded, and found in its environment."""

    libraries: dict[str, Path]
    variables: dict[str, str]

    @classmethod
    def of(cls, pid: int) -> Program:
        return cls(libraries(pid), variables(pid))


def nmap_of(agent: Agent) -> Program:
    """An nmap that the scan has started, once its libraries are loaded. It may end at any time, for the next."""
    found: list[Program] = []

    def running() -> bool:
        for pid in descendants(agent.service("sweep")["pid"] or 0):
            with suppress(OSError):
                one = Program.of(pid)
                if "libpcap" in one.libraries:
                    found.append(one)
        return bool(found)

    wait_until(running, lambda: f"no nmap: {agent.events()}")
    return found[0]


def index_of(agent: Agent) -> int:
    """The index process of the capture, once it has numpy."""
    found: list[int] = []

    def running() -> bool:
        found[:] = [pid for pid in descendants(agent.service("edge")["pid"] or 0) if libraries(pid).keys() >= NUMPYS]
        return bool(found)

    wait_until(running, lambda: f"no index process: {agent.events()}")
    return found[0]


def test_each_process_has_the_libraries_that_are_its_own(agent: Frozen, program: Built, kinds: str) -> None:
    agent.declare(kinds)
    agent.start(environ={"LD_LIBRARY_PATH": "/opt/of-the-host"})
    agent.until("edge", ready=True)
    agent.until("sweep", state="running")
    bundled = {stem(path) for path in program.tree.rglob("*.so*")}
    ours = {"agent": agent.pid, **{name: agent.service(name)["pid"] for name in ("edge", "sweep")}}
    ours["index"] = index_of(agent)
    for pid in ours.values():
        mapped = libraries(pid)
        assert mapped.keys() & bundled
        assert all(program.tree in path.parents for name, path in mapped.items() if name in bundled)
        assert variables(pid)["LD_LIBRARY_PATH"] == f"{program.tree}/lib:/opt/of-the-host"
    assert "libpcap" in libraries(ours["edge"])
    assert not [name for name, pid in ours.items() if name != "index" and NUMPYS & libraries(pid).keys()]
    foreign = [Program.of(agent.service("other")["pid"]), nmap_of(agent)]
    for one in foreign:
        assert one.libraries and not any(program.tree in path.parents for path in one.libraries.values())
        assert not [name for name in one.variables if name.startswith(("_PYI_", "LD_LIBRARY_PATH"))]
    assert {"libpcap", "libz"} <= foreign[1].libraries.keys() & bundled, "there is nothing to mix up"


def test_no_process_but_the_workers_is_started(agent: Frozen, kinds: str) -> None:
    agent.declare(kinds)
    agent.start()
    agent.until("edge", ready=True)
    nmap_of(agent)
    index_of(agent)
    expected = [*(("agentctl", "worker", kind) for kind in ("capture", "index", "scan")), ("nmap",), ("sleep",)]
    seen: list[list[tuple[str, ...]]] = []

    def all_there() -> bool:
        told = []
        for pid in descendants(agent.pid):
            # One that is between two programs has no words yet, and one that has ended no more.
            with suppress(OSError):
                if words := Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]:
                    told.append((Path(words[0]).name, *words[1:3])[: 3 if "agentctl" in words[0] else 1])
        seen.append(sorted(told))
        return seen[-1] == expected

    # nmap is started more than once: lightly first, and again for what that did not tell.
    wait_until(all_there, lambda: f"never all of them at once: {seen[-3:]}")
    assert {each for look in seen for each in look} == set(expected)


def test_packets_are_captured(agent: Frozen) -> None:
    agent.declare(SHORT)
    agent.start()
    agent.until("edge", ready=True)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for number in range(500):
            sender.sendto(number.to_bytes(2), ("127.0.0.1", 4789))
            sender.sendto(b"not wanted", ("127.0.0.1", 4790))
    agent.act("stop", "edge")
    segments = sorted((agent.prefix / "spool" / "edge" / "lo").glob("*.pcap"))
    shown = subprocess.run(["tcpdump", "-nn", "-r", *map(str, segments)], capture_output=True, text=True, check=True)
    assert len(re.findall(r"127\.0\.0\.1\.4789: ", shown.stdout)) == len(shown.stdout.splitlines()) == 500


def test_an_agent_starts_workers_of_its_own_version(agent: Frozen, program: Built, tmp_path: Path) -> None:
    newer = built("0.1.1")
    current = tmp_path / "current"
    current.symlink_to(program.tree)
    agent.entry = current / "agentctl"
    agent.declare('[service.edge]\nkind = "capture"\ninterfaces = ["lo"]\n')
    agent.start()
    agent.until("edge", ready=True)
    current.unlink()
    current.symlink_to(newer.tree)
    assert agent.ctl("--version").stdout == "agentctl 0.1.1\n"
    for attempt in range(2):
        pid = agent.service("edge")["pid"]
        os.kill(pid, signal.SIGKILL)
        wait_gone(pid)
        again = agent.until("edge", ready=True, restarts=attempt + 1)
        assert Path(f"/proc/{again['pid']}/exe").resolve() == program.program
        assert all(newer.tree not in path.parents for path in libraries(again["pid"]).values())


def test_without_a_home_everything_runs(agent: Frozen) -> None:
    agent.declare(SHORT)
    agent.start(wrapper=("env", "-u", "HOME"))
    agent.until("edge", ready=True)
    agent.event("scan_finished", "sweep")
    agent.until("sweep", state="waiting", last_exit="exited 0")
    assert "HOME" not in variables(agent.pid)
    assert agent.service("edge")["restarts"] == 0
    assert agent.stop() == 0


SLOW = """
[service.slow]
kind = "command"
command = ["/bin/sh", "-c", "trap 'echo told' TERM; echo armed; until [ -e $$SERVICE_DATA/go ]; do sleep 0.05; done"]
"""
"""A service that ends when it may, and not when it is told to."""


@pytest.mark.parametrize("second", ["at once", "while it stops"])
def test_a_group_that_is_told_to_stop_twice_ends_with_the_one_file_in_it(
    program: Built, kinds: str, tmp_path: Path, second: str
) -> None:
    """What unpacked the agent passes on what it gets, and so each of these comes to the agent twice."""
    (unpacked := tmp_path / "unpacked").mkdir()
    agent = Frozen(tmp_path / "srv", program.onefile)
    agent.declare(kinds + SLOW)
    try:
        agent.start(environ={"TMPDIR": str(unpacked)})
        assert agent.process is not None and agent.process.pid != agent.pid
        agent.until("edge", ready=True)
        nmap_of(agent)
        wait_until(lambda: "armed" in agent.log("slow"))
        os.killpg(agent.process.pid, signal.SIGTERM)
        if second != "at once":
            wait_until(lambda: "told" in agent.log("slow"))
        os.killpg(agent.process.pid, signal.SIGTERM)
        (agent.prefix / "spool" / "slow" / "go").touch()
        assert agent.process.wait(PATIENCE) == 0, agent.console()
        assert not marked(agent.prefix)
        assert "Traceback" not in agent.console()
        assert not (agent.prefix / "log" / "agent.log").exists()
        assert not list(unpacked.iterdir())
    finally:
        agent.clean()


def test_no_worker_loads_what_only_another_may(agent: Frozen, program: Built, tmp_path: Path) -> None:
    """scapy, python-nmap and numpy, by what each process read from the archive of modules (see docs/licences.md)."""
    agent.declare(SHORT)
    trace = tmp_path / "trace"
    agent.start(wrapper=("strace", "-ff", "-qq", "-e", "trace=execve,lseek", "-s", "256", "-o", str(trace)))
    agent.until("edge", ready=True)
    index_of(agent)
    agent.event("completed", "sweep")
    os.kill(agent.pid, signal.SIGTERM)  # strace(1) would keep it for itself
    assert agent.process is not None and agent.process.wait(PATIENCE) == 0
    read = {words: modules for path in tmp_path.glob("trace.*") for words, modules in loaded(path, program).items()}
    assert "agent.workers.capture.worker" in read["worker capture"] and "scapy.libs.winpcapy" in read["worker capture"]
    assert "agent.workers.scan.worker" in read["worker scan"] and "nmap.nmap" in read["worker scan"]
    assert "agent.control.daemon" in read["run"]
    tops = {words: {name.partition(".")[0] for name in modules} for words, modules in read.items()}
    assert "nmap" not in tops["worker capture"] | tops["worker index"] | tops["run"]
    assert "scapy" not in tops["worker scan"] | tops["run"]
    assert "numpy" in tops["worker index"]
    assert "numpy" not in tops["worker capture"] | tops["worker scan"] | tops["run"]
    assert not {"click", "rich"} & set().union(*tops.values())


def loaded(trace: Path, program: Built) -> dict[str, set[str]]:
    """By its words on the command line, the modules that a traced process read from the archive in the executable."""
    places = offsets(program)
    text = trace.read_text(errors="replace")
    words = re.search(r'^execve\("[^"]*/agentctl", \[(.*?)\]', text, re.MULTILINE)
    if words is None:
        return {}
    seeks = {int(place) for place in re.findall(r"^lseek\(\d+, (\d+), SEEK_SET\)", text, re.MULTILINE)}
    name = " ".join(re.findall(r'"([^"]*)"', words[1])[1:])
    return {name: {module for module, place in places.items() if place in seeks}}


def offsets(program: Built) -> dict[str, Any]:
    """Where in the executable each module begins."""
    archive = CArchiveReader(str(program.program))
    inner = archive.open_embedded_archive("PYZ.pyz")
    return {name: inner._start_offset + place for name, (_, place, _) in inner.toc.items()}
