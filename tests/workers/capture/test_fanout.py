"""Sockets that share the packets of one interface: each packet in one of them, also when another joins."""

from __future__ import annotations

import ctypes
import os
import select
import socket
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.workers.capture import fanout, socket_filter
from agent.workers.capture.counters import Counters
from agent.workers.capture.dumper import Dumper
from agent.workers.capture.fanout import Groups, NoGroup
from agent.workers.capture.handle import Handle, InterfaceLost, Options
from agent.workers.capture.tap import Tap
from tests.workers.capture import wire as wire_program
from tests.workers.capture.lab import PATIENCE, ROOT, Network, packets
from tests.workers.capture.wire import FILTER, Wire, number

CLONE_NEWNET = 0x40000000  # linux/sched.h


@pytest.fixture
def wire(net: Network) -> Iterator[Wire]:
    """This process is in the namespace of ``net`` for as long."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{net.name}", os.O_RDONLY)
    libc_setns(there)
    made = Wire()
    try:
        yield made
    finally:
        made.close()
        libc_setns(home)
        os.close(there)
        os.close(home)


def libc_setns(fd: int) -> None:
    assert ctypes.CDLL(None).setns(fd, CLONE_NEWNET) == 0


class Share:
    """One that takes part; ``groups`` are those that its handle joins."""

    def __init__(self, groups: Groups, place: Path) -> None:
        self.handle = Handle("far", Options(65_536, False, 2**24, FILTER, groups))
        self.tap = Tap(self.handle, Counters())
        self.place = place

    def taken(self) -> tuple[list[int], list[int]]:
        """The numbers of all packets that came: those that are doubtful, and those that are not."""
        dumper = Dumper(self.handle, self.place, 0)
        self.tap.measure()
        assert self.handle.statistics()[1] == 0
        while self.tap.unread:
            assert select.select([self.handle.fd], [], [], PATIENCE)[0]
            dumper.note(self.tap.take(dumper.user, self.tap.unread))
        dumper.flush()
        dumper.close()
        dumper.hold.release()
        numbers = [number(packet.data) for packet in packets(self.place)]
        self.handle.close()
        return numbers[: self.tap.doubtful], numbers[self.tap.doubtful :]


class Meddling(Groups):
    """Something happens after the socket is bound and before it is of the group."""

    meddle: Callable[[], None]

    def join(self, packets: socket.socket, index: int, **how: Any) -> bool:
        self.meddle()
        return super().join(packets, index, **how)


def test_what_comes_while_a_process_joins_is_in_one_of_them_and_in_one_only(wire: Wire, tmp_path: Path) -> None:
    groups = fanout.made()
    shares = [Share(groups, tmp_path / "0.part")]
    wire.send(500)
    for member in range(1, 4):
        joining = Meddling(groups.fd, owner=False)
        joining.meddle = lambda: wire.send(500)
        shares.append(Share(joining, tmp_path / f"{member}.part"))
        wire.send(500)
    every = [share.taken() for share in shares]
    groups.close()
    assert [doubtful for doubtful, _ in every] == [[]] * 4
    assert sorted(found for _, sure in every for found in sure) == list(range(wire.sent))
    assert all(sure for _, sure in every)


def test_under_a_flood_no_packet_is_in_two_of_them_and_what_is_passed_over_is_counted(
    wire: Wire, net: Network, tmp_path: Path
) -> None:
    count = 60_000
    groups = fanout.made()
    shares = [Share(groups, tmp_path / "0.part")]
    with subprocess.Popen(
        [sys.executable, wire_program.__file__, "0", str(count), "0"], env={"PYTHONPATH": str(ROOT)}
    ) as flood:
        for member in range(1, 6):
            select.select([shares[0].handle.fd], [], [], PATIENCE)
            shares.append(Share(Groups(groups.fd, owner=False), tmp_path / f"{member}.part"))
        assert flood.wait(PATIENCE) == 0
    every = [share.taken() for share in shares]
    groups.close()
    sure = Counter(found for _, kept in every for found in kept)
    assert max(sure.values()) == 1
    assert set(range(count)) - sure.keys() <= {found for doubtful, _ in every for found in doubtful}


def test_a_filter_that_was_attached_is_read_back_as_it_is() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bare:
        assert socket_filter.attached(bare.fileno()) == b""
        for program in (socket_filter.NOTHING, struct.pack("=HBBI", 0x06, 0, 0, 65_535)):
            socket_filter.attach(bare, program)
            assert socket_filter.attached(bare.fileno()) == program
        socket_filter.attach(bare, b"")
        assert socket_filter.attached(bare.fileno()) == b""


def test_who_is_not_the_owner_waits_for_a_group_that_nobody_has_made(wire: Wire) -> None:
    made = fanout.made()
    member = Groups(made.fd, owner=False)
    with pytest.raises(InterfaceLost, match="the capture itself has not opened it yet"):
        Share(member, Path("/dev/null"))
    made.close()


def test_groups_of_interfaces_that_are_gone_make_place_and_those_of_others_stay(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = [(1, "lo"), (7, "eth0")]
    monkeypatch.setattr(socket, "if_nameindex", lambda: there)
    monkeypatch.setattr(fanout, "_join", lambda packets, group, flags, ready: None)
    made = fanout.made()

    class Packets:
        def __init__(self, group: int) -> None:
            self.group = group

        def getsockopt(self, level: int, option: int) -> int:
            return self.group

    def join(groups: Groups, index: int, group: int = 0) -> None:
        groups.join(Packets(group), index)  # type: ignore[arg-type]  # a socket is asked for its group alone

    join(made, 7, 70)
    for index in range(100, 1000):
        there[2:] = [(index, "veth")]
        join(made, index, index)
    assert os.fstat(made.fd).st_size <= 3 * 8
    member = Groups(made.fd, owner=False)
    join(member, 7)
    join(member, 999)
    with pytest.raises(NoGroup):
        join(member, 998)
    made.close()
