"""``agentctl hosts``: what captures have written, as a table, as JSON, and only those asked for."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from agent.workers.inventory.sighting import NAME, ROLE, SERVICE, Sighting
from agent.workers.inventory.snapshot import Snapshot, entries, write
from agent.workers.inventory.table import Table
from tests.cli.harness import Agentctl

A, B = "02:00:00:00:00:0a", "00:1b:21:00:00:0b"
HOUR = 3600 * 1_000_000_000
NOW = 1_800_000_000 * 1_000_000_000


def known(prefix: Path, service: str, interface: str, *told: Sighting, **counters: int) -> None:
    """Have this service's inventory know what was told."""
    table = Table()
    table.fold(told, interface)
    directory = prefix / "spool" / service
    directory.mkdir(parents=True)
    (directory / "store.json").write_text('{"version": 1}')
    rows = [entries(rows) for rows in table.tables()]
    stations, addresses, heard = rows
    found = Snapshot(
        written=NOW, counters=counters, progress={}, own=[B], stations=stations, addresses=addresses, heard=heard
    )
    write(directory / "hosts.json", found)


@pytest.fixture
def edge(prefix: Path) -> None:
    """A capture that has seen a gateway, this machine, and a server far away."""
    ago = NOW - HOUR
    known(
        prefix,
        "edge",
        "eth0",
        Sighting(ago, ago, "arp", 0, A, "10.20.0.1"),
        Sighting(ago, NOW, "nd", 0, A, "fe80::1", ROLE, "router"),
        Sighting(ago, ago, "lldp", 0, A, "", NAME, "gate\x1b[31mway"),
        Sighting(ago, ago, "arp", 0, B, "10.20.0.9"),
        *(Sighting(ago, ago, "flow", 0, "", "10.20.0.9", SERVICE, f"tcp/{port}") for port in range(20, 30)),
        Sighting(ago, ago, "flow", 0, "", "198.51.100.7", SERVICE, "udp/53"),
        crashed=3,
        evicted=2,
    )


def addresses(agentctl: Agentctl, *arguments: str) -> list[str]:
    done = agentctl("--json", "hosts", *arguments)
    assert done.returncode == 0, done.stderr
    return [host["addresses"][0]["address"] for host in json.loads(done.stdout)["hosts"]]


def test_hosts_are_shown_as_a_table_with_what_was_lost_below(agentctl: Agentctl, edge: None) -> None:
    done = agentctl("hosts")
    rows = [re.split(r" {2,}", line) for line in done.stdout.splitlines()]
    then, last = "2027-01-15 07:00:00", "2027-01-15 08:00:00"
    assert rows == [
        ["ADDRESS", "MAC", "NAME", "SERVICES", "FIRST", "LAST", "SEEN BY"],
        ["10.20.0.1 (+1)", A, r"gate\x1b[31mway (router)", "-", then, last, "edge/eth0"],
        ["10.20.0.9", B, "(this host)", "tcp/20 tcp/21 tcp/22 tcp/23 tcp/24 tcp/25 +4", then, then, "edge/eth0"],
        ["198.51.100.7", "-", "-", "udp/53", then, then, "edge/eth0"],
        ["edge: 3 packets could not be dissected (aside.pcap in its spool), 2 hosts made room for others"],
    ]
    assert "\x1b[31m" not in agentctl.on_terminal("hosts", columns=200, NO_COLOR="1").replace("\x1b[1m", "")


def test_json_has_everything_that_is_told(agentctl: Agentctl, edge: None) -> None:
    document = json.loads(agentctl("hosts", "--json").stdout)
    assert document["services"] == [{"service": "edge", "written": NOW / 1e9, "counters": {"crashed": 3, "evicted": 2}}]
    gateway, machine, far = document["hosts"]
    assert (gateway["mac"], gateway["local_mac"], gateway["this_host"]) == (A, True, False)
    assert [holding["address"] for holding in gateway["addresses"]] == ["10.20.0.1", "fe80::1"]
    (name,) = gateway["facts"]["name"]
    assert (name["value"], name["source"], name["asker"]) == ("gate\x1b[31mway", "lldp", None)
    assert (machine["this_host"], machine["local_mac"], len(machine["facts"]["service"])) == (True, False, 10)
    assert (far["mac"], far["local_mac"], far["name"]) == (None, None, None)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--address", "10.20.0.0/24"], ["10.20.0.1", "10.20.0.9"]),
        (["--address", "fe80::1"], ["10.20.0.1"]),
        (["--address", "00-1B-21-00-00-0B"], ["10.20.0.9"]),
        (["--name", "GATE"], ["10.20.0.1"]),
        (["--offers", "53"], ["198.51.100.7"]),
        (["--offers", "tcp/53"], []),
        (["--offers", "tcp/29", "--address", "10.0.0.0/8"], ["10.20.0.9"]),
        (["--interface", "eth0", "--name", "gate"], ["10.20.0.1"]),
        (["--interface", "eth0", "--address", "10.9.0.0/16"], []),
        (["--to", "2027-01-15T07:30Z", "--address", "10.20.0.0/24"], ["10.20.0.1", "10.20.0.9"]),
        (["--from", "2027-01-15T07:30Z", "--to", "2027-01-15T09:00Z"], ["10.20.0.1"]),
        (["--service", "edge"], ["10.20.0.1", "10.20.0.9", "198.51.100.7"]),
    ],
)
def test_only_those_asked_for_are_shown(
    agentctl: Agentctl, edge: None, arguments: list[str], expected: list[str]
) -> None:
    assert addresses(agentctl, *arguments) == expected


