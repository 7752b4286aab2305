"""Phase 2 beside the sweep, by the real worker: within the budget, past a host that is slow, and after a kill."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.declaration.model import Scan, Scanning
from agent.errors import ScanFailure
from agent.workers.scan.allowed import Allowed
from agent.workers.scan.budget import Limits
from agent.workers.scan.budget_file import Budget
from agent.workers.scan.identifying import beforehand, pay_of, permit_of
from tests.workers.scan import lab
from tests.workers.scan.bench import Bench, Ended, lan
from tests.workers.scan.truth import of_kind
from tests.workers.scan.wire import wire

HERE, THERE = "10.0.0.1", "fd00::1%lo"


@pytest.fixture
def budget() -> Iterator[Budget]:
    made = Budget(None, Limits(100_000, 100_000, 200), print)
    yield made
    made.close()


def test_a_connection_waits_for_what_nmap_was_given_leave_to_make(budget: Budget) -> None:
    permit = permit_of(budget, Allowed())
    began = time.monotonic()
    asyncio.run(pay_of(budget)([HERE, THERE], 41))  # of which 40 are a fifth of a second's worth, and 10 a burst
    asyncio.run(permit("10.0.0.2"))
    aside = time.monotonic() - began
    asyncio.run(permit(HERE))
    assert time.monotonic() - began >= 0.14
    assert aside < time.monotonic() - began


def test_a_run_of_nmap_waits_for_what_another_was_given_leave_to_make(budget: Budget) -> None:
    pay = pay_of(budget)
    began = time.monotonic()
    asyncio.run(pay([HERE], 41))
    asyncio.run(pay([HERE, THERE], 41))
    assert time.monotonic() - began >= 0.14


def test_what_must_not_be_asked_is_not_waited_for(budget: Budget) -> None:
    with pytest.raises(ScanFailure, match=r"8\.8\.8\.8 must not be scanned"):
        asyncio.run(permit_of(budget, Allowed())("8.8.8.8"))


@settings(deadline=None)
@given(st.integers(1, 10_000), st.integers(1, 10_000), st.integers(1, 10_000), st.integers(1, 8), st.integers(1, 2000))
def test_what_is_made_on_credit_is_a_seconds_worth_by_any_limit(
    host: int, of_network: int, target: int, addresses: int, each: int
) -> None:
    before = beforehand(Limits(host, of_network, target), addresses, each)
    assert 1 <= before <= each
    credit = each - before
    assert credit <= target
    assert credit * addresses <= min(host, of_network)
    if before > 1:  # and no more is waited for than that takes
        assert credit + 1 > target or (credit + 1) * addresses > min(host, of_network)


SLOW = """
for word; do last=$word; done
case "$*" in *-sV*)
  cat $last >> $HERE/lists
  if grep -q 10.77.0.2 $last; then while [ ! -e $HERE/go ]; do sleep 0.05; done; fi;;
esac
exec "$NMAP" "$@"
"""
"""nmap that is at 10.77.0.2 for as long as it is not told to go on."""

TWO = ("10.77.0.2", "fd00:77::2")
"""A chunk each."""


def services(*targets: str, ports: str, **options: Any) -> Scan:
    return msgspec.structs.replace(lan(*targets, ports=ports, profile="services"), **options)


def fake(bench: Bench, script: str) -> str:
    """``Bench.fake``, with the scripts of the real one beside it."""
    (bench.directory / "share").mkdir()
    (bench.directory / "share/nmap").symlink_to("/usr/share/nmap")
    return bench.fake(script)


def figures(bench: Bench) -> list[dict[str, Any]]:
    return [json.loads(note["X_FIGURES"]) for note in bench.notes if "X_FIGURES" in note]


def stored(bench: Bench) -> set[str]:
    """The hosts of which all is known."""
    rows = bench.rows("SELECT address FROM seen JOIN hosts ON hosts.id = seen.host WHERE stage = 2")
    return {address for (address,) in rows}


def receive_until_stored(bench: Bench, address: str) -> None:
    """Whatever order chunks go in."""
    while {"READY": "1"} not in bench.notes or address not in stored(bench):
        bench.receive()


def test_a_slow_host_holds_up_nobody_and_the_figures_say_so(bench: Bench, network: tuple[str, ...]) -> None:
    process = bench.start(services(*TWO, ports="22"), path=fake(bench, SLOW), prefix=network)
    receive_until_stored(bench, "fd00:77::2")
    assert stored(bench) == {"fd00:77::2"}
    while figures(bench)[-1]["hosts_done"] < 1:
        bench.receive()
    half = figures(bench)[-1]
    assert (half["phase"], half["hosts_done"], half["hosts_total"], half["chunks_done"]) == ("services", 1, 2, 2)
    assert 75 <= half["percent"] < 100
    assert half["seconds_left"] > 0
    (bench.directory / "fake/go").touch()
    ended = bench.finish(process)
    assert ended.code == 0, ended.stderr
    assert [(host.address, *(port.product for port in host.ports)) for host in bench.found()] == [
        ("10.77.0.2", "OpenSSH"),
        ("fd00:77::2", "OpenSSH"),
    ]
    told = [(shown["hosts_done"], shown["percent"]) for shown in figures(bench)]
    assert told == sorted(told)
    assert told[-1] == (2, 100)
    assert all(percent < 100 for done, percent in told if done < 2)


def test_who_is_killed_goes_on_with_those_that_were_in_flight(bench: Bench, network: tuple[str, ...]) -> None:
    scan, path = services(*TWO, ports="22"), fake(bench, SLOW)
    lists = bench.directory / "fake/lists"
    process = bench.start(scan, path=path, prefix=network)
    receive_until_stored(bench, "fd00:77::2")
    while not lists.exists() or "10.77.0.2" not in lists.read_text():
        bench.receive()
    process.kill()
    bench.finish(process)
    assert sorted(lists.read_text().split()) == sorted(TWO)
    lists.unlink()
    (bench.directory / "fake/go").touch()
    with wire(network[-1]) as heard:
        ended = bench.run(scan, path=path, prefix=network)
    assert ended.code == 0, ended.stderr
    assert lists.read_text().split() == ["10.77.0.2"]
    assert [port.product for host in bench.found() for port in host.ports] == ["OpenSSH"] * 2
    assert not [*(bench.data / "services").iterdir()]
    assert heard.to() >= {"10.77.0.2"}


DIES = """
case "$*" in *-sV*) echo $$ >> $HERE/pids; kill -9 $$;; esac
exec "$NMAP" "$@"
"""
DIES_LATER = """
case "$*" in
  *-sV*) echo $$ >> $HERE/pids; exec sleep 60;;
  *-sn*) mkdir $HERE/first || { while [ ! -e $HERE/pids ]; do sleep 0.05; done; kill -9 $$; };;
