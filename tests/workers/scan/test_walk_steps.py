"""The steps of a run, by the real worker: what is discovered together, and what a late find costs."""

from __future__ import annotations

import time

import pytest

from agent.declaration.model import Scan, Scanning
from agent.workers.scan.budget import Limits
from agent.workers.scan.walk import at_once
from tests.workers.scan import lab
from tests.workers.scan.bench import Bench
from tests.workers.scan.test_blind_paths import cut, remember, scan
from tests.workers.scan.truth import INTERFACE, of_kind
from tests.workers.scan.wire import wire


@pytest.mark.parametrize(
    ("rate", "limits", "together"),
    [
        (500, Limits(20_000, 10_000, 200), 2000),
        (5000, Limits(20_000, 400, 5000), 1600),
        (5000, Limits(200, 2000, 5000), 800),
        (1_000_000, Limits(1_000_000, 1_000_000, 1), 4096),
        (10, Limits(20_000, 10_000, 5000), 64),
    ],
)
def test_what_takes_some_seconds_is_discovered_together_whatever_one_target_may_get(
    rate: int, limits: Limits, together: int
) -> None:
    assert at_once(rate, limits) == together


def test_hosts_that_may_be_asked_slowly_are_discovered_with_the_others(net: lab.Network, bench: Bench) -> None:
    path = bench.fake('echo run >> $HERE/runs; exec "$NMAP" "$@"')
    budget = Scanning(rate=100_000, network_rate=100_000, target_rate=500)
    service = Scan(name="lan", targets=("10.97.16.0/25",), profile="discovery", rate=1024, budget=budget)
    ended = bench.run(service, path=path, prefix=tuple(net.inside()))
    assert ended.code == 0, ended.stderr
    assert bench.rows("SELECT chunks_total, chunks_done, hosts_up FROM runs") == [(2, 2, 8)]
    assert (bench.directory / "fake/runs").read_text() == "run\n"


def test_a_port_that_a_second_look_finds_is_identified_and_the_others_are_left_alone(
    net: lab.Network, bench: Bench
) -> None:
    host, late = of_kind("many services")[0].address, 2202
    service = scan(host, ports=f"2201,7001,{late}", profile="services")
    remember(bench, service, {host: [("tcp", 2201), ("tcp", 7001), ("tcp", late)]})
    with wire(net.near, INTERFACE) as seen:
        with cut(net, f"ip daddr {host} tcp dport {late}"):
            process = bench.start(service, prefix=tuple(net.inside()))
            until = time.monotonic() + 20
            while not (bench.data / "sweep-1.tcp").exists():  # of the second look: there is one chunk
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < until
                time.sleep(0.005)
            first = len(seen.sent)
        ended = bench.finish(process)
    assert ended.code == 0, ended.stderr
    assert {what for _, what in seen.probes("syn", since=first)} == {f"syn {late}"}
    [found] = bench.found()
    told = {port.number: (port.reason, port.service) for port in found.open_ports()}
    assert told == {2201: ("syn-ack", "ssh"), 7001: ("syn-ack; says nothing", ""), late: ("syn-ack", "ssh")}
    assert bench.rows("SELECT port FROM quarantine") == [(7001,)]
    assert bench.rows("SELECT stage, ports_open FROM seen JOIN runs ON run = runs.id WHERE run = 3") == [(2, 3)]
