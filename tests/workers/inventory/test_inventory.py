"""Segments in, hosts.json out: on real traffic, over a restart, and with packets that crash what dissects them."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from agent.errors import StorageFailure
from agent.workers.index.build import Reader, kind_of
from agent.workers.index.model import Flows
from agent.workers.inventory import inventory as inventory_module
from agent.workers.inventory import offered
from agent.workers.inventory.aside import NAME as ASIDE
from agent.workers.inventory.control import FILTERS
from agent.workers.inventory.inventory import Inventory
from agent.workers.inventory.rate import PER_SECOND
from agent.workers.inventory.sighting import Sighting
from agent.workers.inventory.snapshot import NAME, read, restore
from agent.workers.inventory.view import Source, hosts
from tests.workers.inventory.lab import CLIENT_MAC, SERVER, SERVER_MAC, Lab, Packet, fields, packets, write

SECOND = 1_000_000_000


class Reports(list[tuple[str, str]]):
    """What was reported."""

    def __call__(self, kind: str, message: str) -> None:
        self.append((kind, message))

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _ in self]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "edge" / "eth0").mkdir(parents=True)
    return tmp_path / "edge"


def observe(inventory: Inventory, path: Path, interface: str = "eth0") -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        kind = kind_of(os.pread(fd, 24, 0))
        assert kind
        for chunk in Reader(fd, kind).chunks(path.stat().st_size):
            inventory.observe(fd, interface, chunk)
    finally:
        os.close(fd)


def arp(number: int, at: int) -> Packet:
    sender = b"\2\0\0" + struct.pack("!I", number)[1:] + b"\x0a" + struct.pack("!I", number)[1:]
    return Packet(at, b"\xff" * 6 + sender[:6] + b"\x08\6\0\1\x08\0\6\4\0\1" + sender + bytes(6) + b"\x0a\0\0\1")


def crashing(at: int) -> Packet:
    """A DNS answer of one record that is not there."""
    body = struct.pack("!6H", 1, 0x8180, 0, 1, 0, 0) + b"\0\0\1"
    udp = struct.pack("!4H", 53, 40000, 8 + len(body), 0) + body
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0) + b"\x0a\0\0\1\x0a\0\0\2"
    return Packet(at, bytes(12) + b"\x08\0" + ip + udp)


def test_everybody_in_real_traffic_is_known_and_stays_so_over_a_restart(lab: Lab, store: Path) -> None:
    reports = Reports()
    inventory = Inventory(store, reports)
    observe(inventory, lab.path)
    inventory.save(at_once=True)
    found = read(store / NAME)
    assert found
    server, client = hosts([Source("edge", restore(found))])
    assert (server.mac, client.mac) == (SERVER_MAC, CLIENT_MAC)
    assert server.addresses[0].address == SERVER
    assert {told.value for told in server.facts["service"]} >= {"tcp/443", "udp/53"}
    assert {told.value for told in server.facts["role"]} == {"router", "dhcp server", "dhcpv6 server"}
    assert {told.value for told in client.facts["name"]} >= {"printer", "printer.local", "printer.lab.test"}
    assert {told.value for told in client.facts["service"]} == {"tcp/631"}
    assert not reports

    again = Inventory(store, reports)
    assert again.table.tables() == inventory.table.tables()
    observe(again, lab.path)
    assert again.counters == inventory.counters, "what was taken in before is not looked at again"
    later = packets(lab.path)[-1].time + SECOND
    observe(again, write(store / "later.pcap", [arp(9, later)]))
    assert again.counters["dissected"] == inventory.counters["dissected"] + 1
    assert not reports


def test_taking_in_the_same_twice_changes_nothing_but_the_counters(lab: Lab, store: Path) -> None:
    inventory = Inventory(store, Reports())
    observe(inventory, lab.path)
    once = {key: row.facts for rows in inventory.table.tables() for key, row in rows.items()}
    observe(inventory, lab.path)
    assert {key: row.facts for rows in inventory.table.tables() for key, row in rows.items()} == once


def test_a_packet_that_crashes_its_dissector_is_counted_kept_aside_and_skipped(store: Path) -> None:
    reports = Reports()
    inventory = Inventory(store, reports)
    observe(
        inventory,
        write(store / "x.pcap", [arp(1, SECOND), crashing(SECOND + 1), crashing(SECOND + 2), arp(2, SECOND + 3)]),
    )
    assert len(inventory.table.stations) == 2
    assert inventory.counters["crashed"] == inventory.counters["aside"] == 2
    assert [packet.data for packet in packets(store / "eth0" / ASIDE)] == [crashing(0).data] * 2
    assert reports.kinds == ["packet_aside"]
    assert len(fields(store / "eth0" / ASIDE, "dns", "frame.number")) == 2


def test_a_packet_that_was_cut_by_the_snaplen_did_not_crash_anything(store: Path, lab: Lab) -> None:
    whole = next(packet for packet in packets(lab.path) if packet.data[34:36] == b"\0\x35")
    path = write(store / "x.pcap", [Packet(whole.time, whole.data[:60])])
    data = bytearray(path.read_bytes())
    data[24 + 12 : 24 + 16] = struct.pack("<I", len(whole.data))
    path.write_bytes(data)
    inventory = Inventory(store, Reports())
    observe(inventory, path)
    assert inventory.counters["cut"] == 1
    assert inventory.counters["crashed"] == 0
    assert not (store / "eth0" / ASIDE).exists()


def test_of_a_flood_as_many_are_dissected_as_may_be_and_the_others_are_counted(store: Path) -> None:
    inventory = Inventory(store, Reports())
    observe(inventory, write(store / "x.pcap", [arp(number, number * SECOND // 5000) for number in range(10_000)]))
    counters = inventory.counters
    assert counters["dissected"] + counters["skipped"] == 10_000
    assert counters["dissected"] <= PER_SECOND["arp"] * 4
    assert len(inventory.table.stations) <= counters["dissected"]


def test_a_processor_that_is_used_up_is_left_alone(store: Path) -> None:
    inventory = Inventory(store, Reports())
    inventory._processor.spend(1000)
    observe(inventory, write(store / "x.pcap", [arp(number, number) for number in range(50)]))
    assert inventory.counters["skipped"] == 50
    assert not inventory.table.stations


def test_what_flows_tell_waits_for_the_processor_too(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def services(flows: Flows) -> list[Sighting]:
        asked.append(len(flows))
        return []

    monkeypatch.setattr(offered, "services", services)
    inventory = Inventory(store, Reports())
    observe(inventory, write(store / "x.pcap", [arp(1, 1)]))
    assert asked == [1]
    inventory._processor.spend(1000)
    observe(inventory, write(store / "x.pcap", [arp(2, 2)]))
    assert asked == [1]


def test_it_is_written_now_and_then_and_at_the_end(store: Path) -> None:
    inventory = Inventory(store, Reports())
    inventory.save(at_once=True)
    assert not (store / NAME).exists(), "there is nothing to write"
    observe(inventory, write(store / "x.pcap", [arp(1, 1)]))
    inventory.save()
    first = (store / NAME).stat().st_mtime_ns
    observe(inventory, write(store / "x.pcap", [arp(2, 2)]))
    inventory.save()
    assert (store / NAME).stat().st_mtime_ns == first
    inventory.save(at_once=True)
    assert (store / NAME).stat().st_mtime_ns > first
    assert "127.0.0.1" in (read(store / NAME) or pytest.fail()).own


@pytest.mark.parametrize("rate", [1, 1 << 40])
def test_the_more_there_is_to_write_the_more_rarely_it_is_written(
    store: Path, monkeypatch: pytest.MonkeyPatch, rate: int
) -> None:
    monkeypatch.setattr(inventory_module, "PACE", 0.0)
    monkeypatch.setattr(inventory_module, "_SPARING", 0)
    monkeypatch.setattr(inventory_module, "RATE", rate)
    inventory = Inventory(store, Reports())
    observe(inventory, write(store / "x.pcap", [arp(1, 1)]))
    inventory.save()
    first = (store / NAME).stat().st_ino
    observe(inventory, write(store / "x.pcap", [arp(2, 2)]))
    inventory.save()
    assert ((store / NAME).stat().st_ino == first) == (rate == 1)


def test_what_cannot_be_written_is_reported_once_and_tried_again(store: Path) -> None:
    reports = Reports()
    inventory = Inventory(store, reports)
    observe(inventory, write(store / "x.pcap", [arp(1, 1)]))
    (store / NAME).mkdir()
    inventory.save(at_once=True)
    inventory.save(at_once=True)
    assert reports.kinds == ["inventory_not_written"]
    (store / NAME).rmdir()
    inventory.save(at_once=True)
    assert read(store / NAME)


def test_a_damaged_file_is_told_and_begun_anew(store: Path) -> None:
    (store / NAME).write_text("nonsense")
    reports = Reports()
    inventory = Inventory(store, reports)
    assert reports.kinds == ["inventory_lost"]
    observe(inventory, write(store / "x.pcap", [arp(1, 1)]))
    inventory.save(at_once=True)
    assert read(store / NAME)


def test_a_file_of_a_newer_version_is_left_alone(store: Path) -> None:
    (store / NAME).write_text('{"version": 2}')
    with pytest.raises(StorageFailure, match="version 2"):
        Inventory(store, Reports())
    assert (store / NAME).read_text() == '{"version": 2}'


def test_after_the_clock_was_set_back_packets_are_still_taken_in(store: Path) -> None:
    inventory = Inventory(store, Reports())
    far = 4_000_000_000 * SECOND
    observe(inventory, write(store / "x.pcap", [arp(1, far)]))
    inventory.save(at_once=True)
    again = Inventory(store, Reports())
    observe(again, write(store / "x.pcap", [arp(2, 1_700_000_000 * SECOND)]))
    assert len(again.table.stations) == 2


def test_a_link_type_without_control_packets_still_has_services(store: Path) -> None:
    inventory = Inventory(store, Reports())
    observe(inventory, write(store / "x.pcap", [arp(1, 1)], link_type=127))
    assert inventory.counters["dissected"] == 0
    assert 127 not in FILTERS
