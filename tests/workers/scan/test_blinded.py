"""The worker scans a network to which the way is cut, at the start, in the middle or for a part, in all ways of asking.

It says so, closes nothing and calls nobody gone; and yet it tells who has really left.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from agent.declaration.model import Engine, Profile, Scan
from tests.workers.scan import lab
from tests.workers.scan.test_sweeping import PLENTY
from tests.workers.scan.test_worker import Bench, Ended
from tests.workers.scan.truth import of_kind

BAD = {"port_closed", "port_filtered", "host_gone", "scan_changes"}
SSH = [host.address for host in of_kind("ssh")]
WEB = [host.address for host in of_kind("web")]
DNS = [host.address for host in of_kind("dns")]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def scan(
    *targets: str, ports: str = "79-81", engine: Engine = "auto", profile: Profile = "ports", retries: int = 1
) -> Scan:
    return Scan(
        name="lan",
        targets=targets,
        ports=ports,
        profile=profile,
        rate=20_000,
        engine=engine,
        retries=retries,
        budget=PLENTY,
    )


@contextmanager
def cut(net: lab.Network, rule: str) -> Iterator[None]:
    """What comes to the servers by the link is dropped by ``rule``, ARP and all."""
    rules = f"table netdev blind {{ chain in {{ type filter hook ingress device wire priority -500; {rule}; }}; }}"
    subprocess.run(net.there("nft", rules), check=True)
    try:
        yield
    finally:
        subprocess.run(net.there("nft", "delete table netdev blind"), check=True)


def seen(bench: Bench, net: lab.Network, service: Scan, times: int = 1) -> Ended:
    ended = bench.run(service, prefix=tuple(net.inside()))
    assert ended.code == 0, ended.stderr
    return seen(bench, net, service, times - 1) if times > 1 else ended


def degraded(ended: Ended) -> str:
    return str(ended.events["scan_finished"]["data"]["degraded"])


@pytest.mark.parametrize(
    ("service", "why"),
    [
        (scan("10.99.0.0/29"), "none of 7 known hosts answered"),
        (scan("10.99.0.0/29", profile="discovery"), "none of 7 known hosts answered"),
        (scan(*WEB[:2]), "none of 2 known hosts answered"),
        (scan(*WEB[:2], engine="connect"), "none of 2 known hosts answered"),
        (scan(*DNS, ports="udp/53"), "none of 2 known hosts answered"),
    ],
    ids=["range", "discovery", "syn", "connect", "udp"],
)
def test_a_scan_that_is_blind_says_so_and_says_of_nobody_that_he_is_gone(
    net: lab.Network, bench: Bench, service: Scan, why: str
) -> None:
    seen(bench, net, service, 2)
    with cut(net, "drop"):
        for _ in range(2):
            ended = seen(bench, net, service)
            assert degraded(ended) == why
            assert not ended.events.keys() & BAD
    ended = seen(bench, net, service)
    assert degraded(ended) == ""
    assert not ended.events.keys() & (BAD | {"host_new", "port_opened"})
