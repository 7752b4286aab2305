"""What one look left open is asked once more in the same run, by real connections, and then it is told."""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.workers.scan import again
from agent.workers.scan.again import Lot, Within, look_again, lots
from agent.workers.scan.found import Host, Port, Rest
from agent.workers.scan.memory import settling
from agent.workers.scan.memory.coverage import asked
from agent.workers.scan.memory.place import place
from agent.workers.scan.memory.settling import Doubt
from agent.workers.scan.pausing import Ended
from agent.workers.scan.spans import merge
from agent.workers.scan.store import Run, ScanStore, Task
from tests.workers.scan.memory.history import in_doubt, told

DOUBTS = st.lists(
    st.builds(
        Doubt,
        st.sampled_from([f"10.0.0.{last}" for last in range(12)] + ["fd00::1", "fe80::1%eth0", "fe80::1%eth1"]),
        st.booleans(),
        st.lists(st.tuples(st.sampled_from(("tcp", "udp")), st.integers(1, 9)), unique=True).map(tuple),
    ),
    unique_by=lambda doubt: doubt.address,
)


@given(DOUBTS, st.integers(1, 40))
def test_every_doubted_port_is_in_a_lot_and_no_lot_is_too_large(doubts: list[Doubt], most: int) -> None:
    found = list(lots(doubts, most))
    asked = {(address, lot.protocol, port) for lot in found for address in lot.addresses for port in lot.ports}
    assert {(doubt.address, *key) for doubt in doubts for key in doubt.ports} <= asked
    assert all(0 < len(lot.addresses) * len(lot.ports) <= most for lot in found)
    assert all(len({place(address).line for address in lot.addresses}) == 1 for lot in found)
    assert {lot.protocol for lot in found} <= {key[0] for doubt in doubts for key in doubt.ports}


def test_hosts_with_much_in_common_are_asked_together() -> None:
    doubts = [Doubt(f"10.0.0.{last}", False, (("tcp", 22), ("tcp", 80 + last % 3))) for last in range(200)]
    assert len(list(lots(doubts))) == 1


def connect(address: str, port: int) -> tuple[str, str]:
    with socket.socket() as one:
        one.settimeout(5)
        code = one.connect_ex((address, port))
    return ("open", "syn-ack") if code == 0 else ("closed", errno.errorcode[code].lower())


async def ask(number: int, lot: Lot) -> Iterable[Host]:
    """As the sweep does, on loopback, where nothing is lost."""
    hosts = []
    for address in lot.addresses:
        seen = {port: await asyncio.to_thread(connect, address, port) for port in lot.ports}
        ports = tuple(Port("tcp", port, *what) for port, what in seen.items() if what[0] == "open")
        rest = tuple(Rest("tcp", *what, ((port, port),)) for port, what in seen.items() if what[0] != "open")
        hosts.append(Host(address, "up", "syn-ack", ports=ports, rest=rest))
    return hosts


async def at_once() -> None:
    """Nothing to beat for, and nobody gives orders."""


def swept(port: int, state: str) -> Host:
    """What the first look at 127.0.0.1 says, right or wrong."""
    if state == "open":
        return Host("127.0.0.1", "up", "syn-ack", ports=(Port("tcp", port, "open", "syn-ack"),))
    return Host("127.0.0.1", "up", "reset", rest=(Rest("tcp", state, "no-response", ((port, port),)),))


def run(store: ScanStore, first: Host | None) -> tuple[int, list[str]]:
    """A run with this first look; how many lots were asked again, and what was told."""
    begun: Run = store.begin(Task("plan", 1, 1), time.time())
    nobody = asked(["127.0.0.1"]) if first is None else ()
    store.store(begun, [first] if first else [], time.time(), asked=nobody)
    count = asyncio.run(look_again(store, begun, {"tcp": ((1, 65535),)}, ask, at_once))
    assert in_doubt(store, begun) == []
    store.end(begun, "finished", time.time())
    return count, told(store)


def test_one_run_tells_what_it_looked_at_twice_and_a_lost_packet_is_nothing(tmp_path: Path) -> None:
    with closing(ScanStore(tmp_path / "scan.db")) as store:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            run(store, Host("127.0.0.1", "up", "syn-ack", rest=(Rest("tcp", "closed", "reset", ((port, port),)),)))
            assert run(store, swept(port, "open")) == (1, [f"port_opened 127.0.0.1 {port}"])
            assert run(store, swept(port, "open")) == (0, [])
            assert run(store, swept(port, "filtered")) == (1, []), "it is there"
            assert run(store, None) == (1, []), "and so is the host"
        assert run(store, swept(port, "open")) == (0, []), "the first look was wrong, but is what was believed"
        assert run(store, swept(port, "closed")) == (1, [f"port_closed 127.0.0.1 {port}"])
        assert run(store, swept(port, "open")) == (1, []), "nobody answers there"


