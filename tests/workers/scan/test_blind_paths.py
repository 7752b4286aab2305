"""The worker scans a network to which the way is cut, at the start, in the middle or for a part, in all ways of asking.

It says so, closes nothing and calls nobody gone; and yet it tells who has really left. What is known from before is
put into its memory, the network and the cuts are real, and those that have nothing to do with each other run at once.
"""

from __future__ import annotations

import itertools
import re
import struct
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, contextmanager
from ipaddress import ip_network

import msgspec
import pytest

from agent.declaration.model import Engine, Profile, Scan
from agent.workers.scan.found import Host, Port
from agent.workers.scan.memory.coverage import asked
from agent.workers.scan.store import ScanStore, Task
from tests.workers.scan import lab
from tests.workers.scan.bench import PLENTY, Bench, Ended
from tests.workers.scan.truth import of_kind

BAD = {"port_closed", "port_filtered", "host_gone", "scan_changes"}
SSH = [host.address for host in of_kind("ssh")]
WEB = [host.address for host in of_kind("web")]
DNS = [host.address for host in of_kind("dns")]
MIXED = [host.address for host in of_kind("mixed")]
DROPS = [host.address for host in of_kind("behind a firewall that drops")]

_numbers = itertools.count()


def scan(*targets: str, ports: str = "79-81", engine: Engine = "auto", profile: Profile = "ports") -> Scan:
    made = Scan(name="lan", targets=targets, ports=ports, profile=profile, rate=20_000, retries=1, budget=PLENTY)
    return msgspec.structs.replace(made, engine=engine)


def remember(
    bench: Bench, service: Scan, known: dict[str, Sequence[tuple[str, int]]], dark: Sequence[str] = ()
) -> None:
    """Two runs that found these hosts with these open ports, and two more where those of ``dark`` were cut off."""
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
        for days in (4, 3, 2, 1) if dark else (2, 1):
            at = time.time() - days * 86400
            run = store.begin(Task("before", len(hosts), 1), at)
            cut_off = dark if days < 3 else ()
            store.store(run, [host for host in hosts if host.address not in cut_off], at, chunk=0, asked=asked(cut_off))
            store.withhold(run, cut_off, "dark")
            store.end(run, "finished", at, degraded="none of them" if cut_off else "")
        store.tell(lambda event: None)


@contextmanager
def cut(net: lab.Network, *rules: str) -> Iterator[str]:
    """What comes to the servers by the link is dropped where a rule says so; gives the name of the table and chain."""
    table = f"blind{next(_numbers)}"
    made = "".join(f"{rule} drop; " for rule in rules)
    told = f"table netdev {table} {{ chain in {{ type filter hook ingress device wire priority -500; {made} }}; }}"
    subprocess.run(net.there("nft", told), check=True)
    try:
        yield f"netdev {table} in"
    finally:
        subprocess.run(net.there("nft", f"delete table netdev {table}"), check=True)


def to(*addresses: str) -> list[str]:
    """Rules for all that goes there, ARP too."""
    some = "{ " + ", ".join(addresses) + " }"
    return [f"ip daddr {some}", f"arp daddr ip {some}"]


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


def a_scan_that_is_blind_says_so_and_says_of_nobody_that_it_is_gone(net: lab.Network, benches: list[Bench]) -> None:
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
    with cut(net, *to(*whole, *DNS)):
        first = all_at_once(benches, net, services)
    for ended, addresses in zip(first, known, strict=True):
        assert degraded(ended) == f"none of {len(addresses)} known hosts answered"
        assert not ended.events.keys() & BAD


def what_is_cut_off_is_withheld_and_of_the_rest_it_is_told_who_has_left(net: lab.Network, benches: list[Bench]) -> None:
    """The way to one /24 is lost, and one host of another has been switched off; and the second chunk of a network."""
    services = [
        scan("10.97.1.0/29", "10.97.2.0/29", *WEB[6:9]),
        scan(*(f"127.0.0.{last}" for last in range(1, 101)), engine="connect"),
    ]
    split = {f"10.97.{third}.{last}": () for third in (1, 2) for last in range(1, 7)}
    known: list[dict[str, Sequence[tuple[str, int]]]] = [
        split | dict.fromkeys(WEB[6:9], (("tcp", 80),)),
        dict.fromkeys(services[1].targets, (("tcp", 80),)),
    ]
    for bench, service, hosts in zip(benches, services, known, strict=False):
        remember(bench, service, hosts)
    own = "table inet own { chain in { type filter hook input priority 0; ip daddr 127.0.0.64-127.0.0.127 drop; }; }"
    subprocess.run(net.inside("nft", own), check=True)
    try:
        with cut(net, "ip daddr 10.97.1.0/24", *to(WEB[6])):
            first, second = all_at_once(benches, net, services)
    finally:
        subprocess.run(net.inside("nft", "delete table inet own"), check=True)
    none = "none of the known hosts answered that were asked together in"
    assert degraded(first) == f"{none} 10.97.1.0/24 (6)"
    assert gone(benches[0]) == [WEB[6]], "others of its network answered while it was asked again"
    assert first.events.keys() & BAD == {"host_gone"}
    assert degraded(second) == f"{none} 127.0.0.0/24 (36)"
    closed = benches[1].rows("SELECT address FROM changes WHERE run = 3 AND kind != 'flapping'")
    assert {address for (address,) in closed} == set(services[1].targets[:63]), "where nobody listens any more"


