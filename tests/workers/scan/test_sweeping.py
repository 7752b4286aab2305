"""The worker sweeps a network whose truth is known, by either engine; and is killed in the middle of it."""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import msgspec

from agent.declaration.model import Engine, Scan
from agent.workers.scan.found import Host
from tests.workers.scan import lab
from tests.workers.scan.bench import PLENTY, Bench
from tests.workers.scan.truth import HOSTS, LOCAL, Truth, of_kind

ASKED = "22,23,53,80,443,2201-2204,2323,6379,7001-7004,8001-8004,9000-9040"
EVERYTHING = of_kind("says open to everything")[0]
CAPPED = of_kind("10 ms away, behind 5,000 packets a second")[0]


def scan(*targets: str, ports: str = ASKED, rate: int = 20_000, engine: Engine = "auto", retries: int = 4) -> Scan:
    return Scan(name="lan", targets=targets, ports=ports, rate=rate, engine=engine, retries=retries, budget=PLENTY)


def wanted(port: int) -> bool:
    spans = [part.partition("-") for part in ASKED.split(",")]
    return any(int(low) <= port <= int(high or low) for low, _, high in spans)


def test_everything_that_is_open_is_found_and_nothing_else_by_either_engine(net: lab.Network, tmp_path: Path) -> None:
    """And behind a device that passes 5,000 packets a second, by who was not told so. All at the same time."""
    everywhere = ("10.99.0.1-10.99.0.63", "fd99::64", LOCAL.address)
    by_connect = scan(*everywhere, engine="connect", retries=2)
    by_syn = scan(*everywhere, engine="syn", retries=2)
    capped = scan(CAPPED.address, ports="1-10000", engine="syn")
    with ExitStack() as stack:
        benches = []
        for name in ("connect", "syn", "capped"):
            (tmp_path / name).mkdir()
            benches.append(bench := Bench(tmp_path / name))
            stack.callback(bench.close)
        services = (by_connect, by_syn, capped)
        with ThreadPoolExecutor() as pool:
            runs = [
                pool.submit(bench.run, one, prefix=tuple(net.inside()))
                for bench, one in zip(benches, services, strict=True)
            ]
        ended = [one.result() for one in runs]
        assert [one.stderr for one in ended if one.code] == []
        for bench, one, engine in zip(benches, ended, ("connect", "syn"), strict=False):
            assert bench.rows("SELECT engine, degraded FROM runs") == [(engine, "")]
            agrees_with_the_truth({host.address: host for host in bench.found()})
            assert EVERYTHING.address in one.stderr
            assert not list(bench.data.glob("sweep-*"))
        [found] = benches[-1].found()
        assert {port.number for port in found.open_ports()} == {port for port in CAPPED.open if port <= 10_000}
        assert {rest.state for rest in found.rest} == {"closed"}
        [(sent, degraded)] = benches[-1].rows("SELECT sent, degraded FROM runs")
        assert degraded == ""
        assert sent < 25_000, "what the device does not pass is not sent again and again"


def agrees_with_the_truth(found: dict[str, Host]) -> None:
    for host in (*HOSTS, LOCAL):
        if host is EVERYTHING:
            continue
        assert {port.number for port in found[host.address].open_ports()} == set(filter(wanted, host.open)), host.kind
        states = Counter(found[host.address].state_of("tcp", port) for port in range(9000, 9041))
        if host.rest == "closed" and "once a second" not in host.kind and "limits" not in host.kind:
            assert set(states) == {"closed"}, host.kind
        elif host.rest != "closed":
            assert set(states) == {"filtered"}, host.kind
        else:
            assert set(states) <= {"closed", "filtered"}, host.kind
    assert not list(found[EVERYTHING.address].open_ports())
    assert found[EVERYTHING.address].state_of("tcp", 9000) == "open"


def far() -> Truth:
    return of_kind("10 ms away, loses 5 % each way")[0]


