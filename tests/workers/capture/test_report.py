"""What a capture worker says about itself."""

from __future__ import annotations

from agent.workers.capture.counters import Counters
from agent.workers.capture.report import Flow, Part, by_interface, figures, summary

TOTAL = Counters(12_400, 50, 5, 12_345, 0, 0, 1_258_291, 3)


def test_the_line_of_a_healthy_capture() -> None:
    assert summary(["lo"], [], TOTAL, store="ok") == "lo: 12,345 packets, 55 dropped, 1.20 MiB in 3 segments"


def test_one_is_not_plural() -> None:
    assert summary(["lo"], [], Counters(1, 0, 0, 1, 0, 0, 100, 1), store="ok") == (
        "lo: 1 packet, 0 dropped, 100 B in 1 segment"
    )


def test_everything_that_is_wrong_is_said() -> None:
    total = Counters(1, 0, 0, 0, 1_001, 0, 0, 0)
    assert summary(["eth0", "eth1"], ["eth1"], total, store="full") == (
        "eth0, eth1: 0 packets, 0 dropped, 0 B in 0 segments, 1,001 not written, the disk takes no more, "
        "waiting for eth1"
    )


def test_a_disk_that_runs_short_is_said_before_packets_are_lost() -> None:
    assert summary(["lo"], [], TOTAL, store="pruning").endswith("3 segments, short of disk, the oldest segments go")


def test_many_interfaces_are_counted_instead_of_named() -> None:
    names = [f"eth{number}" for number in range(20)]
    assert summary(names, [], TOTAL, store="ok").startswith("20 interfaces: ")


def test_figures_bear_the_names_that_the_status_shows() -> None:
    flow = Flow(120_400_000, 2_000_000_000, 2**25, 17)
    assert figures(TOTAL, flow, store={"store_bytes": 7, "store_state": "ok"}, rate=1.26) == {
        "received": 12_400,
        "dropped_kernel": 50,
        "dropped_interface": 5,
        "written": 12_345,
        "not_written": 0,
        "unaccounted": 0,
        "bytes": 1_258_291,
        "segments": 3,
        "store_bytes": 7,
        "store_state": "ok",
        "rate": 1.3,
        "lag": 0.12,
        "lag_max": 2.0,
        "ring": 2**25,
        "ring_packets": 17,
    }


def test_each_interface_has_the_figures_of_the_whole() -> None:
    flow = Flow(120_400_000, 2_000_000_000, 2**25, 17)
    parts = {"eth0": Part(TOTAL, flow), "eth1": Part(Counters(), Flow(), waiting=True)}
    told = by_interface(parts, rates={"eth0": 1.26}, cut={"eth0": 9, "gone": 7})
    assert set(told) == {"eth0", "eth1"}
    assert told["eth0"] == figures(TOTAL, flow, store={}, rate=1.26) | {"cut": 9, "waiting": False}
    assert set(told["eth1"].values()) == {0, True}


def test_of_several_interfaces_the_worst_lag_and_all_memory_are_told() -> None:
    assert Flow(5, 9, 100, 3) + Flow(7, 8, 200, 4) == Flow(7, 9, 300, 7)