def what_is_cut_off_for_the_third_time_in_a_row_is_gone(net: lab.Network, benches: list[Bench]) -> None:
    bench, service = benches[0], scan("10.97.4.0/29", "10.97.5.0/29")
    off = [f"10.97.4.{last}" for last in range(1, 7)]
    others: Sequence[str] = [f"10.97.5.{last}" for last in range(1, 7)]
    remember(bench, service, dict.fromkeys((*off, *others), ()), off)
    with cut(net, "ip daddr 10.97.4.0/24"):
        [ended] = all_at_once([bench], net, [service])
    assert gone(bench) == off
    assert degraded(ended) == ""


def a_way_that_is_lost_for_a_while_is_noticed_and_what_fell_into_the_hole_is_asked_again(
    net: lab.Network, benches: list[Bench]
) -> None:
    bench = benches[0]
    service = msgspec.structs.replace(scan(*MIXED[:2], ports="22,80,443,1000-1200,6379"), rate=400)
    remember(bench, service, dict.fromkeys(MIXED[:2], (("tcp", 22),)))
    with cut(net, f"ip daddr {{ {MIXED[0]}, {MIXED[1]} }} quota over 6 kbytes") as table:
        process = bench.start(service, prefix=tuple(net.inside()))
        assert process.stderr is not None
        missed = process.stderr.readline()
        subprocess.run(net.there("nft", f"flush chain {table}"), check=True)
        ended = bench.finish(process)
    told = re.fullmatch("canaries are missed: what went unanswered is asked again, at ([0-9]+) a second\n", missed)
    assert told is not None, missed
    assert int(told[1]) <= service.rate / 2
    assert degraded(ended) == ""
    assert sorted(bench.open()) == sorted((host, port) for host in MIXED[:2] for port in (22, 80, 443, 6379))
    assert not ended.events.keys() & BAD


def a_way_that_is_lost_at_the_very_end_is_noticed(net: lab.Network, benches: list[Bench]) -> None:
    """All that was to be asked has been asked, and only the last look at the canaries is left."""
    bench, hosts = benches[0], DROPS[:2]
    service = scan(*hosts, ports="22,1000-1100")
    remember(bench, service, dict.fromkeys(hosts, (("tcp", 22), ("tcp", 1000))))
    path = bench.data / "sweep-0.tcp"
    with cut(net) as table:
        process = bench.start(service, prefix=tuple(net.inside()))
        while not path.exists() or struct.unpack_from("<I4xI", path.read_bytes(), 48) != (1, 2 * 102):
            assert process.poll() is None
            time.sleep(0.01)
        subprocess.run(net.there("nft", f"add rule {table} ip daddr {hosts[0]}-{hosts[1]} drop"), check=True)
        ended = bench.finish(process)
    assert degraded(ended) == "open ports in 10.99.0.0/24 answered only for a part of the time"
    assert not ended.events.keys() & BAD


def a_second_look_over_a_way_that_was_lost_confirms_nothing(net: lab.Network, benches: list[Bench]) -> None:
    """One host is silent, and when it is to be asked again nobody else answers either."""
    bench, service = benches[0], scan(*WEB[9:12])
    remember(bench, service, dict.fromkeys(WEB[9:12], (("tcp", 80),)))
    with cut(net, *to(WEB[9])) as table:
        process = bench.start(service, prefix=tuple(net.inside()))
        while not (bench.data / "sweep-1.tcp").exists():
            assert process.poll() is None
            bench.receive()
        subprocess.run(net.there("nft", f"insert rule {table} ip daddr {WEB[10]}-{WEB[11]} drop"), check=True)
        ended = bench.finish(process)
    assert ended.code == 0, ended.stderr
    assert degraded(ended) == "open ports in 10.99.0.0/24 answered only for a part of the time"
    assert not ended.events.keys() & BAD


def a_host_alone_is_gone_after_two_looks_and_never_by_one(net: lab.Network, benches: list[Bench]) -> None:
    bench, service = benches[0], scan(SSH[0], ports="22")
    remember(bench, service, {SSH[0]: (("tcp", 22),)})
    with cut(net, *to(SSH[0])):
        assert not bench.run(service, prefix=tuple(net.inside())).events.keys() & BAD
        assert "host_gone" in bench.run(service, prefix=tuple(net.inside())).events


SCENES: list[Callable[[lab.Network, list[Bench]], None]] = [
    what_is_cut_off_for_the_third_time_in_a_row_is_gone,
    a_scan_that_is_blind_says_so_and_says_of_nobody_that_it_is_gone,
    what_is_cut_off_is_withheld_and_of_the_rest_it_is_told_who_has_left,
    a_way_that_is_lost_for_a_while_is_noticed_and_what_fell_into_the_hole_is_asked_again,
    a_way_that_is_lost_at_the_very_end_is_noticed,
    a_second_look_over_a_way_that_was_lost_confirms_nothing,
    a_host_alone_is_gone_after_two_looks_and_never_by_one,
]


@pytest.fixture(scope="module")
def played(net: lab.Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[None]]]:
    """All scenes at once: each has hosts of its own, and most of their time they wait."""
    with ThreadPoolExecutor(len(SCENES)) as pool, ExitStack() as stack:
        begun = {}
        for scene in SCENES:
            benches = []
            for _ in range(5):
                benches.append(bench := Bench(tmp_path_factory.mktemp("bench")))
                stack.callback(bench.close)
            begun[scene.__name__] = pool.submit(scene, net, benches)
        wait(begun.values())
        yield begun


@pytest.mark.parametrize("scene", [scene.__name__ for scene in SCENES])
def test_what_is_said_by_a_run_that_does_not_see(played: dict[str, Future[None]], scene: str) -> None:
    played[scene].result()
