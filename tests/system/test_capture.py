"""A capture under the real unit: what its sandbox leaves to the process that indexes, and to those who ask."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.harness import wait_until
from tests.system.host import Host

CAPTURE = """
[service.lan]
kind = "capture"
interfaces = ["near0"]
rotate = { size = "64KiB" }
"""
STORE = "/srv/spool/lan"

# Sends numbered datagrams from the far end of the cable, ARP for the near end before the first of them.
SEND = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
    for number in range(200):
        sender.sendto(number.to_bytes(2) + bytes(500), ("10.99.0.1", 4444))
"""


@pytest.fixture
def capturing(installed: Host) -> Host:
    """A machine that has captured 200 datagrams, in segments of 64 KiB."""
    installed.veth("near0", "far0")
    installed.declare(CAPTURE)
    installed.systemctl("start")
    installed.until("lan", state="running")
    send(installed)
    return installed


def send(host: Host) -> None:
    host.run(["ip", "netns", "exec", "far0", "python3", "-c", SEND])


def until_indexed(host: Host) -> None:
    """Until what runs now has indexed 200 packets, and so holds the open segment, or has finished it."""

    def indexed() -> bool:
        return bool(host.service("lan")["figures"].get("index_packets", 0) >= 200)

    wait_until(indexed, lambda: f"{host.service('lan')}\n{host.log('lan')}")


def named(host: Host, suffix: str) -> set[str]:
    """The names of the files in the store that end so, without that."""
    return {path.stem for path in host.path(STORE).glob(f"near0/2*Z{suffix}")}


def index_process(host: Host) -> int:
    """The process that indexes, by the PID that it has outside."""
    (found,) = [pid for pid, words in host.processes().items() if words[1:3] == ["worker", "index"]]
    return found


def statuses(host: Host, pid: int) -> dict[str, str]:
    """/proc/PID/status of a process by its PID outside."""
    text = Path(f"/proc/{pid}/status").read_text()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def hosts(host: Host) -> list[dict[str, Any]]:
    """What ``agentctl hosts`` tells."""
    told = json.loads(host.agentctl("hosts", "--json").stdout)
    return list(told["hosts"])


def test_segments_get_an_index_and_packets_are_found_by_it(capturing: Host) -> None:
    """numpy, with what it brings, is loaded where no memory may be made executable (MemoryDenyWriteExecute=)."""

    until_indexed(capturing)

    def whole() -> bool:
        return named(capturing, ".pcap") == named(capturing, ".idx")

    wait_until(whole, lambda: f"{sorted(capturing.path(STORE).glob('*/*'))}\n{capturing.log('lan')}")
    done = capturing.run(
        ["sh", "-c", "/srv/bin/agentctl capture query 'udp dst port 4444' --last 10m -o - | tcpdump -n --count -r -"]
    )
    assert "200 packets" in done.stdout, done.stderr
    assert not [event for event in capturing.events() if event["kind"] in ("index_failed", "companion_ended")]


def test_hosts_that_were_seen_are_known(capturing: Host) -> None:
    """scapy takes packets apart there, without a home, and without a look at what is not its own."""
    seen: list[dict[str, Any]] = []

    def known() -> bool:
        seen[:] = hosts(capturing)
        return any(one["address"] == "10.99.0.2" for host in seen for one in host["addresses"])

    wait_until(known, lambda: f"{seen}\n{capturing.log('lan')}")


def test_the_process_that_indexes_holds_nothing_and_is_confined_as_all_are(capturing: Host) -> None:
    status = statuses(capturing, index_process(capturing))
    assert int(status["CapPrm"], 16) == int(status["CapEff"], 16) == int(status["CapAmb"], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"], status["Threads"]) == ("1", "2", "1")


def test_it_goes_with_its_capture(capturing: Host) -> None:
    index_process(capturing)
    capturing.agentctl("stop", "lan")
    assert not [words for words in capturing.processes().values() if words[1:2] == ["worker"]]
    capturing.agentctl("start", "lan")
    capturing.until("lan", state="running")
    index_process(capturing)
    send(capturing)
    until_indexed(capturing)
    capturing.systemctl("stop")
    assert named(capturing, ".pcap") == named(capturing, ".idx") != set()
    assert named(capturing, ".part") == named(capturing, ".tail") == set()
