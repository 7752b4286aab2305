"""``agentctl drift`` and ``agentctl expect from-scan``: as a table, as JSON, by exit code, without an agent."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from agent.workers.capture import account
from agent.workers.capture.account import Account
from agent.workers.inventory.sighting import SERVICE, Sighting
from agent.workers.scan.found import Port
from agent.workers.scan.store import ScanStore, Task
from tests.cli.harness import Agentctl
from tests.workers.watch.memories import imported, remember, up
from tests.workers.watch.scenes import port
from tests.workers.watch.test_from_capture import inventory

WEB, FAR = "10.20.0.10", "10.20.0.77"
SCAN = """
[service.lan_scan]
kind = "scan"
targets = ["10.20.0.0/24"]
oncalendar = "yearly"
"""
EXPECT = f"""
[expect.web]
hosts = ["{WEB}"]
open = ["22", {{ port = "443", service = "http" }}]
others = false
"""
CAPTURE = """
[service.edge]
kind = "capture"
interfaces = ["eth0"]
"""
SSH = port("tcp/22", service="ssh", product="OpenSSH", version="9.2p1 [x] $HOME *")


def declare(prefix: Path, *parts: str) -> None:
    (prefix / "key").mkdir(parents=True, exist_ok=True)
    (prefix / "key" / "env.toml").write_text("".join(parts))


def scanned(
    prefix: Path, *ports: Port, address: str = WEB, runs: Iterable[int] = (200, 100), name: str = "lan_scan"
) -> None:
    """As it was found by runs that ended so many seconds ago."""
    directory = prefix / "spool" / name
    directory.mkdir(parents=True, exist_ok=True)
    for ago in runs:
        remember(directory, [up(address, *ports)], time.time() - ago)


@pytest.fixture
def drifted(prefix: Path) -> None:
    """A host with one port too many and one that is closed, and a host that no scan has asked."""
    declare(prefix, SCAN, EXPECT, CAPTURE)
    scanned(prefix, SSH, port("tcp/80", service="http", product="nginx\u202e"))
    now = time.time_ns()
    inventory(
        prefix / "spool" / "edge",
        Sighting(now - 10**9, now, "flow", 0, "", FAR, SERVICE, "tcp/8080"),
        written=int(time.time()),
    )
    (prefix / "spool" / "edge" / "store.json").write_text('{"version": 1}')
    (prefix / "spool" / "edge" / "eth0").mkdir()
    (prefix / "spool" / "edge" / "eth0" / "20200101T000000.000000Z.pcap").touch()


def rows(agentctl: Agentctl, *arguments: str, code: int = 0) -> list[dict[str, Any]]:
    done = agentctl("drift", "--json", *arguments)
    assert done.returncode == code, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)["rows"]
    return found


def test_the_gravest_is_shown_first_with_what_shows_it(agentctl: Agentctl, drifted: None) -> None:
    done = agentctl("drift")
    assert (done.returncode, done.stderr) == (0, "")
    head, *lines = done.stdout.splitlines()
    assert head.split() == ["SEVERITY", "KIND", "HOST", "PORT", "SINCE", "WHAT"]
    assert [line.split()[:4] for line in lines] == [
        ["high", "open_undeclared", WEB, "tcp/80"],
        ["high", "declared_closed", WEB, "tcp/443"],
        ["low", "seen_not_scanned", FAR, "-"],
    ]
    assert (
        r"is open (http nginx\u202e) and is not declared [expect.web: others = false; lan_scan, run 2: open" in lines[0]
    )
    assert lines[2].endswith(" in 20200101T000000.000000Z.pcap]")
    assert "\u202e" not in agentctl.on_terminal("drift", columns=300)


def test_json_has_it_in_parts(agentctl: Agentctl, drifted: None, prefix: Path) -> None:
    found = rows(agentctl)
    assert found[0]["key"] == f"open_undeclared {WEB} tcp/80"
    assert (found[0]["site"], found[0]["expectations"]) == (None, ["web"])
    assert {key: found[0]["evidence"][1][key] for key in ("source", "scan", "run", "state")} == {
        "source": "scanned",
        "scan": "lan_scan",
        "run": 2,
        "state": "open",
    }
    (sight,) = found[2]["evidence"]
    assert sight["segment"] == str(prefix / "spool" / "edge" / "eth0" / "20200101T000000.000000Z.pcap")
    assert (found[2]["port"], sight["capture"], sight["interface"]) == (None, "edge", "eth0")


def test_a_segment_that_is_not_stored_any_more_is_not_named(agentctl: Agentctl, drifted: None, prefix: Path) -> None:
    """What is left began before, and ended before too: by its account, or else by when it was written last."""
    left = prefix / "spool" / "edge" / "eth0" / "20200101T000000.000000Z.pcap"

    def named() -> str | None:
        found: str | None = rows(agentctl, "--host", FAR)[0]["evidence"][0]["segment"]
        return found

    def closed(at: float, reason: str) -> None:
        known = Account(interface="eth0", opened=0, closed=int(at * 10**9), written=1, bytes=40, reason=reason)
        account.write(left.with_suffix(".meta"), known)

    os.utime(left, (0, 1_600_000_000))
    assert named() is None
    closed(time.time(), "time")
    assert named() == str(left)
    closed(time.time() - 3600, "time")
    os.utime(left)
    assert named() is None
    closed(0, "recovered")
    assert named() == str(left)


def test_only_those_asked_for_are_shown_and_count(agentctl: Agentctl, drifted: None) -> None:
    assert len(rows(agentctl, "--exit-code", code=2)) == 3
    assert len(rows(agentctl, "--least", "high", "--exit-code", code=2)) == 2
    assert rows(agentctl, "--least", "critical", "--exit-code") == []
    assert [one["host"] for one in rows(agentctl, "--host", "10.20.0.64/26")] == [FAR]
    assert [one["kind"] for one in rows(agentctl, "--kind", "declared_closed", "--kind", "other_mac")] == [
        "declared_closed"
    ]
    assert agentctl("drift", "--kind", "other_mac").stdout == "no such drift\n"


def test_what_is_as_declared_is_no_drift(agentctl: Agentctl, prefix: Path) -> None:
    declare(prefix, SCAN, EXPECT)
    scanned(prefix, SSH, port("tcp/443", service="http"))
    done = agentctl("drift", "--exit-code")
    assert (done.returncode, done.stdout, done.stderr) == (0, "no drift\n", "")


def test_one_run_of_another_scan_hides_nothing_grave(agentctl: Agentctl, prefix: Path) -> None:
    odd = SCAN.replace("lan_scan", "odd_scan")
    declare(prefix, SCAN, odd, f'[expect.web]\nhosts = ["{WEB}"]\nopen = ["22"]\nclosed = ["80"]\n')
    scanned(prefix, SSH, port("tcp/80"))
    grave = [f"open_forbidden {WEB} tcp/80"]
    (prefix / "spool" / "odd_scan").mkdir()
    remember(prefix / "spool" / "odd_scan", [], time.time() - 50, silent=[WEB])
    assert [one["key"] for one in rows(agentctl)] == grave
    remember(prefix / "spool" / "odd_scan", [], time.time() - 25, silent=[WEB])
    assert [one["key"] for one in rows(agentctl)] == [f"host_down {WEB}"]
    scanned(prefix, SSH, name="odd_scan", runs=(12,))
    assert [one["key"] for one in rows(agentctl)] == grave
    scanned(prefix, SSH, name="odd_scan", runs=(6,))
    assert rows(agentctl) == []


def test_what_cannot_be_read_is_told_and_is_no_drift(agentctl: Agentctl, prefix: Path, drifted: None) -> None:
    (prefix / "spool" / "lan_scan" / "scan.db").write_bytes(b"rubbish")
    (prefix / "spool" / "edge" / "hosts.json").write_bytes(b"{")
    done = agentctl("drift", "--exit-code")
    assert (done.returncode, done.stdout) == (0, "no drift\n")
    assert [line.partition(": ")[0] for line in done.stderr.splitlines()] == ["agentctl"] * 3
    assert "hosts.json: no inventory" in done.stderr
    assert "scan.db: not a database" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["--host", "\x1b[31m"],
            r"--host \x1b[31m: not an address or network; write 10.20.0.5, 10.20.0.0/24 or fd00::1",
        ),
        (["--least", "grave"], "'grave' is not one of 'info', 'low', 'medium', 'high', 'critical'"),
        (["--kind", "x"], "'x' is not one of"),
    ],
)
def test_a_wrong_word_is_one_line_and_exit_code_1(
    agentctl: Agentctl, prefix: Path, arguments: list[str], line: str
) -> None:
    declare(prefix, SCAN)
    done = agentctl("drift", *arguments)
    assert done.returncode == 1
    assert line in done.stderr


def test_a_wrong_declaration_is_exit_code_1(agentctl: Agentctl, prefix: Path) -> None:
    declare(prefix, "[expect.web]\nhosts = 5\n")
    done = agentctl("drift")
    assert (done.returncode, done.stdout) == (1, "")
    assert "env.toml:2: expect.web.hosts" in done.stderr


# -- expect from-scan --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", [[], ["--run", "2"]], ids=["now", "run"])
def test_what_is_written_and_read_back_makes_no_drift(agentctl: Agentctl, prefix: Path, run: list[str]) -> None:
    declare(prefix, SCAN)
    directory = prefix / "spool" / "lan_scan"
    directory.mkdir(parents=True)
    hosts = [
        up(WEB, SSH, port("tcp/80"), port("udp/53")),
        up("10.20.0.11", SSH),
        up("10.20.0.12", SSH),
        up("10.20.0.13"),
    ]
    for ago in (200, 100):
        remember(directory, hosts, time.time() - ago)
    done = agentctl("expect", "from-scan", *run)
    assert (done.returncode, done.stderr) == (0, "")
    assert 'hosts = ["10.20.0.11", "10.20.0.12"]' in done.stdout
    declare(prefix, SCAN, done.stdout)
    assert agentctl("validate").returncode == 0
    assert rows(agentctl, "--exit-code") == []
    scanned(prefix, SSH, port("tcp/23"), address="10.20.0.11", runs=(50, 20))
    assert [one["key"] for one in rows(agentctl, "--exit-code", code=2)] == ["open_undeclared 10.20.0.11 tcp/23"]


def test_what_was_imported_counts_as_scanned(agentctl: Agentctl, prefix: Path) -> None:
    declare(prefix, SCAN)
    (prefix / "spool" / "lan_scan").mkdir(parents=True)
    store = ScanStore(prefix / "spool" / "lan_scan" / "scan.db")
    for ago in (200.0, 100.0):
        at = time.time() - ago
        store.take_in(Task(f"file {ago}", 1, 1), [up(WEB, SSH)], started=at - 9, ended=at, now=at)
    store.close()
    done = agentctl("expect", "from-scan")
    assert f'hosts = ["{WEB}"]' in done.stdout
    declare(prefix, SCAN, EXPECT)
    assert [one["key"] for one in rows(agentctl)] == [f"declared_closed {WEB} tcp/443"]


def test_what_was_imported_under_a_name_of_its_own_counts_too(agentctl: Agentctl, prefix: Path) -> None:
    declare(prefix)
    (prefix / "spool" / "elsewhere").mkdir(parents=True)
    at = time.time() - 100
    imported(prefix / "spool" / "elsewhere", [up(WEB, SSH)], at, site=os.uname().nodename)
    declare(prefix, agentctl("expect", "from-scan", "elsewhere").stdout)
    done = agentctl("drift", "--exit-code")
    assert (done.returncode, done.stdout, done.stderr) == (0, "no drift\n", "")
    declare(prefix, EXPECT)
    (row,) = rows(agentctl)
    assert (row["key"], row["evidence"][1]["scan"]) == (f"declared_closed {WEB} tcp/443", "elsewhere")


def test_it_is_written_to_a_file_or_as_json(agentctl: Agentctl, prefix: Path) -> None:
    declare(prefix, SCAN)
    scanned(prefix, SSH)
    assert agentctl("expect", "from-scan", "lan_scan", "-o", "x.toml").stdout == "x.toml: 1 tables of 1 hosts\n"
    document = json.loads(agentctl("expect", "from-scan", "--json").stdout)
    assert (document["scan"], document["tables"], document["hosts"]) == ("lan_scan", 1, 1)
    assert document["text"] == (agentctl.directory / "x.toml").read_text()


def test_only_what_is_written_is_told_as_written(agentctl: Agentctl, prefix: Path) -> None:
    declare(prefix, SCAN)
    directory = prefix / "spool" / "lan_scan"
    directory.mkdir(parents=True)
    several = [up(f"10.20.1.{n}", port("tcp/1"), port(f"tcp/{n}")) for n in range(10, 15)]
    single = [up(f"10.20.{n >> 7}.{n & 127 | 128}", port(f"tcp/{n}")) for n in range(1, 1025)]
    for ago in (200, 100):
        remember(directory, [*several, *single], time.time() - ago)
    told = json.loads(agentctl("expect", "from-scan", "--json").stdout)
    assert (told["tables"], told["hosts"], told["left_out"]) == (1024, 1024, 5)
    assert told["text"].count("[expect.lan_scan_") == 1024
    assert "# 5 more hosts differ from all of these, and are left out." in told["text"]
    done = agentctl("expect", "from-scan", "-o", "x.toml")
    assert done.stdout == "x.toml: 1024 tables of 1024 hosts; 5 hosts left out\n"


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["lan_scam"], 1, "no scan is named 'lan_scam'; did you mean lan_scan?"),
        (["--run", "9"], 1, "lan_scan has no run 9; the last are 2, 1"),
        (["--run", "0"], 1, "0 is not in the range x>=1"),
        ([], 2, "found no port open: there is nothing to expect"),
    ],
)
def test_what_cannot_be_written_is_one_line(
    agentctl: Agentctl, prefix: Path, arguments: list[str], code: int, line: str
) -> None:
    declare(prefix, SCAN)
    scanned(prefix)
    done = agentctl("expect", "from-scan", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert line in done.stderr


def test_which_scan_has_to_be_said_where_there_are_several_or_none(agentctl: Agentctl, prefix: Path) -> None:
    declare(prefix, SCAN, SCAN.replace("lan_scan", "dmz_scan"))
    assert "say which scan: there are dmz_scan, lan_scan" in agentctl("expect", "from-scan").stderr
    declare(prefix)
    assert agentctl("expect", "from-scan").returncode == 1
