"""From the bytes of a chunk to hosts: every probe that was asked is told of, once."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.workers.scan.found import Host, Port, Rest
from agent.workers.scan.grid import Grid
from agent.workers.scan.ledger import ANSWERS, BELIEVED, SKIPPED, Ledger, encode
from agent.workers.scan.outcome import ON_EVERY_PORT, outcome

ADDRESSES = ("10.0.0.1", "10.0.0.2")
BYTES = [BELIEVED, *(encode(*answer, 1) for answer in ANSWERS)]


def ledger(directory: Path, grid: Grid, *states: int) -> Ledger:
    made = Ledger(directory / "chunk", grid.key(""), grid.size, now=0.0, within=1.0)
    made.states[:] = bytes(states)
    return made


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(BYTES), min_size=12, max_size=12), st.sampled_from(["tcp", "udp"]))
def test_every_probe_is_told_of_once(tmp_path_factory: pytest.TempPathFactory, states: list[int], kind: str) -> None:
    grid = Grid("udp" if kind == "udp" else "tcp", ADDRESSES, ((20, 24), (80, 80)))
    hosts = list(outcome(grid, ledger(tmp_path_factory.mktemp("outcome"), grid, *states)))
    assert [host.address for host in hosts] == list(ADDRESSES)
    for host in hosts:
        told = [port.number for port in host.ports]
        told += [number for rest in host.rest for low, high in rest.ports for number in range(low, high + 1)]
        assert sorted(told) == list(grid.ports)
        assert {port.state for port in host.ports} <= {"open"}
    for number, byte in enumerate(states):
        place, port = grid.probe(number)
        expected = (
            ANSWERS[(byte & 0x7F) >> 3][0] if byte != BELIEVED else "open|filtered" if kind == "udp" else "filtered"
        )
        assert hosts[place].state_of(kind, port) == expected


def test_open_ports_stand_by_themselves_and_others_together(tmp_path: Path) -> None:
    grid = Grid("tcp", ADDRESSES, ((1, 4),))
    opened, reset = encode("open", "syn-ack", 1), encode("closed", "reset", 2)
    known = {"10.0.0.2": Host("10.0.0.2", "up", "arp-response", mac="02:00:00:00:00:01")}
    states = (reset, opened, reset, BELIEVED, *[BELIEVED] * 4)
    one, other = outcome(grid, ledger(tmp_path, grid, *states), before=known)
    assert (one.state, one.reason) == ("up", "syn-ack")
    assert one.ports == (Port("tcp", 2, "open", "syn-ack"),)
    assert one.rest == (
        Rest("tcp", "closed", "reset", ((1, 1), (3, 3))),
        Rest("tcp", "filtered", "no-response", ((4, 4),)),
    )
    assert (other.state, other.reason, other.mac) == ("up", "arp-response", "02:00:00:00:00:01")
    assert other.rest == (Rest("tcp", "filtered", "no-response", ((1, 4),)),)


def test_who_was_never_asked_is_not_told_of_and_who_is_silent_is_down(tmp_path: Path) -> None:
    grid = Grid("tcp", ADDRESSES, ((1, 2),))
    [host] = outcome(grid, ledger(tmp_path, grid, SKIPPED, SKIPPED, BELIEVED, BELIEVED))
    assert (host.address, host.state, host.reason) == ("10.0.0.2", "down", "no-response")


def test_a_neighbour_that_nobody_finds_is_down_for_that_reason(tmp_path: Path) -> None:
    grid = Grid("tcp", ADDRESSES[:1], ((1, 2),))
    [host] = outcome(grid, ledger(tmp_path, grid, encode("filtered", "host-unreach", 2), BELIEVED))
    assert (host.state, host.reason) == ("down", "host-unreach")


def test_who_says_open_to_everything_has_no_port_that_stands_by_itself(tmp_path: Path) -> None:
    grid = Grid("tcp", ADDRESSES[:1], ((1, 2),))
    [host] = outcome(grid, ledger(tmp_path, grid, *[encode("open", "syn-ack", 1)] * 2), everything={0})
    assert (host.state, host.reason, host.ports) == ("up", "syn-ack", ())
    assert host.rest == (Rest("tcp", "open", ON_EVERY_PORT, ((1, 2),)),)