esac
exec "$NMAP" "$@"
"""
"""The second discovery fails, once services are asked for."""


def alone(ended: Ended, message: str) -> None:
    """One line on what went wrong, and nothing is left."""
    assert ended.code == 2
    assert message in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert "Traceback" not in ended.stderr


def test_a_failure_of_services_ends_the_sweep_beside(bench: Bench, network: tuple[str, ...]) -> None:
    slow = services("10.77.0.2", "fd00:77::2", ports="22,1000-60000", rate=1000)
    ended = bench.run(msgspec.structs.replace(slow, ports="22"), path=fake(bench, DIES), prefix=network)
    alone(ended, "nmap was killed by SIGKILL")
    assert bench.rows("SELECT status FROM runs") == [("failed",)]


def test_a_failure_of_the_sweep_ends_the_runs_of_nmap_beside(bench: Bench, network: tuple[str, ...]) -> None:
    scan = services("10.77.0.2", "10.77.0.3", "fd00:77::/126", ports="22,25")
    ended = bench.run(scan, path=fake(bench, DIES_LATER), prefix=network)
    alone(ended, "nmap was killed by SIGKILL")
    for pid in map(int, (bench.directory / "fake/pids").read_text().split()):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def test_a_tarpit_is_known_by_its_talk_and_put_under_quarantine(bench: Bench, net: lab.Network) -> None:
    tarpit = of_kind("tarpit")[0]
    plenty = Scanning(rate=100_000, network_rate=100_000, target_rate=100_000)
    scan = services(tarpit.address, ports="22,2323", rate=20_000, budget=plenty)
    ended = bench.run(scan, path=fake(bench, SLOW), prefix=tuple(net.inside()))
    assert ended.code == 0, ended.stderr
    (host,) = bench.found()
    assert [port.reason for port in host.ports] == ["syn-ack; never stops talking"] * 2
    assert bench.rows("SELECT port, tries FROM quarantine ORDER BY port") == [(22, 0), (2323, 0)]
    assert not (bench.directory / "fake/lists").exists()


@pytest.mark.parametrize("order", ["paused", "ended"])
def test_an_order_holds_within_a_second_while_ports_are_looked_at(bench: Bench, net: lab.Network, order: str) -> None:
    """A hundred silent ports 200 ms away and forty near by, three questions each: that takes more than four seconds."""
    far, many = of_kind("200 ms away")[0], of_kind("many services")[0]
    plenty = Scanning(rate=100_000, network_rate=100_000, target_rate=100_000)
    ports = ",".join(map(str, sorted(far.open | {*range(7001, 7041)})))
    scan = services(far.address, many.address, ports=ports, rate=20_000, budget=plenty)
    process = bench.start(scan, prefix=tuple(net.inside()))
    while not any(shown["phase"] == "services" for shown in figures(bench)):
        bench.receive()
    with wire(net.near, "way") as there, wire(net.near) as here:
        (bench.directory / f"lan.{order}").touch()
        given = time.time()
        if order == "ended":
            assert "scan_stopped" in bench.finish(process).events
        else:
            while not bench.notes[-1].get("STATUS", "").startswith("paused by hand: ") or time.time() < given + 3:
                bench.receive()
    late = [one for one in (*there.sent, *here.sent) if one.at > given + 1.0 and one.to in (far.address, many.address)]
    assert [one for one in late if one.what != "arp"] == []  # which the kernel asks to know a neighbour by
    assert there.sent


def test_on_the_wire_a_target_gets_no_more_connections_than_declared(bench: Bench, net: lab.Network) -> None:
    """The sweep, the look and six runs of nmap, each for two ports, which is all that this rate can pay for at once.

    In any span no more begin than the rate allows and two for each port of one run: nmap looks whether it is open
    still, and asks. All twelve in one run begin within the same tenth of a second.
    """
    many, rate = of_kind("many services")[0], 16
    budget = Scanning(rate=1000, network_rate=1000, target_rate=rate)
    scan = services(many.address, ports="2201-2212", rate=rate, budget=budget)
    with wire(net.near) as heard:
        ended = bench.run(scan, prefix=tuple(net.inside()))
    assert ended.code == 0, ended.stderr
    assert [port.product for host in bench.found() for port in host.ports] == ["OpenSSH"] * 12
    begun = sorted(one.at for one in heard.sent if one.what.startswith("syn") and one.to == many.address)
    assert len(begun) >= 12 * 3  # by the sweep, the look, and nmap at the least
    for span in (0.25, 1.0, 2.0):
        most = max(sum(at <= other < at + span for other in begun) for at in begun)
        assert most <= rate * span + 2 * 2 + 1
