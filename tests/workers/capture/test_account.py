"""What is received is what is dropped, not written, and written: at each close, of each segment."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.workers.capture import account
from agent.workers.capture.account import Account
from agent.workers.capture.counters import Counters
from agent.workers.capture.dumper import sink
from agent.workers.capture.handle import Handle, Options
from agent.workers.capture.retention import Limits
from agent.workers.capture.store import Store
from agent.workers.capture.tap import Tap
from agent.workers.capture.writer import Cut, Writer
from tests.workers.capture.lab import KIB, Network, Worker, numbers, packets, segments, tcpdump_count, worker


def accounts(capture: Worker, interface: str = "far") -> list[Account]:
    """The account of each closed segment, oldest first; each is held against its file."""
    found = []
    for path in segments(capture.data, interface):
        told = account.read(path.with_suffix(".meta"))
        assert told is not None, f"{path.name} has no account"
        assert told.written == tcpdump_count(path)
        assert told.bytes == path.stat().st_size
        assert told.interface == interface
        assert told.opened <= told.closed
        found.append(told)
    assert len(found) == len(list((capture.data / interface).glob("*.meta")))
    return found


def balanced(told: Account) -> bool:
    return told.received == told.dropped_kernel + told.not_written + told.written and told.unaccounted == 0


def test_every_segment_balances_when_nothing_is_lost(tmp_path: Path, net: Network) -> None:
    settings = {"budget": 2**26, "rotate": {"size": 200_000, "every": 1}, "snaplen": 100, "filter": "ether[14] = 0"}
    with worker(tmp_path, net, interfaces=["far"], **settings) as capture:
        net.send("near", 20_000, size=120)
        ring = capture.wait_figure("written", 1)["ring"]
        capture.stop()
        told = accounts(capture)
        assert all(map(balanced, told))
        assert sum(each.received for each in told) == 20_000
        assert [each.reason for each in told].count("stop") <= 1
        assert {each.reason for each in told} >= {"size"}
        assert {(each.snaplen, each.filter) for each in told} == {(100, "ether[14] = 0")}
        assert all(0 < each.lag < 2e9 for each in told)
        assert {each.ring for each in told} == {ring}
        assert ring >= 2**24
        assert capture.figures()["lag_max"] == round(max(each.lag for each in told) / 1e9, 3)
        assert capture.events() == []


def test_every_segment_balances_while_the_ring_overflows(tmp_path: Path, net: Network) -> None:
    settings = {"budget": 2**28, "rotate": {"size": 2**20, "every": 1}, "ring": 512 * KIB}
    with worker(tmp_path, net, interfaces=["far"], **settings) as capture:
        # Nobody reads for a while, so that what comes then finds the ring full.
        net.send("near", 10_000, pace=0)
        capture.pause()
        net.send("near", 20_000, first=10_000, pace=0)
        capture.resume()
        net.send("near", 10_000, first=30_000, pace=20_000)
        capture.stop()
        told = accounts(capture)
        assert all(map(balanced, told))
        assert sum(each.dropped_kernel for each in told) == capture.figures()["dropped_kernel"] > 1000
        assert sum(each.received for each in told) == net.arrived("far") == 40_000
        assert capture.events() == []


def test_a_window_ends_where_the_clock_says_whatever_the_ring_still_holds(tmp_path: Path, net: Network) -> None:
    with worker(tmp_path, net, interfaces=["far"], budget=2**26, rotate={"size": 2**30, "every": 1}) as capture:
        net.send("near", 9_000, pace=3_000)
        capture.stop()
        assert numbers(capture.data, "far") == list(range(9_000))
        told = accounts(capture)
        assert all(map(balanced, told))
        assert {each.reason for each in told[:-1]} == {"time"}
        assert told[-1].reason in ("stop", "time")  # nothing may have come after the last boundary
        assert len(told) >= 3
        begins = [packets(path)[0].time for path in segments(capture.data, "far")]
        for begin in begins[1:]:
            # Not the tenth of a second earlier that the kernel holds packets back.
            assert begin % 10**9 < 0.9e9


def test_what_was_not_written_is_in_the_account_of_the_next_segment(small_disk: Path, net: Network) -> None:
    settings = {"interfaces": ["far"], "budget": 2**30, "rotate": {"size": 300_000, "every": 3600}}
    with worker(small_disk, net, **settings) as capture:
        filler = capture.data / "filler"
        filler.write_bytes(bytes(2 * KIB * KIB - 64 * KIB))
        net.send("near", 5_000)
        capture.wait_event("storage_error")
        capture.wait_figure("not_written", 1)
        filler.unlink()
        with net.start_sending("near", 10_000, first=5_000, pace=5_000) as sender:
            capture.wait_event("storage_resumed")
            assert sender.wait(20) == 0
        capture.stop()
        told = accounts(capture)
        assert all(map(balanced, told))
        assert sum(each.not_written for each in told) == capture.figures()["not_written"] > 0
        assert sum(each.received for each in told) == 15_000


def test_a_recovered_segment_says_that_it_is_one(tmp_path: Path, net: Network) -> None:
    with worker(tmp_path, net, interfaces=["far"]) as capture:
        net.send("near", 100)
        capture.wait_figure("written", 100)
        capture.process.kill()
        capture.process.wait()
    with worker(tmp_path, net, interfaces=["far"]) as capture:
        (told,) = accounts(capture)
        assert (told.reason, told.written, told.received) == ("recovered", 100, 0)


def test_whoever_asks_gets_what_was_captured_so_far_in_closed_segments(tmp_path: Path, net: Network) -> None:
    with worker(tmp_path, net, interfaces=["far"], rotate={"every": 86_400}) as capture:
        for first in (0, 100):
            net.send("near", 100, first=first)
            capture.process.send_signal(signal.SIGUSR1)
            capture.wait_figure("written", first + 100)
        capture.process.send_signal(signal.SIGUSR1)  # nothing is open
        capture.stop()
        assert [(told.written, told.reason) for told in accounts(capture)] == [(100, "request")] * 2
        assert numbers(capture.data, "far") == list(range(200))


class Lone:
    """A writer of what is sent to a port of the loopback interface, without a worker around it."""

    def __init__(self, directory: Path) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.reports: list[tuple[str, str]] = []
        self.counters = Counters()
        self.directory = directory
        store = Store(directory, Limits(2**26), lambda kind, message: self.reports.append((kind, message)))
        store.adopt()
        text = f"udp dst port {self._socket.getsockname()[1]}"
        self.handle = Handle("lo", Options(snaplen=2000, promiscuous=False, ring=2**20, filter=text))
        self.tap = Tap(self.handle, self.counters)
        cut = Cut(limit=2**24, every=10**15, record=2016, headroom=2**20, most=2**25)
        self.writer = Writer(
            "lo", cut, store, lambda kind, message: self.reports.append((kind, message)), self.counters
        )
        self.writer.attach(self.tap)

    def say(self, count: int) -> None:
        for _ in range(count):
            self._socket.sendto(b"said", self._socket.getsockname())

    def told(self) -> list[Account]:
        return [told for path in segments(self.directory, "lo") if (told := account.read(path.with_suffix(".meta")))]

    def close(self) -> None:
        self.handle.close()
        self._socket.close()


@pytest.fixture
def lone(tmp_path: Path) -> Iterator[Lone]:
    made = Lone(tmp_path)
    yield made
    made.close()


def until_closed(lone: Lone, *, give_up: bool = False) -> None:
    until = time.monotonic() + 10
    while lone.writer.deadline is not None:
        assert time.monotonic() < until
        if select.select([lone.handle.fd], [], [], 0.05)[0]:
            lone.writer.take(0.0)
        if give_up:
            lone.writer.expire()


def test_a_segment_that_is_closed_waits_for_what_the_kernel_has_counted_and_takes_no_more(lone: Lone) -> None:
    lone.say(10)
    lone.writer.close("request")
    assert lone.writer.deadline is not None
    lone.say(7)  # into the same block of the ring
    until_closed(lone)
    lone.writer.close("request")
    until_closed(lone)
    assert [(told.received, told.written, told.reason) for told in lone.told()] == [
        (10, 10, "request"),
        (7, 7, "request"),
    ]
    assert lone.reports == []


def test_packets_that_never_come_are_told_as_unaccounted(lone: Lone) -> None:
    lone.say(10)
    stolen = sink(lone.handle)
    while lone.handle.dispatch(stolen.user, 4) == 0:  # past the account
        pass
    stolen.close()
    lone.writer.close("request")
    until_closed(lone, give_up=True)
    (told,) = lone.told()
    assert (told.received, told.written, told.unaccounted) == (10, 6, 4)
    assert lone.counters.unaccounted == 4
    assert lone.reports == [("packets_unaccounted", "lo: 4 packets were received but never delivered")]
    lone.say(3)
    lone.writer.close("request")
    until_closed(lone)
    assert (lone.told()[1].received, lone.told()[1].unaccounted) == (3, 0)


def test_packets_that_the_kernel_did_not_count_are_told_too(lone: Lone) -> None:
    lone.say(10)
    with socket.socket(fileno=os.dup(lone.handle.fd)) as counted:
        counted.getsockopt(263, 6, 12)  # PACKET_STATISTICS of packet(7): whoever reads it resets it
    lone.say(1)
    lone.writer.take(0.0)
    while lone.tap.delivered < 11:
        lone.writer.take(0.0)
    lone.writer.close("request")
    (told,) = lone.told()
    assert (told.received, told.written, told.unaccounted) == (1, 11, -10)
    assert lone.reports == [("packets_unaccounted", "lo: 10 packets were delivered that had not been counted")]
