"""What kill -9 costs a scan: killed at random moments of its life, continued, and every probe on the wire counted."""

from __future__ import annotations

import random
import shutil
import signal
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network
from itertools import pairwise
from pathlib import Path
from typing import Any

from agent.workers.scan.memory.telling import GRAVITY
from bench import scanners
from bench.scan_kills_report import Kill, Sent, by_chance, repeated
from bench.scan_report import Figures, Place
from bench.scanners import Us, joined
from tests.workers.inventory.lab import packets
from tests.workers.scan import lab
from tests.workers.scan.truth import HOSTS, INTERFACE, NEAR

RATE = 8000
"""Probes per second: slow enough for a sweep to be killed in."""
PORTS = 200
HALF = "10.97.16.0/22"
"""1,024 addresses of the network in which each sixteenth answers: more than are discovered chunk by chunk."""
LIFE = 0.6
"""How long a life is before it is killed, at most, as part of what a scan takes: any time up to that."""
MOST = 7
"""Kills of one scan."""
ENGINES = ("connect", "syn")
CLOSING = frozenset({"port_closed", "port_filtered", "host_gone"})
CHANGES = frozenset(GRAVITY)
"""Events that say that the network has changed, which it has not."""


@dataclass(frozen=True)
class Setting:
    """What is scanned, and what there is of it: ``here`` are the open ports, ``asked`` whom each port is asked of."""

    targets: list[str]
    ports: str
    here: frozenset[Place]
    asked: frozenset[Place]


@dataclass
class Watched:
    """One scan from its first life to its last: what was sent by the end of each life, and how it went."""

    sent: list[Sent]
    swept: set[Place]
    seconds: float
    well: bool
    closing: int = 0
    told: int = 0


def kills(net: lab.Network, place: Path, count: int, figures: Figures) -> Iterator[Kill]:
    """Of both engines, half of the kills each: three scans undisturbed, and then those killed."""
    setting = _setting()
    for number, engine in enumerate(ENGINES):
        directory = place / engine
        asked: dict[str, Any] = {"targets": setting.targets, "ports": setting.ports, "profile": "services"}
        with closing(Us(net, directory, rate=RATE, engine=engine, **asked)) as us:
            first, once, again = (_watched(net, place, us, setting, []) for _ in range(3))
            undisturbed = first.sent[-1] | once.sent[-1]
            figures.differ = max(figures.differ, by_chance(again.sent[-1], undisturbed))
            undisturbed |= again.sent[-1]
            wanted = (count + 1 - number) // len(ENGINES)
            while wanted > 0:
                lives = [random.uniform(0, LIFE) * once.seconds for _ in range(min(MOST, wanted))]
                scan = _watched(net, place, us, setting, lives)
                for found in _each(scan, engine, undisturbed):
                    wanted -= 1
                    yield found
        shutil.rmtree(directory)


def _setting() -> Setting:
    """Hosts of the link whose services nmap names soon, and a network in which most are silent."""
    near = [host for host in HOSTS if host.kind in ("web", "ssh", "redis", "dns", "mixed", "closed")]
    far = [str(address) for address in IPv4Network(HALF)][1::16]
    ports = sorted({port for host in near for port in host.tcp})
    ports += range(10_000, 10_000 + PORTS - len(ports))
    here = {(host.address, port) for host in near for port in host.tcp}
    asked = {(address, port) for address in (*(host.address for host in near), *far) for port in ports}
    return Setting([f"{near[0].address}-{near[-1].address}", HALF], joined(ports), frozenset(here), frozenset(asked))


def _watched(net: lab.Network, place: Path, us: Us, setting: Setting, lives: list[float]) -> Watched:
    """A scan that is killed after each of ``lives`` (seconds), and then comes to its end."""
    us.events.clear()
    begun, before = time.monotonic(), len(us.runs())
    ends: list[int] = []
    with _seen(net, place) as capture:
        for life in lives:
            with us.running() as running:
                try:
                    running.wait(life)
                    break  # it was done before
                except subprocess.TimeoutExpired:
                    scanners.end(running)
                    ends.append(time.time_ns())
        if len(ends) == len(lives):
            with us.running() as running:
                code = scanners.waited(running, scanners.LIMIT).code
        else:
            code = running.returncode
    sent, swept = _told_apart(capture, setting, ends)
    capture.unlink()
    newest, *older = us.runs()
    found = {each.place for each in us.found()}
    return Watched(
        sent=sent,
        swept=swept,
        seconds=time.monotonic() - begun,
        well=code == 0 and newest.status == "finished" and not newest.degraded and len(older) == before
        and setting.here <= found and setting.asked <= swept,
        closing=_count(us, CLOSING),
        told=_count(us, CHANGES),
    )  # fmt: skip


def _count(us: Us, kinds: frozenset[str]) -> int:
    """How often such a change was told, those that were counted in one event among them."""
    total = 0
    for event in us.events:
        data = event["data"] if event["kind"] == "scan_changes" else {event["kind"]: 1}
        total += sum(data.get(kind, 0) for kind in kinds)
    return total


def _each(scan: Watched, engine: str, undisturbed: Sent) -> Iterator[Kill]:
    """What each kill of a scan cost in the life after it."""
    for before, after in pairwise(scan.sent):
        yield Kill(engine, repeated(before, after, undisturbed), scan.well, scan.closing, scan.told)


def _told_apart(capture: Path, setting: Setting, ends: list[int]) -> tuple[list[Sent], set[Place]]:
    """What was sent by the end of each life and by that of all, and the ports that were asked."""
    counted: Sent = Counter()
    lives: list[Sent] = []
    swept: set[Place] = set()
    left = iter([*ends, float("inf")])
    until = next(left)
    for packet in packets(capture):
        while packet.time > until:
            lives.append(counted.copy())
            until = next(left)
        header = 14 + (packet.data[14] & 15) * 4
        address, protocol = ".".join(map(str, packet.data[30:34])), packet.data[23]
        if protocol == 1:
            counted[address, "discovery"] += 1
            continue
        (port,) = struct.unpack_from("!H", packet.data, header + 2)
        if (address, port) in setting.here:
            counted[address, "services"] += 1
        elif port not in _PINGED:
            counted[address, "sweep"] += 1
        swept.add((address, port))
    lives += [counted.copy() for _ in range(len(ends) + 1 - len(lives))]
    return lives, swept


_PINGED = (80, 443)
"""Ports by which nmap asks too who is there: what goes to them where they are closed is nobody's sweep for sure."""


@contextmanager
def _seen(net: lab.Network, place: Path) -> Iterator[Path]:
    """A capture of every probe that arrives on the link while it runs: SYNs, and ICMP that asks who is there."""
    path = place / "probes.pcap"
    asks = "icmp[icmptype] == icmp-echo or icmp[icmptype] == icmp-tstamp"
    only = f"ip and src {NEAR} and ((tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn) or {asks})"
    options = ("-i", INTERFACE, "-U", "--immediate-mode", "-B", "65536", "-s", "64", "-Z", "root", "-w", str(path))
    with ExitStack() as stack:
        dump = stack.enter_context(subprocess.Popen(net.there("tcpdump", *options, only), stderr=subprocess.PIPE))
        stack.callback(dump.communicate, timeout=lab.PATIENCE)
        stack.callback(dump.send_signal, signal.SIGINT)
        if dump.stderr is None or b"listening" not in dump.stderr.readline():
            raise ValueError("tcpdump does not listen")
        yield path