def test_killed_at_random_moments_it_finds_all_and_closes_nothing_that_is_open(net: lab.Network, bench: Bench) -> None:
    """An answer that was stored before it was killed stays as it is, and so its probe is never sent again."""
    host, dice = far(), random.Random(11)
    service = scan(host.address, ports="1-1500", rate=3000, engine="connect")
    path, ledgers = bench.data / "sweep-0.tcp", list[bytes]()
    for _ in range(2):
        process = bench.start(service, prefix=tuple(net.inside()))
        known = sum(byte >= 128 for byte in ledgers[-1]) if ledgers else 0
        wanted = known + dice.randrange(50, 400)
        while not path.exists() or sum(byte >= 128 for byte in path.read_bytes()[4096:]) < wanted:
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
        bench.finish(process)
        ledgers.append(path.read_bytes()[4096:])
    ended = bench.run(service, prefix=tuple(net.inside()))
    assert ended.code == 0, ended.stderr
    assert bench.rows("SELECT status, degraded FROM runs") == [("finished", "")]
    [found] = bench.found()
    assert {port.number for port in found.open_ports()} == {port for port in host.open if port <= 1500}
    for before, after in pairwise(ledgers):
        for one, other in zip(before, after, strict=True):
            assert one < 128 or one == other
    truth = [128 if port in host.open else 144 for port in range(1, 1501)]
    assert all(byte < 128 or byte & 0xF8 == right for byte, right in zip(ledgers[-1], truth, strict=True))


def test_a_pause_holds_within_a_second_and_what_was_found_stays(net: lab.Network, bench: Bench) -> None:
    host = of_kind("10 ms away")[0]
    process = bench.start(scan(host.address, ports="1-1200", rate=1000, engine="connect"), prefix=tuple(net.inside()))
    while not any(json.loads(note.get("X_FIGURES", "{}")).get("rate", 0) > 500 for note in bench.notes):
        bench.receive()
    (bench.directory / "lan.paused").touch()
    held = time.monotonic()
    while not any(note.get("STATUS", "").startswith("paused by hand") for note in bench.notes):
        bench.receive()
    assert time.monotonic() - held < 1.0
    before = sent(net, host)
    for _ in range(2):
        bench.notes.clear()
        bench.receive()
    assert sent(net, host) - before <= 1
    (bench.directory / "lan.paused").unlink()
    ended = bench.finish(process)
    assert ended.code == 0, ended.stderr
    assert {port for _, port in bench.open()} == {port for port in host.open if port <= 1200}


def sent(net: lab.Network, host: Truth) -> int:
    """Packets that left on the way to the far hosts."""
    shown = subprocess.run(
        net.inside("ip", "-json", "-statistics", "link", "show", "way"), check=True, capture_output=True
    ).stdout
    return int(json.loads(shown)[0]["stats64"]["tx"]["packets"])


def test_a_damaged_file_of_a_chunk_is_told_in_one_line_and_the_chunk_begun_anew(net: lab.Network, bench: Bench) -> None:
    host = of_kind("web")[0]
    service = scan(host.address, ports="1-3000", rate=1000, engine="connect")
    process = bench.start(service, prefix=tuple(net.inside()))
    path = bench.data / "sweep-0.tcp"
    while not path.exists():
        bench.receive()
    process.kill()
    bench.finish(process)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(64))
    fast = msgspec.structs.replace(service, rate=20_000)
    ended = bench.run(fast, prefix=tuple(net.inside()))
    assert ended.code == 0
    assert f"{path}: it is damaged: this part of the scan is begun anew" in ended.stderr
    assert bench.open() == [(host.address, 80), (host.address, 443)]


def test_a_firewall_of_this_host_degrades_the_run(net: lab.Network, bench: Bench) -> None:
    host = of_kind("ssh")[0]
    rules = "table inet own { chain out { type filter hook output priority 0; tcp dport 4444 drop; }; }"
    subprocess.run([*net.inside("nft", rules)], check=True)
    try:
        ended = bench.run(scan(host.address, ports="22,4444", engine="syn"), prefix=tuple(net.inside()))
    finally:
        subprocess.run([*net.inside("nft", "delete table inet own")], check=True)
    assert ended.code == 0, ended.stderr
    [(degraded,)] = bench.rows("SELECT degraded FROM runs")
    assert "firewall" in degraded
    assert degraded in ended.events["scan_finished"]["message"]


def test_what_has_changed_is_looked_at_again_and_told_at_once(net: lab.Network, bench: Bench) -> None:
    host = of_kind("web")[3]
    service = scan(host.address, "10.99.0.1", ports="22,80,443,9000", engine="connect")
    assert bench.run(service, prefix=tuple(net.inside())).code == 0
    rules = "table inet gone { chain in { type filter hook input priority -10; "
    rules += f"ip daddr {host.address} tcp dport 443 reject with tcp reset; }}; }}"
    subprocess.run(net.there("nft", rules), check=True)
    try:
        ended = bench.run(service, prefix=tuple(net.inside()))
    finally:
        subprocess.run(net.there("nft", "delete table inet gone"), check=True)
    assert ended.code == 0, ended.stderr
    assert ended.events["port_closed"]["data"]["address"] == host.address
    again = bench.run(service, prefix=tuple(net.inside()))
    assert "port_opened" in again.events
    assert "port_closed" not in again.events
