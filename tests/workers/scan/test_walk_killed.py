"""The worker is killed, kill -9, wherever it may be, and run again: what was sent twice is counted on the wire."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from agent.declaration.model import Engine, Profile, Scan, Scanning
from agent.workers.scan.sweep import BATCH
from agent.workers.scan.walk import at_once
from tests.workers.scan import lab
from tests.workers.scan.test_worker import Bench, Ended
from tests.workers.scan.truth import INTERFACE
from tests.workers.scan.wire import Wire, wire

PLENTY = Scanning(rate=1_000_000, network_rate=1_000_000, target_rate=1_000_000)
WRONG = {"host_gone", "port_closed", "port_filtered"}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def scan(*targets: str, ports: str, rate: int, engine: Engine = "auto", profile: Profile = "ports") -> Scan:
    return Scan(name="lan", targets=targets, ports=ports, rate=rate, engine=engine, profile=profile, budget=PLENTY)


def kill(net: lab.Network, bench: Bench, service: Scan, when: Callable[[], bool]) -> None:
    """Start it, and kill it as soon as ``when`` says so, and then what it has started, as the agent does."""
    process = bench.start(service, prefix=tuple(net.inside()))
    until = time.monotonic() + 20
    while not when():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.002)
    process.kill()
    bench.finish(process)
    for each in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"SERVICE_DATA={bench.data}\0".encode() in (each / "environ").read_bytes():
                os.kill(int(each.name), signal.SIGKILL)


def _reached(seen: Wire, kind: str, moment: int) -> bool:
    return len({(one.to, one.what) for one in seen.sent if one.what.startswith(kind)}) >= moment


class Lives:
    """A scan that is killed at each of the ``moments``, and then goes to its end. A moment is a number of different
    probes of one kind on the wire. All that is asked lies in 10.97.0.0/16."""

    def __init__(self, net: lab.Network, bench: Bench, service: Scan, kind: str, moments: tuple[int, ...]) -> None:
        starts = []
        with wire(net.near, INTERFACE) as seen:
            for moment in moments:
                starts.append(len(seen.sent))
                kill(net, bench, service, partial(_reached, seen, kind, moment))
            starts.append(len(seen.sent))
            self.ended: Ended = bench.run(service, prefix=tuple(net.inside()))
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


def test_discovering_many(net: lab.Network, bench: Bench) -> None:
    """One address in 16 is there. What is discovered at once is the most that is asked twice, and the last is known."""
    service = scan("10.97.16.0/23", ports="", rate=4 * 256, profile="discovery")
    lives = Lives(net, bench, service, "icmp", (100, 300))
    [(hosts,)] = bench.rows("SELECT hosts_total FROM runs")
    assert bench.rows("SELECT id, status, degraded, hosts_up FROM runs") == [(1, "finished", "", 32)]
    first, second, third = lives.asked("icmp")
    assert len(first | second | third) == hosts
    assert len(first & second) <= at_once(service.rate) == 256
    assert len(second & third) <= hosts - 256
    assert len(third) == hosts - 256, "those of the first part are known, whether they are there or not"
    assert not lives.ended.events.keys() & WRONG
