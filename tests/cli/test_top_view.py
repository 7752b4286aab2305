"""A snapshot as lines: everything in wide ones, what matters most in narrow ones, and nothing that a terminal obeys."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cli.top_data import FIGURES, OF_INTERFACE, TOLD
from agent.cli.top_view import plain, trend, view


def service(name: str = "edge", **more: Any) -> dict[str, Any]:
    return {
        **dict.fromkeys((*TOLD, *FIGURES, "dropped", "dropped_per_second")),
        "name": name,
        "state": "running",
    } | more


def interface(name: str = "eth0", **more: Any) -> dict[str, Any]:
    return {
        **dict.fromkeys((*OF_INTERFACE, "dropped", "dropped_per_second")),
        "service": "edge",
        "interface": name,
        "open_bytes": 1024,
        "read_share": 1.0,
        "packets_per_second": 1234.4,
        "bytes_per_second": 2048.0,
        "stored_per_second": 4096.0,
        "trend": [1.0, 8.0],
    } | more


def flow(number: int = 1) -> dict[str, Any]:
    return {
        "source": f"10.0.0.{number}",
        "source_port": 40000,
        "destination": "2001:db8::1",
        "destination_port": 443,
        "protocol": "tcp",
        "icmp_type": None,
        "icmp_code": None,
        "fragments": False,
        "odd": False,
        "bytes_per_second": 1000.0 / number,
        "packets_per_second": 3.0,
        "interface": "eth0",
    }


def snapshot(**more: Any) -> dict[str, Any]:
    return {
        "at": 1_800_000_000.0,
        "seconds": 2.0,
        "agent": {"state": "running", "since": 1_799_999_940.0},
        "services": [service(rate=1500.0, dropped=7, dropped_per_second=3.5, lag=0.012, ring_packets=5, ring=1 << 24)],
        "interfaces": [interface(dropped=9, dropped_per_second=1.6, lag=0.25, ring_packets=17, ring=1 << 21, cut=44)],
        "flows": [flow(1), flow(2)],
        "flows_seconds": 10.0,
        "problems": [],
    } | more


def test_where_there_is_room_all_is_there() -> None:
    lines = plain(view(snapshot()))
    assert lines[0] == "agent running, up 1m, 1,500 packets/s, 7 dropped"
    assert lines[2].split()[:4] == ["SERVICE", "STATE", "PACKETS/S", "DROPPED"]
    assert lines[3].split()[:9] == ["edge", "running", "1,500", "7", "4", "12", "ms", "5", "16.0"]
    assert lines[6].split() == [
        *("eth0", "edge", "1,234", "2.00", "KiB", "9", "2", "250", "ms", "17", "2.00", "MiB", "44"),
        *("4.00", "KiB", "1.00", "KiB", "▂█"),
    ]
    assert lines[9].split() == ["10.0.0.1:40000", "[2001:db8::1]:443", "tcp", "0.98", "KiB", "3.0", "eth0"]


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
@pytest.mark.parametrize("height", [1, 3, 8, 24])
def test_on_a_small_terminal_it_is_no_higher_than_that(width: int, height: int) -> None:
    many = snapshot(
        services=[service(f"service{number}") for number in range(40)],
        interfaces=[interface(f"eth{number}") for number in range(30)],
        flows=[flow(number) for number in range(1, 50)],
    )
    lines = view(many, width, height, hint="q quits")
    assert len(lines) <= height
    if height == 24:
        words = "\n".join(plain(lines))
        assert all(head in words for head in ("SERVICE", "INTERFACE", "SOURCE")) and " more" in words


def test_columns_that_matter_least_go_first() -> None:
    heads = {width: plain(view(snapshot(), width, 24))[2].split() for width in (130, 80, 42)}
    assert "RSS" in heads[130] and "RSS" not in heads[80]
    assert "LAG" in heads[80] and "LAG" not in heads[42]
    assert heads[42] == ["SERVICE", "STATE", "PACKETS/S", "DROPPED"]


def test_what_is_told_from_a_part_says_so() -> None:
    (line,) = (line for line in plain(view(snapshot(interfaces=[interface(read_share=0.25)]))) if line[:4] == "eth0")
    assert "~1,234" in line and "~2.00 KiB" in line


def test_an_interface_that_is_waited_for_is_called_so_and_its_drops_stay_where_there_is_little_room() -> None:
    waiting = interface("wg0", waiting=True, dropped=1234, packets_per_second=None, bytes_per_second=None)
    lines = plain(view(snapshot(interfaces=[waiting]), 60, 24))
    (line,) = (line for line in lines if line.startswith("wg0"))
    assert "1,234" in line and "waiting" in line


def test_without_an_agent_the_stores_are_shown() -> None:
    lines = plain(view(snapshot(agent=None, services=[], problems=["the agent is not running: no answer"])))
    assert lines[:2] == ["no agent answers; this is from the stores alone", "the agent is not running: no answer"]
    assert any(line.startswith("eth0") for line in lines)


def test_in_the_first_look_no_rate_is_claimed() -> None:
    blank = interface(packets_per_second=None, bytes_per_second=None, stored_per_second=None, trend=[])
    (line,) = (line for line in plain(view(snapshot(interfaces=[blank], flows=[]))) if line[:4] == "eth0")
    assert line.split() == ["eth0", "edge", *"-" * 9, "1.00", "KiB"]


@given(st.text(min_size=1, max_size=15))
def test_a_terminal_is_sent_nothing_that_it_obeys(name: str) -> None:
    told = snapshot(interfaces=[interface(name)], services=[service(name)], problems=[name])
    for line in plain(view(told, 80, 24)):
        assert line.isprintable()


def test_a_trend_is_as_high_as_its_values() -> None:
    assert trend([0, 1, 4, 8]) == "▁▂▅█"
    assert trend([0, 0]) == "▁▁"
    assert trend([]) == ""