def test_a_span_counts_from_when_a_host_was_seen_last(agentctl: Agentctl, prefix: Path) -> None:
    now = time.time_ns()
    known(
        *(prefix, "edge", "eth0"),
        Sighting(1, now, "arp", 0, A, "10.20.0.1"),
        Sighting(1, now - 2 * HOUR, "arp", 0, B, "10.20.0.9"),
    )
    assert addresses(agentctl, "--last", "1h") == ["10.20.0.1"]
    assert addresses(agentctl, "--last", "3h") == ["10.20.0.1", "10.20.0.9"]


def test_several_captures_are_merged_and_an_address_that_moved_is_told(
    agentctl: Agentctl, prefix: Path, edge: None
) -> None:
    known(prefix, "core", "eth0", Sighting(NOW, NOW, "arp", 0, B, "10.20.0.1"))
    shown = agentctl("hosts").stdout
    assert f"10.20.0.1 answered from {A} until 2027-01-15 07:00:00, since then from {B}\n" in shown
    assert "core/eth0, edge/eth0" in shown
    assert addresses(agentctl, "--service", "core") == ["10.20.0.1"]


def test_where_nothing_is_known_that_is_said(agentctl: Agentctl, prefix: Path) -> None:
    assert agentctl("hosts").stdout == f"no hosts are known below {prefix / 'spool'}\n"
    known(prefix, "edge", "eth0", Sighting(1, 1, "arp", 0, A, "10.20.0.1"))
    assert agentctl("hosts", "--name", "x").stdout == "no such host was seen\n"


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["--address", "10.20.0.300"], 1, "not an address, network or MAC; write 10.20.0.5"),
        (["--offers", "ssh"], 1, "--offers ssh: not a service; write tcp/22, udp/53 or 22"),
        (["--offers", "tcp/70000"], 1, "not a service"),
        (["--last", "soon"], 1, "is not a duration"),
        (["--interface", "eth"], 1, "no interface is named 'eth'; did you mean eth0?"),
        (["--service", "egde"], 1, "no capture is named 'egde'; did you mean edge?"),
    ],
)
def test_what_cannot_be_meant_is_one_line(
    agentctl: Agentctl, edge: None, arguments: list[str], code: int, line: str
) -> None:
    done = agentctl("hosts", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert line in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("text", "line"), [("x", "no inventory"), ('{"version": 2}', "of version 2")])
def test_a_file_that_cannot_be_understood_is_one_line(agentctl: Agentctl, prefix: Path, text: str, line: str) -> None:
    directory = prefix / "spool" / "edge"
    directory.mkdir(parents=True)
    (directory / "store.json").write_text('{"version": 1}')
    (directory / "hosts.json").write_text(text)
    done = agentctl("hosts")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert line in done.stderr


def test_one_file_that_cannot_be_read_is_named_and_the_others_are_shown(
    agentctl: Agentctl, prefix: Path, edge: None
) -> None:
    known(prefix, "core", "eth0", Sighting(NOW, NOW, "arp", 0, B, "10.20.0.1"))
    (prefix / "spool" / "core" / "hosts.json").write_text('{"version": 2}')
    done = agentctl("hosts", "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, len(told["hosts"])) == (0, 3)
    (line,) = done.stderr.splitlines()
    assert line == f"agentctl: {told['unreadable'][0]}"
    assert "core/hosts.json" in line and "of version 2" in line
    assert agentctl("hosts", "--service", "core").returncode == 2


def test_it_loads_neither_scapy_nor_numpy(agentctl: Agentctl, edge: None) -> None:
    done = agentctl("hosts", PYTHONVERBOSE="1")
    assert "import 'agent.workers.inventory.view'" in done.stderr
    assert "import 'scapy" not in done.stderr
    assert "import 'numpy" not in done.stderr
