"""The worker scans a network to which the way is cut, at the start, in the middle or for a part, in all ways of asking.

It says so, closes nothing and calls nobody gone; and yet it tells who has really left. What is known from before is
put into its memory, the network and the cuts are real, and those that have nothing to do with each other run at once.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from ipaddress import ip_network
from pathlib import Path

import msgspec
import pytest

from agent.declaration.model import Engine, Profile, Scan
from agent.workers.scan.found import Host, Port
from agent.workers.scan.store import ScanStore, Task
from tests.workers.scan import lab
from tests.workers.scan.test_sweeping import PLENTY
from tests.workers.scan.test_worker import Bench, Ended
from tests.workers.scan.truth import of_kind

BAD = {"port_closed", "port_filtered", "host_gone", "scan_changes"}
SSH = [host.address for host in of_kind("ssh")]
WEB = [host.address for host in of_kind("web")]
DNS = [host.address for host in of_kind("dns")]
MIXED = [host.address for host in of_kind("mixed")]


def scan(*targets: str, ports: str = "79-81", engine: Engine = "auto", profile: Profile = "ports") -> Scan:
    made = Scan(name="lan", targets=targets, ports=ports, profile=profile, rate=20_000, retries=1, budget=PLENTY)
    return msgspec.structs.replace(made, engine=engine)


def remember(bench: Bench, service: Scan, known: dict[str, Sequence[tuple[str, int]]]) -> None:
    """Two runs that found these hosts with these open ports."""
    hosts = [
        Host(
            address,
            "up",
            "echo-reply",
            ports=tuple(Port(protocol, number, "open", "syn-ack") for protocol, number in ports),  # type: ignore[arg-type]  # "tcp" or "udp"
        )
        for address, ports in known.items()
    ]
    with closing(ScanStore(bench.data / "scan.db", site=service.site)) as store:
        for days in (2, 1):
            at = time.time() - days * 86400
            run = store.begin(Task("before", len(hosts), 1), at)
            store.store(run, hosts, at, chunk=0, addresses=len(hosts))
            store.end(run, "finished", at)
        store.tell(lambda event: None)


@contextmanager
def cut(net: lab.Network, *rules: str) -> Iterator[None]:
    """What comes to the servers by the link is dropped where a rule says so."""
    made = "".join(f"{rule} drop; " for rule in rules)
    told = f"table netdev blind {{ chain in {{ type filter hook ingress device wire priority -500; {made} }}; }}"
    subprocess.run(net.there("nft", told), check=True)
    try:
        yield
    finally:
        subprocess.run(net.there("nft", "delete table netdev blind"), check=True)


def to(*addresses: str) -> list[str]:
    """Rules for all that goes there, ARP too."""
    some = "{ " + ", ".join(addresses) + " }"
    return [f"ip daddr {some}", f"arp daddr ip {some}"]


@pytest.fixture
def benches(tmp_path: Path) -> Iterator[list[Bench]]:
    made = []
    for number in range(8):
        (tmp_path / str(number)).mkdir()
        made.append(Bench(tmp_path / str(number)))
    yield made
    for bench in made:
        bench.close()


def all_at_once(benches: Iterable[Bench], net: lab.Network, services: Sequence[Scan]) -> list[Ended]:
    with ThreadPoolExecutor() as pool:
        runs = [
            pool.submit(bench.run, service, prefix=tuple(net.inside()))
            for bench, service in zip(benches, services, strict=False)
        ]
    ended = [one.result() for one in runs]
    assert [one.stderr for one in ended if one.code] == []
    return ended


def degraded(ended: Ended) -> str:
    return str(ended.events["scan_finished"]["data"]["degraded"])


def gone(bench: Bench) -> list[str]:
    return [address for (address,) in bench.rows("SELECT address FROM changes WHERE kind = 'host_gone' ORDER BY id")]


def test_a_scan_that_is_blind_says_so_and_says_of_nobody_that_it_is_gone(
    net: lab.Network, benches: list[Bench]
) -> None:
    """A range by discovery, discovery alone, named hosts by either engine, and by UDP."""
    services = [
        scan("10.99.0.0/29"),
        scan("10.99.0.0/29", profile="discovery"),
        scan(*WEB[:2]),
        scan(*WEB[:2], engine="connect"),
        scan(*DNS, ports="udp/53"),
    ]
    whole = [str(address) for address in ip_network("10.99.0.0/29").hosts()]
    known = [whole, whole, WEB[:2], WEB[:2], DNS]
    for bench, service, addresses in zip(benches, services, known, strict=False):
        port = ("udp", 53) if addresses is DNS else ("tcp", 80)
        remember(bench, service, dict.fromkeys(addresses, (port,)))
    with cut(net, *to("10.99.0.0/24")):
        first = all_at_once(benches, net, services)
    for ended, addresses in zip(first, known, strict=True):
        assert degraded(ended) == f"none of {len(addresses)} known hosts answered"
        assert not ended.events.keys() & BAD


def test_what_is_cut_off_is_withheld_and_of_the_rest_it_is_told_who_has_left(
    net: lab.Network, benches: list[Bench]
) -> None:
    """The way to one /24 of three is lost, and one host of another has been switched off."""
    service = scan("10.97.1.0/29", "10.97.2.0/29", *WEB[:3])
    cut_off = [str(address) for address in ip_network("10.97.1.0/29").hosts()]
    there = [str(address) for address in ip_network("10.97.2.0/29").hosts()]
    bench = benches[0]
    remember(bench, service, dict.fromkeys((*cut_off, *there), ()) | dict.fromkeys(WEB[:3], (("tcp", 80),)))
    with cut(net, "ip daddr 10.97.1.0/24", *to(WEB[0])):
        [ended] = all_at_once([bench], net, [service])
        assert degraded(ended) == "none of the known hosts answered that were asked together in 10.97.1.0/24 (6)"
        assert gone(bench) == [WEB[0]], "others of its network answered while it was asked again"
        assert ended.events.keys() & BAD == {"host_gone"}
