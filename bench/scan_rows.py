"""What is measured of scans: each row on hosts of the lab, by us and by the others in turn."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from contextlib import closing
from ipaddress import IPv4Network
from pathlib import Path

from bench import scan_peers, scanners
from bench.scan_peers import Peer
from bench.scan_report import US, Figures, Outcome, Round
from bench.scanners import Us, joined
from tests.workers.scan import lab
from tests.workers.scan.truth import HOSTS, INTERFACE, Truth, of_kind

ALL = "1-65535"
THOUSAND = 1000
ENDLESS = ("says open to everything", "tarpit")
"""At which nmap does not come to an end in a quarter of an hour."""

_FAR = {
    "ports": of_kind("10 ms away")[0],
    "loss": of_kind("10 ms away, loses 5 % each way")[0],
    "cap": of_kind("10 ms away, behind 5,000 packets a second")[0],
}
_WAY = "way"
"""The interface that these are behind."""
_DISCOVERED = {"discovery": lab.SPARSE_PREFIX, "crowd": lab.MANY_PREFIX}
_OPTIONS = {"ports": ["-sT", "-Pn"], "loss": ["-sS", "-Pn"], "cap": ["-sS", "-Pn", "--min-rate", "20000"]}


def whole_hosts(net: lab.Network, place: Path, row: str, figures: Figures, *, slow: bool = True) -> Round:
    """All ports of one host at the end of a bad way. Not ``slow``: without masscan, which may never end."""
    host = _FAR[row]
    figures.truth[row] = frozenset((host.address, port) for port in host.tcp)
    privileged = row != "ports"
    theirs = [*scan_peers.rustscan(host.address)]
    if row != "loss":
        theirs.append(scan_peers.nmap([*_OPTIONS[row], "-p", ALL, host.address], privileged=privileged))
    if slow and privileged:
        theirs.append(scan_peers.masscan(host.address, "-p", ALL, "--retries", "2", interface=_WAY))
    return round_of(net, place, theirs, privileged=privileged, targets=[host.address], ports=ALL, profile="ports")


def silent(net: lab.Network, place: Path, figures: Figures) -> Round:
    """Ports that say nothing among some that do: naming the latter is not to wait for the former. By us alone."""
    (host,) = of_kind("many services")
    figures.truth["silent"] = frozenset((host.address, port) for port in host.tcp)
    figures.speaking = frozenset((host.address, port) for port, what in host.tcp.items() if what != "silent")
    return round_of(net, place, [], targets=[host.address], ports=joined(host.tcp), profile="services")


def patient() -> dict[str, Peer]:
    """nmap for the rows in which it does little but wait, for minutes."""
    (many,) = of_kind("many services")
    hosts, ports = _mixed()
    options = ["-sS", "-sV", "-Pn", "-p"]
    six = [host.address for host in hosts if ":" in host.address]
    four = [host.address for host in hosts if ":" not in host.address]
    asked = joined(ports)
    return {
        "loss": scan_peers.nmap([*_OPTIONS["loss"], "-p", ALL, _FAR["loss"].address]),
        "silent": scan_peers.nmap([*options, joined(many.tcp), many.address]),
        "services": scan_peers.nmap([*options, asked, *four], ["-6", *options, asked, *six]),
    }


def services(net: lab.Network, place: Path, figures: Figures) -> Round:
    """Everybody on the link but the two at which nmap does not come to an end. By us alone."""
    hosts, ports = _mixed()
    figures.truth["services"] = frozenset((host.address, port) for host in hosts for port in host.open & ports)
    targets = [host.address for host in hosts]
    return round_of(net, place, [], targets=targets, ports=joined(ports), profile="services")


def everyone(net: lab.Network, place: Path) -> Outcome:
    """All 64 of the link, by us alone."""
    _, ports = _mixed()
    targets = [host.address for host in HOSTS]
    return round_of(net, place, [], targets=targets, ports=joined(ports), profile="services")[US]


def _mixed() -> tuple[list[Truth], frozenset[int]]:
    """The hosts of that row, and ports: those that are open there, but of the many alike on one host only the first."""
    hosts = [host for host in HOSTS if host.kind not in ENDLESS]
    asked = {port for host in hosts for port in host.tcp if not 7005 <= port <= 9000 and not 2201 <= port <= 2240}
    others = (port for port in range(1, 65536) if port not in asked)
    while len(asked) < THOUSAND:
        asked.add(next(others))
    return hosts, frozenset(asked)


def discovery(net: lab.Network, place: Path, row: str, figures: Figures, *, slow: bool = True) -> Round:
    """Who is there of a /20: 256 of it, or all. Not ``slow``: without masscan, which may never end."""
    prefix = _DISCOVERED[row]
    network = [str(address) for address in IPv4Network(prefix)]
    figures.truth[row] = frozenset((address, 0) for address in (network[1:-1] if row == "crowd" else network[1::16]))
    theirs = [scan_peers.nmap(["-sn", prefix])]
    if slow:
        theirs.append(scan_peers.masscan("--ping", prefix, interface=INTERFACE))
    return round_of(net, place, theirs, targets=[prefix], profile="discovery")


def discovery_memory(net: lab.Network, place: Path) -> tuple[int, int]:
    """Bytes that we take where all answer, at most, with nmap and without."""
    directory = place / US
    us = Us(net, directory, targets=[_DISCOVERED["crowd"]], profile="discovery")
    with closing(us), us.running() as running:
        most = scanners.heaviest(running)
    shutil.rmtree(directory)
    return most


def round_of(net: lab.Network, place: Path, theirs: Sequence[Peer], **settings: object) -> Round:
    """We and these, in random order."""
    outcomes: dict[str, Outcome] = {}
    for who in random.sample([None, *theirs], len(theirs) + 1):
        if who is not None:
            outcomes[who.name] = who.run(net, place)
            continue
        directory = place / US
        with closing(Us(net, directory, **settings)) as us:  # type: ignore[arg-type]  # settings are whatever a scan has
            outcomes[US] = us.run()
        shutil.rmtree(directory)
    return outcomes
