"""Large networks are discovered host by host, and nothing is kept of them."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import ScanFailure
from agent.workers.scan.discover import discover, discover_parts, networks
from agent.workers.scan.found import Host
from agent.workers.scan.program import Program
from agent.workers.scan.rollcall import Part
from agent.workers.scan.spans import merge
from tests.workers.scan import lab
from tests.workers.scan.bench import WHERE_XML_GOES
from tests.workers.scan.truth import INTERFACE, LINK_LOCAL, LOCAL

INSIDE = """
import asyncio, json, sys
from ipaddress import ip_network
from agent.workers.scan.discover import discover
from agent.workers.scan.spans import merge
from agent.workers.scan.program import find_nmap

found = []
async def scenario():
    for family, zone, spans in json.loads(sys.argv[1]):
        ranges = merge((low, high) for low, high in spans)
        told = await discover(family, ranges, find_nmap(), rate=1_000_000, zone=zone,
                              on_host=lambda host, element: found.append([host.address, host.state, host.mac]))
        assert told.exit == "success"
asyncio.run(scenario())
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM:"))  # getrusage counts our parent
print(json.dumps([found, int(peak.split()[1])]))
"""


def span(text: str) -> list[int]:
    network = ip_network(text)
    return [int(network[0]), int(network[-1])]


def test_every_host_of_a_large_network_is_found_in_little_memory(net: lab.Network) -> None:
    local = int(ip_address(LINK_LOCAL))
    asked = [[4, "", [span(lab.MANY_PREFIX)]], [6, INTERFACE, [[local, local + 1]]]]
    command = net.inside(sys.executable, "-c", INSIDE, json.dumps(asked))
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found, kibibytes = json.loads(done.stdout)
    addresses = {address for address, state, _ in found if state == "up"}
    assert len(addresses) == len(found)
    assert LOCAL.address in addresses
    everybody = {str(address) for address in ip_network(lab.MANY_PREFIX)}
    assert addresses - {LOCAL.address} <= everybody
    assert len(addresses) > 0.9 * len(everybody)  # on a machine that is busy nmap gives up on one or the other
    assert {address: mac for address, _, mac in found}[LOCAL.address].startswith("02:00:00:00:99:")
    assert kibibytes < 60 * 1024


def fake(tmp_path: Path, script: str) -> Program:
    path = tmp_path / "nmap"
    path.write_text(f"#!/bin/sh\n{WHERE_XML_GOES}\n{script}\n")
    path.chmod(0o755)
    return Program(str(path), {"PATH": os.environ["PATH"]}, "", None, None)


HEAD = '<?xml version="1.0"?><!DOCTYPE nmaprun><nmaprun version="7.93">'


def told(address: str) -> str:
    return (
        f'<host><status state="up" reason="echo-reply"/><address addr="{address}" addrtype="ipv4"/><hostnames/></host>'
    )


def test_what_was_told_before_nmap_died_is_kept(tmp_path: Path) -> None:
    found: list[Host] = []
    program = fake(tmp_path, f"echo '{HEAD}{told('10.0.0.1')}{told('10.0.0.2')}<host>' >$XML; kill -SEGV $$")
    low, high = span("10.0.0.0/29")
    with pytest.raises(ScanFailure, match="nmap was killed by SIGSEGV"):
        asyncio.run(discover(4, ((low, high),), program, rate=1, on_host=lambda host, _: found.append(host)))
    assert [host.address for host in found] == ["10.0.0.1", "10.0.0.2"]


def test_an_address_that_was_not_asked_for_is_not_believed(tmp_path: Path) -> None:
    low, high = span("10.0.0.0/29")
    for stranger in ("10.0.0.8", "::1", "x"):
        program = fake(tmp_path, f"echo '{HEAD}{told(stranger)}' >$XML; exit 1")
        with pytest.raises(ScanFailure, match=r"was not asked for|cannot be understood"):
            asyncio.run(discover(4, ((low, high),), program, rate=1, on_host=lambda host, _: None))


def test_ranges_become_few_lines() -> None:
    low, high = int(ip_address("10.0.0.255")), int(ip_address("10.0.3.0"))
    assert list(networks(4, ((low, high),))) == ["10.0.0.255", "10.0.1.0/24", "10.0.2.0/24", "10.0.3.0"]
    assert list(networks(6, ((1, 2),), "eth0")) == ["::1%eth0", "::2%eth0"]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 5000)), min_size=1, max_size=5), st.booleans())
def test_networks_hold_every_address_of_their_ranges_and_no_other(spans: list[tuple[int, int]], six: bool) -> None:
    ranges = merge((low, min(2**32 - 1, low + more)) for low, more in spans)
    found = [ip_network(line) for line in networks(6 if six else 4, ranges)]
    assert all(network.version == (6 if six else 4) for network in found)
    assert merge((int(network[0]), int(network[-1])) for network in found) == ranges
    assert sum(network.num_addresses for network in found) == sum(high - low + 1 for low, high in ranges)


RATES = r"""
mkdir $HERE/alone.$$; n=$(ls -d $HERE/alone.* | wc -l)
echo "$* $n" | sed 's/.*--max-rate \([0-9]*\).* \([0-9]*\)$/\1 \2/' >> $HERE/rates
sleep 0.3; rmdir $HERE/alone.$$
echo '<?xml version="1.0"?><!DOCTYPE nmaprun><nmaprun version="7.93"><runstats><finished exit="success"/>' >$XML
for list; do :; done
echo "<hosts total=\"$(nmap -n -sL -iL $list | grep -c report)\"/></runstats></nmaprun>" >>$XML
"""


def parts() -> list[Part]:
    return [
        Part(("echo",), 1, ("10.0.0.1",)),
        Part((), 2, tuple(str(ip_address("10.1.0.0") + number) for number in range(1000))),
        Part(("443",), 1, ("10.0.0.1", "10.0.0.2")),
    ]


def ask_parts(program: Program, rate: int, turn: Callable[[float], None] = lambda fraction: None) -> str:
    def listen() -> Callable[[bytes], None]:
        return lambda said: None

    return asyncio.run(
        discover_parts(
            4, parts(), program, rate=rate, listen=listen, on_host=lambda host, _: None, turn=turn, turn_every=0.05
        )
    )


@pytest.mark.parametrize(("rate", "largest", "beside"), [(1000, 990, True), (3, 1, True), (2, 2, False)])
def test_parts_share_the_rate_by_their_packets(tmp_path: Path, rate: int, largest: int, beside: bool) -> None:
    fractions: list[float] = []
    assert ask_parts(fake(tmp_path, f"HERE={tmp_path}{RATES}"), rate, fractions.append) == "7.93"
    told = [tuple(map(int, line.split())) for line in (tmp_path / "rates").read_text().splitlines()]
    rates = sorted(share for share, _ in told)
    assert len(rates) == 3
    assert rates[-1] >= largest
    assert (sum(rates) <= rate) if beside else (set(rates) == {rate})
    assert beside or {running for _, running in told} == {1}, "one after the other"
    assert all(0 <= fraction <= 1 for fraction in fractions)


def test_what_ends_one_part_ends_the_others_and_is_told(tmp_path: Path) -> None:
    program = fake(
        tmp_path, f'case "$*" in *-PE*) echo no >&2; exit 3;; esac; echo $$ >> {tmp_path}/pids; exec sleep 60'
    )
    with pytest.raises(ScanFailure, match=r"nmap failed \(exited 3\): no"):
        ask_parts(program, 1000)
    for pid in (tmp_path / "pids").read_text().split() if (tmp_path / "pids").exists() else ():
        assert not Path(f"/proc/{pid}").exists()
