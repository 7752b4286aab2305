"""What is measured of scans: each row on hosts of the lab, by us and by nmap in turn."""

from __future__ import annotations

import random
import shutil
import signal
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from ipaddress import IPv4Network
from pathlib import Path

from bench import scanners
from bench.scan_report import NMAP, US, Figures, Kill, Outcome
from bench.scanners import Nmap, Us, joined
from tests.workers.inventory.lab import packets
from tests.workers.scan import lab
from tests.workers.scan.truth import FAR, HOSTS, INTERFACE, NEAR, Truth, of_kind

Place = tuple[str, int]

ALL = "1-65535"
KILLED_RATE = 8000
"""Probes per second of the scans that are killed: slow enough to be killed in."""
KILLED_PORTS = 1000
LIVES = (0.3, 4.0)
"""Seconds after which a scan is killed: any time between these."""
THOUSAND = 1000

_FAR = {
    "ports": of_kind("10 ms away")[0],
    "loss": of_kind("10 ms away, loses 5 % each way")[0],
    "cap": of_kind("10 ms away, behind 5,000 packets a second")[0],
}
_DISCOVERED = {"discovery": lab.SPARSE_PREFIX, "crowd": lab.MANY_PREFIX}
_OPTIONS = {"ports": ["-sT", "-Pn"], "loss": ["-sS", "-Pn"], "cap": ["-sS", "-Pn", "--min-rate", "20000"]}


def whole_hosts(net: lab.Network, place: Path, row: str, figures: Figures) -> dict[str, Outcome]:
    """All ports of one host at the end of a bad way."""
    host = _FAR[row]
    figures.truth[row] = frozenset((host.address, port) for port in host.tcp)
    privileged = row != "ports"
    theirs = Nmap(net, place, [[*_OPTIONS[row], "-p", ALL, host.address]], privileged)
    return round_of(net, place, theirs, privileged=privileged, targets=[host.address], ports=ALL, profile="ports")


def silent(net: lab.Network, place: Path, figures: Figures) -> dict[str, Outcome]:
    """Ports that say nothing among some that do: naming the latter is not to wait for the former."""
    (host,) = of_kind("many services")
    figures.truth["silent"] = frozenset((host.address, port) for port in host.tcp)
    figures.speaking = frozenset((host.address, port) for port, what in host.tcp.items() if what != "silent")
    ports = joined(host.tcp)
    theirs = Nmap(net, place, [["-sS", "-sV", "-Pn", "-p", ports, host.address]])
    return round_of(net, place, theirs, targets=[host.address], ports=ports, profile="services")


def services(net: lab.Network, place: Path, figures: Figures) -> dict[str, Outcome]:
    """Everybody on the link but the two at which nmap does not come to an end in a quarter of an hour."""
    hosts = [host for host in HOSTS if host.kind not in ("says open to everything", "tarpit")]
    asked = {port for host in hosts for port in host.tcp if not 7005 <= port <= 9000 and not 2201 <= port <= 2240}
    others = (port for port in range(1, 65536) if port not in asked)
    while len(asked) < THOUSAND:
        asked.add(next(others))
    figures.truth["services"] = frozenset((host.address, port) for host in hosts for port in host.open & asked)
    four = [host.address for host in hosts if ":" not in host.address]
    six = [host.address for host in hosts if ":" in host.address]
    ports = joined(asked)
    commands = [["-sS", "-sV", "-Pn", "-p", ports, *four], ["-6", "-sS", "-sV", "-Pn", "-p", ports, *six]]
    ours = {"targets": [*four, *six], "ports": ports, "profile": "services"}
    return round_of(net, place, Nmap(net, place, commands), **ours)


def discovery(net: lab.Network, place: Path, row: str, figures: Figures) -> dict[str, Outcome]:
    """Who is there of a /20: 256 of it, or all."""
    prefix = _DISCOVERED[row]
    network = [str(address) for address in IPv4Network(prefix)]
    figures.truth[row] = frozenset((address, 0) for address in (network[1:-1] if row == "crowd" else network[1::16]))
    return round_of(net, place, Nmap(net, place, [["-sn", prefix]]), targets=[prefix], profile="discovery")


