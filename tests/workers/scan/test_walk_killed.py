"""The worker is killed, kill -9, wherever it may be, and run again: what was sent twice is counted on the wire."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from agent.declaration.model import Engine, Profile, Scan, Scanning
from agent.workers.scan.sweep import BATCH
from tests.harness import environment
from tests.workers.scan import lab
from tests.workers.scan.bench import Bench, Ended, until
from tests.workers.scan.truth import INTERFACE, of_kind
from tests.workers.scan.wire import Wire, wire

PLENTY = Scanning(rate=1_000_000, network_rate=1_000_000, target_rate=1_000_000)
WRONG = {"host_gone", "port_closed", "port_filtered"}


def scan(*targets: str, ports: str, rate: int, engine: Engine = "auto", profile: Profile = "ports") -> Scan:
    return Scan(name="lan", targets=targets, ports=ports, rate=rate, engine=engine, profile=profile, budget=PLENTY)


def kill(prefix: tuple[str, ...], bench: Bench, service: Scan, when: Callable[[], bool]) -> None:
    """Start it, and kill it as soon as ``when`` says so, and then what it has started, as the agent does."""
    process = bench.start(service, prefix=prefix)
    until = time.monotonic() + 20
    while not when():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.002)
    process.kill()
    bench.finish(process)
    for each in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"AGENT_MARK={bench.mark}\0".encode() in environment(int(each.name)):
                os.kill(int(each.name), signal.SIGKILL)


def _reached(seen: Wire, kind: str, moment: int) -> bool:
    return len({(one.to, one.what) for one in seen.sent if one.what.startswith(kind)}) >= moment


class Lives:
    """A scan that is killed at each of the ``moments``, and then goes to its end. A moment is a number of different
    probes of one kind on the wire. All that is asked lies in 10.97.0.0/16."""

    def __init__(
        self,
        net: lab.Network,
        bench: Bench,
        service: Scan,
        kind: str,
        moments: tuple[int, ...],
        limits: tuple[str, ...] = (),
    ) -> None:
        prefix = (*net.inside(), *limits)
        starts = []
        with wire(net.near, INTERFACE) as seen:
            for moment in moments:
                starts.append(len(seen.sent))
                if len(starts) > 1:  # elsewhere: nothing that is known depends on where it was found out
                    bench.data = bench.data.rename(bench.directory / f"spool-{moment}")
                kill(prefix, bench, service, partial(_reached, seen, kind, moment))
            starts.append(len(seen.sent))
            self.ended: Ended = bench.run(service, prefix=prefix)
        assert self.ended.code == 0, self.ended.stderr
        assert seen.dropped == 0
        self.seen: Wire = seen
        self._parts = [
            [one for one in seen.sent[start:stop] if one.to.startswith("10.97.")]
            for start, stop in pairwise([*starts, len(seen.sent)])
        ]

    def asked(self, kind: str) -> list[set[tuple[str, str]]]:
        """Who was asked what in each life."""
        return [{(one.to, one.what) for one in part if one.what.startswith(kind)} for part in self._parts]

    def twice(self, kind: str) -> list[int]:
        """How much of that was asked before each kill, and again in the life after it."""
        return [len(before & after) for before, after in pairwise(self.asked(kind))]


@pytest.mark.parametrize(
    ("engine", "ports", "kind"),
    [("syn", "1001-1020", "syn 10"), ("connect", "1001-1020", "syn 10"), ("auto", "udp/1001-1020", "udp 10")],
)
def test_sweeping_several_chunks(net: lab.Network, bench: Bench, engine: Engine, ports: str, kind: str) -> None:
    """Every port answers at once here: what is sent twice is sent for the sake of a kill."""
    service = scan("10.97.0.1-10.97.0.200", ports=ports, rate=4000, engine=engine)
    lives = Lives(net, bench, service, kind, (700, 2900))
    assert bench.rows("SELECT id, status, degraded, chunks_done FROM runs") == [(1, "finished", "", 4)]
    assert len(set.union(*lives.asked(kind))) == 200 * 20
    assert max(lives.twice(kind)) <= BATCH, "those whose answers were on their way, or not read yet"
    assert max(lives.twice("icmp")) == 0, "who had been found was not asked again whether it is there"
    assert {host.state for host in bench.found()} == {"up"}
    assert not lives.ended.events.keys() & WRONG


KILLS = (60, 200, 350, 400)
WITHOUT = ("setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw")
"""Before a command: it cannot send raw packets, though it is root."""


class Silence(NamedTuple):
    """Whom to ask, and what nmap sends to each that does not answer (nmap(1), -sn); ``kind`` is of the moments."""

    targets: str
    asked: dict[str, int]
    kind: str
    moments: tuple[int, ...]
    limits: tuple[str, ...] = ()

    @property
    def service(self) -> Scan:
        return scan(self.targets, ports="", rate=4 * 256, profile="discovery")

    def beyond(self, sent: Counter[tuple[str, str]], there: set[str]) -> list[int]:
        """How much more than that each of the silent ones was sent, of each kind."""
        first, last = map(ip_address, self.targets.split("-"))
        everybody = {str(ip_address(number)) for number in range(int(first), int(last) + 1)}
        return [sent[to, what] - times for to in everybody - there for what, times in self.asked.items()]


FAR_OFF = "10.97.16.1-10.97.17.254"
SILENCES = {
    "raw packets": Silence(FAR_OFF, {"icmp": 4, "syn 443": 2, "tcp 80": 2}, "icmp", KILLS),
    "connect": Silence(FAR_OFF, {"syn 443": 2, "syn 80": 2}, "syn 80", KILLS, WITHOUT),
    "neighbours": Silence("10.99.0.70-10.99.0.250", {"arp": 2}, "arp", (40, 110)),
}


@pytest.mark.parametrize("silence", SILENCES.values(), ids=SILENCES)
def test_discovering_many(net: lab.Network, bench: Bench, silence: Silence) -> None:
    """Everybody who is silent is asked as often as by one nmap, and, but for what was under way to the one who was
    killed, no more than that."""
    lives = Lives(net, bench, silence.service, silence.kind, silence.moments, silence.limits)
    assert bench.rows("SELECT id, status, degraded FROM runs") == [(1, "finished", "")]
    there = {host.address for host in bench.found()}
    assert len(there) == (0 if silence.kind == "arp" else 32)  # one in 16, of those behind a router
    sent = lives.seen.probes("icmp", "syn", "tcp", "arp")
    beyond = silence.beyond(sent, there)
    kills = len(silence.moments)
    assert -sum(min(0, more) for more in beyond) <= kills, "it says so just before it sends"
    assert sum(max(0, more) for more in beyond) <= kills * 32, "what was not noted yet"
    found = sum(sent[to, what] for to in there for what in silence.asked)
    assert found <= len(there) * sum(silence.asked.values()) * 3 / 4, "who has answered is not asked again"
    assert not lives.ended.events.keys() & WRONG


def test_a_pause_of_a_discovery_has_nobody_asked_again(net: lab.Network, bench: Bench) -> None:
    silence = SILENCES["raw packets"]
    paused = bench.directory / "lan.paused"
    with wire(net.near, INTERFACE) as seen:
        process = bench.start(silence.service, prefix=tuple(net.inside()))
        until(lambda: _reached(seen, silence.kind, 200))
        paused.touch()
        while not any("paused by hand" in note.get("STATUS", "") for note in bench.notes):
            bench.receive()
        before = len(seen.sent)
        paused.unlink()
        ended = bench.finish(process)
    assert ended.code == 0, ended.stderr
    assert len(seen.sent) > before > 200
    beyond = silence.beyond(seen.probes("icmp", "syn", "tcp"), {host.address for host in bench.found()})
    assert -sum(min(0, more) for more in beyond) <= 1
    assert sum(max(0, more) for more in beyond) <= 1, "nmap is heard out when it is killed"


def test_a_discovery_whose_nmap_failed_asks_everybody_again(net: lab.Network, bench: Bench) -> None:
    """What it said of its packets is not believed either: it may have said it of such as never left."""
    echo = "SENT (0.1s) ICMP [10.0.0.1 > 10.97.16.2 Echo request (type=8/code=0) id=1 seq=0] IP [ttl=50 ]"
    rest = "TCP 10.0.0.1:1 > 10.97.16.2:443 S ", "TCP 10.0.0.1:1 > 10.97.16.2:80 A "
    stamp = "ICMP [10.0.0.1 > 10.97.16.2 Timestamp request (type=13/code=0) ]"
    said = "\\n".join([echo, *(f"SENT (0.1s) {line}" for line in (*rest, stamp))] * 2)
    service = scan("10.97.16.2-10.97.16.3", ports="", rate=1024, profile="discovery")
    path = bench.fake(f"printf '{said}\\n'; exit 1")
    assert bench.run(service, path=path, prefix=tuple(net.inside())).code == 2
    assert (bench.data / "discovery").exists()
    with wire(net.near, INTERFACE) as seen:
        ended = bench.run(service, prefix=tuple(net.inside()))
    assert ended.code == 0, ended.stderr
    assert "continuing run 1" in ended.stderr
    assert seen.probes("icmp")["10.97.16.2", "icmp"] == 4
    assert not (bench.data / "discovery").exists()


def test_a_second_look(net: lab.Network, bench: Bench) -> None:
    """What it has been told it does not ask again, and a change is told once."""
    host = of_kind("many services")[0].address
    ports = "7001-7040,8001-8040"
    service = scan(host, ports=ports, rate=20_000)
    assert bench.run(service, prefix=tuple(net.inside())).code == 0
    rules = "table inet gone { chain in { type filter hook input priority -10; "
    rules += f"ip daddr {host} tcp dport {{ {ports} }} reject with tcp reset; }}; }}"
    subprocess.run(net.there("nft", rules), check=True)
    ledger = bench.data / "sweep-1.tcp"  # of the first lot: there is one chunk
    slow = msgspec.structs.replace(service, rate=100)
    try:
        kill(tuple(net.inside()), bench, slow, lambda: sum(byte >= 128 for byte in states(ledger)) >= 30)
        told = {7001 + at if at < 40 else 8001 + at - 40 for at, byte in enumerate(states(ledger)) if byte >= 128}
        with wire(net.near, INTERFACE) as seen:
            ended = bench.run(service, prefix=tuple(net.inside()))
    finally:
        subprocess.run(net.there("nft", "delete table inet gone"), check=True)
    assert ended.code == 0, ended.stderr
    asked = {int(what.removeprefix("syn ")) for to, what in seen.probes("syn") if to == host}
    assert 30 <= len(told) <= 80
    assert not asked & told
    assert asked | told == {*range(7001, 7041), *range(8001, 8041)}
    assert bench.rows("SELECT id, status, degraded FROM runs") == [(1, "finished", ""), (2, "finished", "")]
    changes = bench.rows("SELECT kind, count(*) FROM changes WHERE run = 2 GROUP BY kind")
    assert changes == [("port_closed", 80)]


def states(ledger: Path) -> bytes:
    """What is known of each probe, if it was begun."""
    try:
        return ledger.read_bytes()[4096:]
    except FileNotFoundError:
        return b""


def test_a_run_whose_nmap_dies_while_services_are_identified(net: lab.Network, bench: Bench) -> None:
    """It fails, and says so; the next start has no port to sweep, and gives to nmap what is missing."""
    hosts = [host.address for host in of_kind("ssh")]
    service = scan(*hosts, ports="22,81", rate=20_000, profile="services")
    (bench.directory / "share").mkdir()
    (bench.directory / "share" / "nmap").symlink_to("/usr/share/nmap")
    path = bench.fake('case "$*" in *-sV*) kill -KILL $$;; esac; exec "$NMAP" "$@"')
    failed = bench.run(service, prefix=tuple(net.inside()), path=path)
    assert failed.code == 2
    why = failed.stderr.removesuffix("\n")
    assert "nmap was killed by SIGKILL" in why
    assert failed.events["scan_failed"]["message"].endswith(f"{why}; the next run continues")
    assert bench.rows("SELECT status, message, chunks_done FROM runs") == [("failed", why, 1)]
    with wire(net.near, INTERFACE) as seen:
        ended = bench.run(service, prefix=tuple(net.inside()))
    assert ended.code == 0, ended.stderr
    assert f"continuing run 1: 8 of 8 hosts were done; has failed once and was continued: {why}" in ended.stderr
    assert not [one for one in seen.probes("syn") if one[1] == "syn 81"], "a closed port, known by then"
    told = ("finished", f"has failed once and was continued: {why}", 8)
    assert bench.rows("SELECT status, message, hosts_up FROM runs") == [told]
    assert [port.service for host in bench.found() for port in host.open_ports()] == ["ssh"] * 8