def test_ports_that_the_scan_may_not_ask_are_not_asked_again(tmp_path: Path) -> None:
    with closing(ScanStore(tmp_path / "scan.db")) as store:
        begun = store.begin(Task("plan", 1, 1), time.time())
        store.store(begun, [swept(9, "open")], time.time())
        assert asyncio.run(look_again(store, begun, {"tcp": ((1, 8), (10, 99)), "udp": ((9, 9),)}, ask, at_once)) == 0
        assert [doubt.ports for doubt in in_doubt(store, begun)] == [(("tcp", 9),)]


class Killed(Exception):
    pass


def test_whoever_continues_asks_only_the_lots_that_are_left_by_the_numbers_that_they_had(tmp_path: Path) -> None:
    both = (Rest("udp", "closed", "port-unreach", ((53, 53),)), Rest("tcp", "closed", "reset", ((1, 9),)))
    was_open = (Port("udp", 53, "open", "udp-response"), *(Port("tcp", n, "open", "syn-ack") for n in range(1, 10)))
    within: Within = {"tcp": ((1, 9),), "udp": ((53, 53),)}
    found: list[tuple[int, Lot]] = []

    async def answer(number: int, lot: Lot) -> Iterable[Host]:
        found.append((number, lot))
        asked = (Rest(lot.protocol, "closed", "reset", merge((port, port) for port in lot.ports)),)
        return [Host(address, "up", "reset", rest=asked) for address in lot.addresses]

    async def until_killed(number: int, lot: Lot) -> Iterable[Host]:
        if number == 2:
            raise Killed
        return await answer(number, lot)

    with closing(ScanStore(tmp_path / "scan.db")) as store:
        first = store.begin(Task("plan", 1, 1), time.time())
        hosts = [Host(f"10.0.0.{last}", "up", "syn-ack", ports=was_open) for last in range(1, 5)]
        store.store(first, hosts, time.time())
        store.recheck(first, hosts, time.time())
        store.end(first, "finished", time.time())
        second = store.begin(Task("plan", 1, 1), time.time())
        store.store(second, [replace(host, ports=(), rest=both) for host in hosts], time.time())
        with pytest.raises(Killed):
            asyncio.run(look_again(store, second, within, until_killed, at_once, most=9))
    with closing(ScanStore(tmp_path / "scan.db")) as store:
        third = store.begin(Task("plan", 1, 1), time.time())
        assert third.resumed
        asyncio.run(look_again(store, third, within, answer, at_once, most=9))
        assert [number for number, _ in found] == list(range(len(found)))
        every = [(address, lot.protocol, port) for _, lot in found for address in lot.addresses for port in lot.ports]
        assert sorted(every) == sorted({(host.address, *port.key) for host in hosts for port in was_open})
        assert store.again(third) == []
        store.end(third, "finished", time.time())
        assert sum(one.startswith("port_closed") for one in told(store)) == 40


def test_a_second_look_at_many_hosts_is_taken_in_steps_and_heeds_an_order_between_any_two_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as a plan may have take longer than a worker may go without a beat."""
    monkeypatch.setattr(settling, "STEP", 10)
    monkeypatch.setattr(again, "STEP", 10)
    within: Within = {"tcp": ((1, 9),)}
    breaths, asked_for, limit = 0, 0, 4

    async def breathe() -> None:
        nonlocal breaths
        breaths += 1
        if breaths == limit:
            raise Ended

    async def answer(number: int, lot: Lot) -> Iterable[Host]:
        nonlocal asked_for
        asked_for += len(lot.addresses)
        return (replace(swept(9, "open"), address=address) for address in lot.addresses)

    with closing(ScanStore(tmp_path / "scan.db")) as store:
        begun = store.begin(Task("plan", 1, 1), time.time())
        hosts = [replace(swept(9, "open"), address=f"10.0.0.{last}") for last in range(100)]
        store.store(begun, hosts, time.time())
        with pytest.raises(Ended):
            asyncio.run(look_again(store, begun, within, answer, breathe))
        assert (asked_for, store.again(begun)) == (0, []), "it was still looking what to ask"
        breaths, limit = 0, 10 + 1 + 4
        with pytest.raises(Ended):
            asyncio.run(look_again(store, begun, within, answer, breathe))
        assert (asked_for, len(store.again(begun))) == (100, 1), "not all was stored that was heard"
        assert len(in_doubt(store, begun)) == 100 - 4 * 10
        breaths, limit = 0, 0
        assert asyncio.run(look_again(store, begun, within, answer, breathe)) == 1
        assert breaths == 10
        assert (in_doubt(store, begun), store.again(begun)) == ([], [])