def discovery_memory(net: lab.Network, place: Path) -> int:
    """Bytes that we take where all answer, at most, nmap included."""
    directory = place / US
    us = Us(net, directory, targets=[_DISCOVERED["crowd"]], profile="discovery")
    with closing(us), us.running() as running:
        most = scanners.heaviest(running)
    shutil.rmtree(directory)
    return most


def round_of(net: lab.Network, place: Path, theirs: Nmap, **settings: object) -> dict[str, Outcome]:
    """Both, in random order."""
    outcomes: dict[str, Outcome] = {}
    for who in random.sample((US, NMAP), 2):
        if who == NMAP:
            outcomes[NMAP] = theirs.run()
            continue
        directory = place / US
        with closing(Us(net, directory, **settings)) as us:  # type: ignore[arg-type]  # settings are whatever a scan has
            outcomes[US] = us.run()
        shutil.rmtree(directory)
    return outcomes


def kills(net: lab.Network, place: Path, count: int, figures: Figures) -> Iterator[Kill]:
    """Scans that are killed once, at any time, and run again; every SYN that arrives is counted."""
    hosts = [host for kind in ("web", "ssh", "redis") for host in of_kind(kind)]
    ports = sorted({port for host in hosts for port in host.tcp} | set(range(10_000, 10_000 + KILLED_PORTS)))[
        :KILLED_PORTS
    ]
    figures.per_host = len(ports)
    done = 0
    while done < count:
        if (kill := killed(net, place, hosts, ports)) is not None:
            done += 1
            yield kill


def killed(net: lab.Network, place: Path, hosts: list[Truth], ports: list[int]) -> Kill | None:
    """``None`` when all was stored before that, and what runs again is another scan."""
    directory = place / US
    us = Us(
        net,
        directory,
        targets=[host.address for host in hosts],
        ports=joined(ports),
        profile="ports",
        rate=KILLED_RATE,
    )
    with closing(us), seen(net, place) as capture:
        with us.running() as running:
            begun = time.monotonic()
            with suppress(subprocess.TimeoutExpired):
                running.wait(random.uniform(*LIVES))
            scanners.end(running)
            after = time.monotonic() - begun
        over = us.finished()
        with us.running() as running:
            code = scanners.waited(running, scanners.LIMIT).code
        found = frozenset((each.address, each.port) for each in us.found())
    if over:
        shutil.rmtree(directory)
        return None
    asked = Counter(syns(capture))
    again = {probe: times - 1 for probe, times in asked.items() if times > 1}
    truth = {(host.address, port) for host in hosts for port in host.tcp}
    every = {(host.address, port) for host in hosts for port in ports}
    shutil.rmtree(directory)
    capture.unlink()
    return Kill(
        after=after,
        complete=code == 0 and asked.keys() >= every,
        twice=sum(again.values()),
        hosts=len({address for address, _ in again}),
        wrong=len(truth - found),
    )


@contextmanager
def seen(net: lab.Network, place: Path) -> Iterator[Path]:
    """A capture of every SYN that arrives on the link while it runs."""
    path = place / "syns.pcap"
    only = f"tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn and src {NEAR} and not dst {FAR}"
    options = ("-i", INTERFACE, "-U", "--immediate-mode", "-B", "65536", "-s", "64", "-Z", "root", "-w", str(path))
    with subprocess.Popen(net.there("tcpdump", *options, only), stderr=subprocess.PIPE) as dump:
        try:
            if dump.stderr is None or b"listening" not in dump.stderr.readline():
                raise ValueError("tcpdump does not listen")
            yield path
        finally:
            dump.send_signal(signal.SIGINT)
            dump.communicate(timeout=lab.PATIENCE)


def syns(capture: Path) -> Iterator[Place]:
    """Whom each SYN was for, of a capture of Ethernet frames with IPv4."""
    for packet in packets(capture):
        if packet.data[12:14] == b"\x08\x00":
            header = 14 + (packet.data[14] & 15) * 4
            (port,) = struct.unpack_from("!H", packet.data, header + 2)
            yield ".".join(map(str, packet.data[30:34])), port
