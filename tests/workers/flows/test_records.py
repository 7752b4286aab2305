"""Rows of a store: exact for any span of time, whatever there is an index of, and whatever happens meanwhile."""

from __future__ import annotations

import os
import random
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.linux.files import open_regular
from agent.workers.capture.catalogue import INDEX
from agent.workers.capture.timely import Timely, timely
from agent.workers.flows import ipfix, records, table
from agent.workers.flows.choice import Choice
from agent.workers.flows.ended import segment
from agent.workers.flows.lines import Line, encoded, lines
from agent.workers.flows.records import Effort, Origins, Within, collect
from agent.workers.flows.top import BY, Totals, described, most
from agent.workers.index.model import IPV4, IPV6
from tests.workers.flows import traffic
from tests.workers.flows.peers import Ends, conversations, stored
from tests.workers.flows.traffic import NOON, SECOND, Packet

ALL = Within(0, NOON * 2)


def flows(directory: Path, within: Within = ALL, effort: Effort | None = None, **how: object) -> list[Line]:
    origins = Origins()
    batches = list(collect(directory, "edge", within, origins, effort or Effort(), **how))  # type: ignore[arg-type]  # by name
    assert [batch.until for batch in batches] == sorted(batch.until for batch in batches)
    rows = table.together([batch.rows for batch in batches])
    return list(lines(table.runs(rows, 1 << 62) if "gap" not in how else rows, origins.names))


def counted(found: Sequence[Line]) -> tuple[Counter[Ends], Counter[Ends]]:
    packets: Counter[Ends] = Counter()
    octets: Counter[Ends] = Counter()
    for line in found:
        if line.protocol in ("tcp", "udp") and line.source and line.destination:
            ends = (line.source, line.source_port or 0, line.destination, line.destination_port or 0, line.protocol)
            packets[ends] += line.packets
            octets[ends] += line.bytes
    return packets, octets


@pytest.mark.parametrize("indexed", [True, False], ids=["indexed", "unindexed"])
def test_packets_and_bytes_of_every_flow_are_those_of_tshark(tmp_path: Path, indexed: bool) -> None:
    packets = traffic.mixed(20, 400)
    third = len(packets) // 3
    traffic.store(
        tmp_path, "eth0", [packets[:third], packets[third : 2 * third], packets[2 * third :]], indexed=indexed
    )
    whole = tmp_path / "whole.pcap"
    whole.write_bytes(traffic.savefile(packets))
    effort = Effort()
    assert counted(flows(tmp_path, effort=effort)) == conversations(whole)
    assert effort.segments == 3
    assert (effort.unindexed == 0) == indexed


