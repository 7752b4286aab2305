"""Who scans beside us: nmap, masscan and RustScan, each a whole process from its start to the end of its output."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import scanners
from bench.capture import version
from bench.scan_report import MASSCAN, NMAP, RUSTSCAN, Ended, Found, Outcome
from bench.scanners import UNPRIVILEGED, waited
from tests.workers.scan import lab
from tests.workers.scan.truth import INTERFACE

PACKAGES = ("nmap", "masscan", "nginx", "openssh-server", "redis-tools", "dnsmasq-base")
"""Debian's, of whoever takes part."""
FAST = 20_000
"""Packets per second that masscan is told to send; its own default is 100."""
LAST = 5
"""Seconds for which masscan waits for answers after its last packet, and after which it is to end."""
HANGS = 40.0
"""Seconds after which masscan is ended, which may wait for ever for its receiver."""
DESCRIPTORS = 10_000
"""That RustScan may have open: twice what it has with its default of 4,500 ports at once."""
GATEWAY = "02:00:00:00:99:fd"
"""The MAC of the host that the larger networks are behind (``lab``)."""


@dataclass(frozen=True)
class Peer:
    """A program: one process after the other where there are several ``commands``. They write to stdout."""

    name: str
    commands: Sequence[Sequence[str]]
    read: Callable[[str], Iterable[Found]]
    privileged: bool = True
    limit: float | None = None

    def run(self, net: lab.Network, place: Path) -> Outcome:
        """Run it to its end, or for ``limit`` seconds; what it has said by then counts."""
        total = Ended(0, 0.0, 0.0)
        found: set[Found] = set()
        answer = place / f"answer-{threading.get_ident()}"
        for command in self.commands:
            before = () if self.privileged else UNPRIVILEGED
            with answer.open("wb") as stdout, subprocess.Popen(
                net.inside(*before, *command), stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.DEVNULL
            ) as it:  # fmt: skip
                ended = waited(it, self.limit or scanners.LIMIT)
            total.code |= ended.code
            total.seconds += ended.seconds
            total.processor += ended.processor
            found |= set(self.read(answer.read_text(errors="replace")))
        return Outcome(self.name, total.seconds, total.processor, total.code == 0, frozenset(found))


def versions() -> dict[str, str]:
    """Of all that take part here, by name."""
    found = {
        name: version(name) for name in ("nmap", "masscan", "nginx", "openssh-server", "redis-tools", "dnsmasq-base")
    }
    if shutil.which("rustscan"):
        said = subprocess.run(["rustscan", "--version"], check=True, capture_output=True, text=True).stdout
        found["RustScan"] = said.split()[-1]
    return found


def nmap(*commands: Sequence[str], privileged: bool = True) -> Peer:
    return Peer(NMAP, [["nmap", "-n", "-oX", "-", *options] for options in commands], read_nmap, privileged)


def masscan(*options: str, interface: str) -> Peer:
    """On a link of Ethernet it has to be told of the gateway, for it has ARP of its own and no routes."""
    gateway = ("--router-mac", GATEWAY) if interface == INTERFACE else ()
    command = ["masscan", "--interface", interface, *gateway, "--rate", str(FAST), "--wait", str(LAST)]
    return Peer(MASSCAN, [[*command, *options]], read_masscan, limit=HANGS)


def rustscan(address: str) -> Iterator[Peer]:
    """All ports of a host, with its defaults; nobody where it is not installed."""
    if shutil.which("rustscan"):
        options = ["--no-config", "--no-banner", "--greppable", "--scripts", "none", "--ulimit", str(DESCRIPTORS)]
        command = ["rustscan", *options, "--range", "1-65535", "--addresses", address]
        yield Peer(RUSTSCAN, [command], read_rustscan, privileged=False)


_HOST = re.compile(r"<host[ >].*?</host>", re.DOTALL)


def read_nmap(xml: str) -> Iterator[Found]:
    """What an XML of nmap tells, also of one that stops before its end: open ports, and hosts that have none."""
    for text in _HOST.findall(xml):
        host = ET.fromstring(text)
        address = next((each.attrib["addr"] for each in host.iter("address") if each.attrib["addrtype"] != "mac"), None)
        status = host.find("status")
        if address is None or status is None or status.get("state") != "up":
            continue
        ports = [port for port in host.iter("port") if _state(port) == "open"]
        if not ports:
            yield Found(address, 0)
        for port in ports:
            service = port.find("service")
            named = service is not None and service.get("method") == "probed"
            said = service.attrib if service is not None and named else {}
            names = (said.get(name, "") for name in ("name", "product", "version"))
            yield Found(address, int(port.attrib["portid"]), *names)


def _state(port: ET.Element) -> str:
    state = port.find("state")
    return "" if state is None else state.get("state", "")


_MASSCAN = re.compile(r"Discovered open port (\d+)/(?:tcp|icmp) on ([0-9a-f.:]+)")


def read_masscan(text: str) -> Iterator[Found]:
    """What masscan tells on a terminal, as soon as it knows it; port 0 for who has answered a ping."""
    for port, address in _MASSCAN.findall(text):
        yield Found(address, int(port))


_RUSTSCAN = re.compile(r"^(\S+) -> \[([\d,]*)\]$", re.MULTILINE)


def read_rustscan(text: str) -> Iterator[Found]:
    """What RustScan says with ``--greppable``: ``ADDRESS -> [PORT,PORT]``."""
    for address, ports in _RUSTSCAN.findall(text):
        for port in filter(None, ports.split(",")):
            yield Found(address, int(port))
