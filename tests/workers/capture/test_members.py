"""Several processes that share the packets of one interface."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from agent.linux.capability_sets import NET_RAW, mask, parse_sets
from agent.linux.process import children_of
from agent.workers.capture import account
from tests.workers.capture.lab import PATIENCE, Network, Worker, by_interface, packets, segments, worker

PORT = 4739
SETTINGS = {"interfaces": ["lo"], "filter": f"udp dst port {PORT}", "budget": 2**28, "fanout": 3}

_SENDER = """
import socket, sys, time
first, count, pace = map(int, sys.argv[1:4])
senders = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(64)]
sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sink.bind(("127.0.0.1", 4739))
began = time.monotonic()
for sent in range(count):
    number = first + sent
    senders[number % 64].sendto(number.to_bytes(4, "big"), ("127.0.0.1", 4739))
    if sent % 50 == 0:
        time.sleep(max(0.0, began + sent / pace - time.monotonic()))
"""


def send(net: Network, count: int, *, first: int = 0, pace: int = 10_000) -> subprocess.Popen[bytes]:
    """Numbered datagrams of 64 flows through the loopback interface of the namespace."""
    numbers = [str(number) for number in (first, count, pace)]
    return subprocess.Popen(net.inside(sys.executable, "-c", _SENDER, *numbers))


def found(data: Path) -> list[int]:
    """The numbers that were captured, sorted."""
    every = (packet for path in segments(data, "lo") for packet in packets(path))
    return sorted(int.from_bytes(packet.data[42:46], "big") for packet in every)


def flows(path: Path) -> set[bytes]:
    """The source ports in a segment."""
    return {packet.data[34:36] for packet in packets(path)}


def members(capture: Worker) -> list[int]:
    return [
        pid
        for pid in children_of(capture.process.pid)
        if b"member" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    ]


def all_share(capture: Worker) -> None:
    """Wait until every process has opened the interface."""
    capture.wait_figure("ring", 3 * 2**20)


def test_each_packet_is_taken_by_one_process_and_each_flow_stays_in_one(tmp_path: Path, net: Network) -> None:
    with worker(tmp_path, net, **SETTINGS, ring=2**20, rotate={"every": 3600}) as capture:
        net.up("lo")
        all_share(capture)
        with send(net, 6_000) as sender:
            assert sender.wait(PATIENCE) == 0
        capture.wait_figure("written", 6_000)
        capture.stop()
        assert found(capture.data) == list(range(6_000))
        closed = segments(capture.data, "lo")
        assert len(closed) == 3
        assert sum(len(flows(path)) for path in closed) == 64
        told = [account.read(path.with_suffix(".meta")) for path in closed]
        assert all(each is not None and each.unaccounted == 0 and each.received == each.written for each in told)
        figures = capture.figures()
        assert (figures["written"], figures["received"], figures["segments"]) == (6_000, 6_000, 3)
        assert figures["store_bytes"] == sum(path.stat().st_size for path in (capture.data / "lo").iterdir())
        assert figures["unindexed"] == 0
        lo = by_interface([fields for fields in capture.messages if "X_INTERFACES" in fields][-1])["lo"]
        assert (lo["received"], lo["written"], lo["segments"]) == (6_000, 6_000, 3)


def test_all_of_them_close_their_segments_when_somebody_asks(tmp_path: Path, net: Network) -> None:
    net.up("lo")
    with worker(tmp_path, net, **SETTINGS, ring=2**20, rotate={"every": 3600}) as capture:
        all_share(capture)
        with send(net, 1_000) as sender:
            assert sender.wait(PATIENCE) == 0
        capture.process.send_signal(signal.SIGUSR1)
        capture.wait_for(lambda _: len(segments(capture.data, "lo")) == 3, "anything while three segments are closed")
        assert found(capture.data) == list(range(1_000))
        capture.stop()


def test_the_budget_is_that_of_all_of_them(tmp_path: Path, net: Network) -> None:
    net.up("lo")
    budget = 8_000_000
    settings = SETTINGS | {"budget": budget, "ring": 2**20, "rotate": {"size": 150_000, "every": 3600}}
    with worker(tmp_path, net, **settings) as capture:
        all_share(capture)
        largest = 0
        with send(net, 120_000, pace=30_000) as sender:
            while sender.poll() is None:
                largest = max(largest, size(capture.data))
                capture.listen(0.01)
        capture.stop()
        assert budget / 4 < largest <= budget
        figures = capture.figures()
        assert figures["written"] == 120_000
        assert figures["store_bytes"] <= budget


def test_the_capture_makes_room_for_all_of_them_where_the_disk_is_smaller_than_the_budget(
    small_disk: Path, net: Network
) -> None:
    net.up("lo")
    settings = SETTINGS | {"ring": 2**20, "rotate": {"size": 100_000, "every": 3600}}
    with worker(small_disk, net, **settings) as capture:
        all_share(capture)
        for burst in range(1, 4):
            with send(net, 13_000, first=(burst - 1) * 13_000, pace=26_000) as sender:
                assert sender.wait(PATIENCE) == 0
            capture.wait_figure("received", burst * 13_000)
            capture.wait_for(lambda fields: figure(fields, "unindexed") == 0, "that all has an index")
        capture.stop()
        figures = capture.figures()
        assert (figures["written"], figures["not_written"]) == (39_000, 0)
        assert figures["store_state"] == "pruning"
        assert capture.events() == ["storage_low"]
        kept = found(capture.data)
        assert len(kept) * 62 > 2**19
        assert len(kept) == len(set(kept))


def figure(fields: Mapping[str, str], name: str) -> int | None:
    found: int | None = json.loads(fields.get("X_FIGURES", "{}")).get(name)
    return found


def size(data: Path) -> int:
    total = 0
    for path in data.glob("*/2*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total


def test_one_that_is_killed_is_replaced_and_what_it_had_written_is_kept(tmp_path: Path, net: Network) -> None:
    net.up("lo")
    with worker(tmp_path, net, **SETTINGS, ring=2**20, rotate={"every": 3600}) as capture:
        all_share(capture)
        with send(net, 3_000) as sender:
            assert sender.wait(PATIENCE) == 0
        capture.wait_figure("written", 3_000)
        os.kill(members(capture)[0], signal.SIGKILL)
        capture.wait_event("segment_recovered")
        all_share(capture)
        told = by_interface(capture.wait_for(lambda fields: "X_INTERFACES" in fields, "figures of each interface"))
        assert (told["lo"]["written"], told["lo"]["ring"]) == (3_000, 3 * 2**20)
        assert len(members(capture)) == 2
        with send(net, 3_000, first=3_000) as sender:
            assert sender.wait(PATIENCE) == 0
        capture.wait_figure("written", 6_000)
        capture.stop()
        assert found(capture.data) == list(range(6_000))
        assert sorted(set(capture.events())) == ["companion_ended", "segment_recovered"]


def test_they_hold_what_it_takes_to_capture_and_no_more_and_end_with_the_capture(tmp_path: Path, net: Network) -> None:
    net.up("lo")
    with worker(tmp_path, net, **SETTINGS, ring=2**20) as capture:
        all_share(capture)
        pids = members(capture)
        assert len(pids) == 2
        for pid in pids:
            sets = parse_sets(Path(f"/proc/{pid}/status").read_text())
            raw = mask([NET_RAW])
            assert (sets.permitted, sets.effective, sets.inheritable, sets.ambient) == (raw, raw, 0, 0)
        capture.process.kill()
        until = time.monotonic() + PATIENCE
        while any(Path(f"/proc/{pid}").exists() for pid in pids):
            assert time.monotonic() < until
            time.sleep(0.01)