def test_packets_bytes_and_times_of_every_flow_are_those_of_nfpcapd(tmp_path: Path) -> None:
    """nfpcapd counts what IP carries: Ethernet's header is in our bytes, and here nothing is padded."""
    packets = [packet for packet in traffic.mixed(21, 400) if packet.frame[12:14] != b"\x08\x06"]
    traffic.store(tmp_path / "edge", "eth0", [packets])
    whole, peer = tmp_path / "whole.pcap", tmp_path / "peer"
    whole.write_bytes(traffic.savefile(packets))
    peer.mkdir()
    subprocess.run(["nfpcapd", "-r", whole, "-w", peer, "-t", "3600"], check=True, capture_output=True, timeout=20)
    (file,) = peer.glob("nfcapd.2*")
    ported = {"tcp", "udp"}
    theirs = {flow.ends: flow[1:] for flow in stored(file) if flow.ends[4] in ported}
    ours = {
        (line.source, line.source_port, line.destination, line.destination_port, line.protocol): (
            *(line.start_ns // 10**6, line.end_ns // 10**6, line.packets),
            line.bytes - line.packets * (14 + 4 * len(line.vlans)),
        )
        for line in flows(tmp_path / "edge")
        if line.protocol in ported
    }
    assert ours == theirs


@pytest.mark.parametrize("seed", range(4))
def test_a_span_cuts_at_packets(tmp_path: Path, seed: int) -> None:
    packets = traffic.mixed(30 + seed, 150)
    half = len(packets) // 2
    traffic.store(tmp_path, "eth0", [packets[:half]])
    traffic.store(tmp_path, "eth0", [packets[half:]], indexed=seed % 2 == 0)
    for place in range(0, len(packets) - 60, 97):
        within = Within(packets[place].time, packets[place + 60].time)
        inside = [packet for packet in packets if within.begin <= packet.time <= within.end]
        found = flows(tmp_path, within)
        assert sum(line.packets for line in found) == len(inside)
        assert sum(line.bytes for line in found) == sum(len(packet.frame) for packet in inside)
        assert min(line.start_ns for line in found) == inside[0].time
        assert max(line.end_ns for line in found) == inside[-1].time


def test_rows_that_were_silent_are_cut_in_two_when_asked_for(tmp_path: Path) -> None:
    frame = traffic.udp("10.0.0.1", 1, "10.0.0.2", 2)
    times = [0, 10, 20, 100, 110, 300]
    traffic.store(tmp_path, "eth0", [[Packet(NOON + second * SECOND, frame) for second in times]])
    found = sorted(flows(tmp_path, gap=60 * SECOND), key=lambda line: line.start_ns)
    assert [((line.start_ns - NOON) // SECOND, (line.end_ns - NOON) // SECOND, line.packets) for line in found] == [
        *((0, 20, 3), (100, 110, 2), (300, 300, 1))
    ]


def test_packets_that_were_cut_count_with_their_length_on_the_wire(tmp_path: Path) -> None:
    packets = traffic.conversation(NOON, "10.0.0.1", 40000, "10.0.0.2", 80, 1200)
    (path,) = traffic.store(tmp_path, "eth0", [packets], indexed=False)
    path.write_bytes(traffic.savefile(packets, snaplen=68))
    assert sum(line.bytes for line in flows(tmp_path)) == sum(len(packet.frame) for packet in packets)


def test_interfaces_are_told_apart_and_can_be_chosen(tmp_path: Path) -> None:
    packets = traffic.conversation(NOON, "10.0.0.1", 40000, "10.0.0.2", 80)
    for name in ("eth0", "eth1"):
        traffic.store(tmp_path, name, [packets])
    assert sorted(line.interface for line in flows(tmp_path)) == ["eth0", "eth0", "eth1", "eth1"]
    assert {line.interface for line in flows(tmp_path, interfaces=["eth1"])} == {"eth1"}


def test_segments_written_before_the_span_are_not_looked_at(tmp_path: Path) -> None:
    early, late = traffic.mixed(1, 20), traffic.mixed(2, 20, NOON + 3600 * SECOND)
    traffic.store(tmp_path, "eth0", [early, late])
    effort = Effort()
    flows(tmp_path, Within(NOON + 3600 * SECOND, ALL.end), effort)
    assert effort.segments == 1


def test_a_segment_that_is_closed_meanwhile_is_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The catalogue is looked at again after whatever could not be found any more."""
    packets = traffic.mixed(3, 50)
    first, second = packets[: len(packets) // 2], packets[len(packets) // 2 :]
    traffic.store(tmp_path, "eth0", [first])
    (closed,) = traffic.store(tmp_path, "eth0", [second])
    part = closed.with_name("20261120T140001.000000Z.part")
    closed.rename(part)
    real = open_regular

    def open_late(path: Path, flags: int) -> int:
        if path == part and part.exists():
            part.rename(closed)
        return real(path, flags)

    monkeypatch.setattr(records, "open_regular", open_late)
    assert sum(line.packets for line in flows(tmp_path)) == len(packets)


def test_one_that_was_opened_before_it_was_renamed_is_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packets = traffic.mixed(4, 50)
    (closed,) = traffic.store(tmp_path, "eth0", [packets])
    part = closed.with_name("20261120T135900.000000Z.part")
    closed.rename(part)
    real = open_regular

    def rename_after(path: Path, flags: int) -> int:
        fd = real(path, flags)
        if path == part:
            part.rename(closed)
        return fd

    monkeypatch.setattr(records, "open_regular", rename_after)
    assert sum(line.packets for line in flows(tmp_path)) == len(packets)


def test_one_that_was_removed_is_as_if_it_had_never_been(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packets = traffic.mixed(5, 50)
    gone, _ = traffic.store(tmp_path, "eth0", [packets[:100], packets[100:]])
    real = timely
    monkeypatch.setattr(records, "timely", lambda *asked: [*real(*asked), *_remove(gone)])
    assert sum(line.packets for line in flows(tmp_path)) == len(packets) - 100


def _remove(path: Path) -> list[Timely]:
    path.unlink(missing_ok=True)
    return []


def damaged_begin(data: bytes) -> bytes:
    return b"\xff" * 8 + data[8:]


def cut(data: bytes) -> bytes:
    return data[: len(data) * 2 // 3]


def newer(data: bytes) -> bytes:
    return data[:8] + (99).to_bytes(4, "little") + data[12:]


@pytest.mark.parametrize("damage", [damaged_begin, cut, newer], ids=lambda damage: damage.__name__)
def test_an_index_that_cannot_be_used_is_made_anew(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    packets = traffic.mixed(6, 60)
    (path,) = traffic.store(tmp_path, "eth0", [packets])
    index = path.with_suffix(INDEX)
    index.write_bytes(damage(index.read_bytes()))
    assert sum(line.packets for line in flows(tmp_path)) == len(packets)


def test_an_index_of_a_longer_file_is_not_believed(tmp_path: Path) -> None:
    packets = traffic.mixed(7, 60)
    (path,) = traffic.store(tmp_path, "eth0", [packets])
    whole = traffic.savefile(packets[:50])
    path.write_bytes(whole)
    assert sum(line.packets for line in flows(tmp_path)) == 50


def test_what_is_no_capture_is_named_and_the_rest_is_read(tmp_path: Path) -> None:
    packets = traffic.mixed(8, 10)
    (path,) = traffic.store(tmp_path, "eth0", [packets])
    other = path.with_name("20261120T135900.000000Z.pcap")
    other.write_bytes(b"no packets" * 100)
    path.with_name("20261120T135901.000000Z.part").write_bytes(b"")  # opened just now
    (path.parent / "20261120T135902.000000Z.pcap").symlink_to(path)
    effort = Effort()
    assert sum(line.packets for line in flows(tmp_path, effort=effort)) == len(packets)
    assert effort.unreadable == [f"{other}: it is no pcap file"]


def test_a_file_that_is_cut_short_meanwhile_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = traffic.udp("10.0.0.1", 1, "10.0.0.2", 2)
    packets = [Packet(NOON + second * SECOND, frame) for second in range(100)]
    (path,) = traffic.store(tmp_path, "eth0", [packets])
    real = records.indexes

    def cut_after(*given: Any) -> object:
        found = real(*given)
        os.truncate(path, 24 + 50 * (16 + len(frame)) + 7)
        return found

    monkeypatch.setattr(records, "indexes", cut_after)
    (line,) = flows(tmp_path, Within(packets[10].time, packets[-10].time))
    assert line.packets == 40


@pytest.mark.parametrize("seed", range(60))
def test_damaged_files_are_read_as_far_as_they_go(tmp_path: Path, seed: int) -> None:
    """Random bytes of a segment and of its index are others: nothing is raised, and all that is made of it is told."""
    dice = random.Random(seed)
    packets = traffic.mixed(seed, 12)
    (path,) = traffic.store(tmp_path, "eth0", [packets])
    for file in (path, path.with_suffix(INDEX)):
        data = bytearray(file.read_bytes())
        for _ in range(dice.choice([0, 1, 5, 40])):
            data[dice.randrange(24 if file == path else 0, len(data))] = dice.randrange(256)
        file.write_bytes(data[: dice.choice([len(data), dice.randrange(24, len(data))])])
    origins = Origins()
    within = Within(NOON - 10**12, NOON + 10**12) if seed % 2 else ALL
    choice = Choice("greater 100 or tcp") if seed % 3 == 0 else None
    every = [batch.rows for batch in collect(tmp_path, "edge", within, origins, Effort(), gap=SECOND, choice=choice)]
    rows = table.together(every)
    for line in lines(rows, origins.names):
        encoded(line)
    for by in BY[:-1]:
        totals = Totals(by, 20)
        totals.add(rows)
        described(by, most(totals.groups(), 5, "bytes"), totals.flows())
    told = segment(rows, within.end)
    headers = np.full(len(origins.names), 14, np.uint64)
    for family in (IPV4, IPV6):
        data_set = ipfix.encoded(told, family, headers.astype(np.uint32), headers)
        assert all(
            len(message) <= ipfix.LONGEST for message, _ in ipfix.messages(ipfix.Domain(1), family, data_set, int)
        )
