"""All that a scan says of the hosts of ``lab``, through the worker's process and its database, held against the truth
of them.

One run of profile ``services`` asks all 64 and some at the end of a bad way for TCP and UDP ports. A server that greets
late costs nmap minutes and must not hold up the others: so the run is ended, as by a person, once all of those are
done.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import ssl
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from agent.declaration.model import Scan, Scanning
from agent.declaration.ports import parse_ports
from agent.workers.scan.found import Host, Port
from agent.workers.scan.identify import SLOW_HOSTS
from agent.workers.scan.memory.reading import Memory
from agent.workers.scan.outcome import ON_EVERY_PORT
from agent.workers.scan.store import DETECTED
from tests.workers.scan import lab
from tests.workers.scan.bench import Bench, Ended
from tests.workers.scan.conftest import Story
from tests.workers.scan.truth import FAR_HOSTS, GONE, HOSTS, HUNDRED, Truth, of_kind

pytestmark = pytest.mark.timeout(180)  # the first to be run waits for all that ``told`` tells

PLENTY = Scanning(rate=1_000_000, network_rate=1_000_000, target_rate=1_000_000)
FAR_PORTS = sorted(HUNDRED)[:4]
TCP = f"21-23,53,80,443,2201-2204,2323,6379,7001-7004,8001-8004,9000-9020,{','.join(map(str, FAR_PORTS))}"
UDP = "udp/53,udp/9000-9010"
"""More than one of the hosts says at once that they are closed: after six it says so once a second."""
ASKED = parse_ports(f"{TCP},{UDP}")
SLOW = {host.address for host in of_kind("late")}
PATIENCE = 120.0


BAD_WAYS = tuple(
    of_kind(kind)[0].address for kind in ("10 ms away, loses 5 % each way", "10 ms away, behind 5,000 packets a second")
)
MANY_PORTS = 8000


class Result(NamedTuple):
    """What one run came to, once all but ``SLOW`` were done."""

    ended: Ended
    hosts: Mapping[str, Host]
    silent: frozenset[tuple[str, int]]
    unanswered: str | None
    """What came of asking the address at which nobody is."""


def numbers(ranges: tuple[tuple[int, int], ...]) -> frozenset[int]:
    return frozenset(number for low, high in ranges for number in range(low, high + 1))


def truth(net: lab.Network, tmp_path_factory: pytest.TempPathFactory) -> Result:
    bench = Bench(tmp_path_factory.mktemp("truth"))
    targets = tuple(host.address for host in (*HOSTS, GONE, *FAR_HOSTS))
    service = Scan(name="lan", targets=targets, ports=f"{TCP},{UDP}", profile="services", rate=20_000, budget=PLENTY)
    wanted = len(HOSTS) + len(FAR_HOSTS) - len(SLOW)
    began = time.monotonic()
    try:
        process = bench.start(service, prefix=tuple(net.inside()))
        while (done := detected(bench)) < wanted:
            assert process.poll() is None, "it has ended, though not all are done"
            assert time.monotonic() - began < PATIENCE, f"{done} of {wanted} hosts are done"
            bench.receive()
        (bench.directory / "lan.ended").touch()
        ended = bench.finish(process)
        with Memory(bench.data / "scan.db") as memory:
            silent = frozenset((one.address, one.number) for one in memory.quarantine())
            unanswered = memory.coverage(1).outcome(GONE.address)
        return Result(ended, {host.address: host for host in bench.found()}, silent, unanswered)
    finally:
        bench.close()


@pytest.fixture(scope="module")
def result(told: Mapping[Story, Future[Any]]) -> Result:
    found: Result = told[truth].result()
    return found


def detected(bench: Bench) -> int:
    """How many hosts are done, but for the slow ones."""
    if not (bench.data / "scan.db").exists():
        return 0
    marks = ", ".join(f"'{address}'" for address in SLOW)
    query = (
        "SELECT count(*) FROM seen JOIN hosts ON hosts.id = seen.host"
        f" WHERE stage >= {DETECTED} AND address NOT IN ({marks})"
    )
    [(count,)] = bench.rows(query)
    return int(count)


def test_it_was_ended_by_hand_and_has_found_whoever_is_there(result: Result) -> None:
    assert result.ended.code == 0, result.ended.stderr
    assert "scan_stopped" in result.ended.events
    assert set(result.hosts) == {host.address for host in (*HOSTS, *FAR_HOSTS)}
    assert all(host.state == "up" for host in result.hosts.values())


def test_every_port_is_in_the_state_that_it_is_in(result: Result) -> None:
    wrong = []
    for truth in (*HOSTS, *FAR_HOSTS):
        found = result.hosts[truth.address]
        for number in numbers(ASKED.tcp):
            if found.state_of("tcp", number) not in states_of_tcp(truth, number):
                wrong.append((truth.address, truth.kind, "tcp", number, found.state_of("tcp", number)))
        for number in numbers(ASKED.udp):
            if found.state_of("udp", number) not in states_of_udp(truth, number):
                wrong.append((truth.address, truth.kind, "udp", number, found.state_of("udp", number)))
    assert not wrong


def states_of_tcp(truth: Truth, number: int) -> set[str]:
    if number in truth.tcp or truth.rest == "open":
        return {"open"}
    return {"filtered" if truth.rest in ("filtered", "rejected") else "closed"}


def states_of_udp(truth: Truth, number: int) -> set[str]:
    if number in truth.udp:
        return {"open"}
    return {{"filtered": "open|filtered", "rejected": "filtered"}.get(truth.rest, "closed")}


def test_why_a_port_is_not_open_is_told_too(result: Result) -> None:
    reasons = {
        truth.rest: {(rest.protocol, rest.reason) for rest in result.hosts[truth.address].rest}
        for truth in HOSTS
        if truth.kind not in ("limits its resets", "says once a second that a port is closed")
    }
    assert reasons == {
        "closed": {("tcp", "reset"), ("udp", "port-unreach")},
        "filtered": {("tcp", "no-response"), ("udp", "no-response")},
        "rejected": {("tcp", "admin-prohibited"), ("udp", "admin-prohibited")},
        "open": {("tcp", ON_EVERY_PORT), ("udp", "port-unreach")},
    }


def test_who_says_open_to_everything_is_named_and_not_asked_what_it_is(result: Result) -> None:
    [truth] = of_kind("says open to everything")
    assert f"open to everything, and so not asked further: {truth.address}\n" in result.ended.stderr
    assert not result.hosts[truth.address].ports
    assert not any(address == truth.address for address, _ in result.silent)


def test_every_server_is_known_by_name_and_version(net: lab.Network, result: Result) -> None:
    versions = installed(net)
    wrong = []
    for truth in (*HOSTS, *FAR_HOSTS):
        found = {port.key: port for port in result.hosts[truth.address].ports}
        for protocol, number, speaks in ends(truth):
            port = found[protocol, number]
            told = (port.service, port.tunnel, port.product, port.version)
            if told != versions.get(speaks, ("", "", "", "")) and speaks not in ("late", "tarpit"):
                wrong.append((truth.address, number, speaks, told))
    assert not wrong


def ends(truth: Truth) -> Iterator[tuple[str, int, str]]:
    for protocol, ports in (("tcp", truth.tcp), ("udp", truth.udp)):
        for number, speaks in ports.items():
            if number in numbers(ASKED.tcp if protocol == "tcp" else ASKED.udp):
                yield protocol, number, speaks


def installed(net: lab.Network) -> dict[str, tuple[str, str, str, str]]:
    """What there is to know of each server, by what it says of itself to others than us."""
    nginx = said("nginx", "-v").partition("nginx/")[2].strip()
    redis = re.search(r"redis-cli ([0-9.]+)", said("redis-cli", "--version"))  # of the same package
    dnsmasq = re.search(r"version ([0-9.]+)", said("dnsmasq", "--version"))
    assert redis and dnsmasq
    with lab.entered(net), socket.create_connection((of_kind("ssh")[0].address, 22)) as ssh:
        banner = ssh.recv(256).decode().strip()
    return {
        "http": ("http", "", "nginx", nginx),
        "https": ("http", "ssl", "nginx", nginx),
        "ssh": ("ssh", "", "OpenSSH", banner.partition("OpenSSH_")[2].replace("-", " ")),
        "redis": ("redis", "", "Redis key-value store", redis[1]),
        "domain": ("domain", "", "dnsmasq", dnsmasq[1]),
    }


def said(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def test_certificates_are_kept(net: lab.Network, result: Result) -> None:
    with lab.entered(net):
        shown = ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((of_kind("web")[0].address, 443)))
    ports = [port for host in result.hosts.values() for port in host.ports if port.number == 443]
    assert len(ports) == sum(443 in truth.tcp for truth in HOSTS)
    for port in ports:
        assert port.certificate is not None
        assert port.certificate.sha256 == hashlib.sha256(shown).hexdigest()
        assert port.certificate.subject == f"commonName={lab.NAME}"
        assert port.certificate.not_before < time.time() < port.certificate.not_after


def test_who_says_nothing_is_held_back_and_said_to_be_so(result: Result) -> None:
    silent = {
        (truth.address, number)
        for truth in (*HOSTS, *FAR_HOSTS)
        for _, number, speaks in ends(truth)
        if speaks == "silent"
    }
    assert result.silent >= silent
    [tarpit] = of_kind("tarpit")
    assert {address for address, _ in result.silent - silent} <= {tarpit.address}
    assert all(port_of(result, *end).reason == "syn-ack; says nothing" for end in silent)
    for truth in of_kind("closes at once"):
        assert port_of(result, truth.address, 23).reason == "syn-ack; nmap: tcpwrapped"
    assert {port_of(result, tarpit.address, port).reason for port in tarpit.open} == {"syn-ack; never stops talking"}


def port_of(result: Result, address: str, number: int) -> Port:
    [port] = [port for port in result.hosts[address].ports if port.number == number]
    return port


def test_the_slow_ones_are_open_and_held_up_nobody(result: Result) -> None:
    for truth in of_kind("late"):
        assert {port.number for port in result.hosts[truth.address].open_ports()} == truth.open


def test_who_is_not_there_was_asked_and_did_not_answer(result: Result) -> None:
    assert GONE.address not in result.hosts
    assert result.unanswered == "silent"


# A silent port costs nmap's service detection 41 s, and that is not what is looked at here: it is left out.
HASTY = """
for word; do last=$word; done
case "$*" in *-sV*) cat "$last" >> $HERE/asked;; esac
for word; do shift; [ "$word" = -sV ] || set -- "$@" "$word"; done
exec "$NMAP" "$@"
"""


class Turns(NamedTuple):
    """Who was asked at length in each of three runs, and how often by the end, of these hosts."""

    hosts: frozenset[str]
    asked: list[set[str]]
    tries: Mapping[str, int]


def turns(net: lab.Network, tmp_path_factory: pytest.TempPathFactory) -> Turns:
    silent = [f"10.99.0.{number}" for number in range(130, 140)]
    for address in silent:
        lab.batch(net.far, f"address add {address}/32 dev lo")
    place = tmp_path_factory.mktemp("turns")
    bench = Bench(place)
    path = bench.fake(HASTY)
    (place / "share").mkdir()
    (place / "share" / "nmap").symlink_to("/usr/share/nmap")
    service = Scan(name="lan", targets=tuple(silent), ports="7001", profile="services", budget=PLENTY, silent_again=0.1)
    wanted = json.dumps([[address, [7001], "silent"] for address in silent])
    asked: list[set[str]] = []
    try:
        with lab.ready(net.there(sys.executable, str(Path(lab.__file__).with_name("servers.py")), wanted)):
            for _ in range(3):
                (place / "fake" / "asked").write_text("")
                ended = bench.run(service, path=path, prefix=tuple(net.inside()))
                assert ended.code == 0, ended.stderr
                asked.append(set((place / "fake" / "asked").read_text().split()))
        with Memory(bench.data / "scan.db") as memory:
            return Turns(frozenset(silent), asked, {one.address: one.tries for one in memory.quarantine()})
    finally:
        bench.close()
        for address in silent:
            lab.batch(net.far, f"address delete {address}/32 dev lo")


def far(net: lab.Network, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Host]:
    """8,000 ports of two hosts at the end of bad ways, asked four times as fast as one of these ways carries."""
    bench = Bench(tmp_path_factory.mktemp("far"))
    service = Scan(name="lan", targets=BAD_WAYS, ports=f"1-{MANY_PORTS}", profile="ports", rate=20_000, budget=PLENTY)
    try:
        ended = bench.run(service, prefix=tuple(net.inside()))
        assert ended.code == 0, ended.stderr
        assert ended.events["scan_finished"]["data"]["degraded"] == ""
        return {host.address: host for host in bench.found()}
    finally:
        bench.close()


STORIES = (truth, turns, far)


@pytest.mark.parametrize("address", BAD_WAYS)
def test_neither_loss_nor_a_limit_on_the_way_hides_an_open_port_or_makes_one(
    told: Mapping[Story, Future[Any]], address: str
) -> None:
    host = told[far].result()[address]
    assert {port.number for port in host.open_ports()} == {number for number in HUNDRED if number <= MANY_PORTS}
    states = Counter(host.state_of("tcp", number) for number in range(1, MANY_PORTS + 1))
    assert states["filtered"] <= 2, "of 8,000 one or two may be asked in vain each time"


def test_the_silent_ports_of_many_hosts_are_asked_at_length_in_turn(told: Mapping[Story, Future[Any]]) -> None:
    hosts, (first, second, third), tries = told[turns].result()
    assert first == set(), "that they are silent was not known before"
    assert len(second) == SLOW_HOSTS
    assert second | third == hosts
    assert tries == {address: 2 if address in second & third else 1 for address in hosts}
