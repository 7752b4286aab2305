"""Services out of flows: as the real programs offered them, and not what only looks like one."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from agent.workers.index.build import Reader, kind_of
from agent.workers.index.model import Chunk
from agent.workers.inventory.offered import activity, known, services
from tests.workers.inventory.lab import SERVER, SERVER6, Lab, Packet, fields, write

A, B = b"\x0a\0\0\1", b"\x0a\0\0\2"


def chunk(path: Path) -> Chunk:
    """The index of a whole capture."""
    fd = os.open(path, os.O_RDONLY)
    try:
        kind = kind_of(os.pread(fd, 24, 0))
        assert kind
        (made,) = Reader(fd, kind).chunks(path.stat().st_size)
        return made
    finally:
        os.close(fd)


def packet(at: int, source: bytes, destination: bytes, protocol: int, ports: tuple[int, int], flags: int = 0) -> Packet:
    """TCP or UDP over IPv4, over IPv6 when addresses are so long."""
    if protocol == 6:
        body = struct.pack("!HHIIBBHHH", *ports, 0, 0, 0x50, flags, 0, 0, 0)
    else:
        body = struct.pack("!HHHH", *ports, 8, 0)
    if len(source) == 4:
        head = b"\x08\0" + struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, protocol, 0)
    else:
        head = b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, len(body), protocol, 64)
    return Packet(at, bytes(12) + head + source + destination + body)


def offered(tmp_path: Path, *packets: Packet) -> set[tuple[str, str]]:
    made = chunk(write(tmp_path / "flows.pcap", list(packets)))
    return {(sighting.address, sighting.value) for sighting in services(made.flows)}


def test_what_the_real_servers_answered_on_is_offered(lab: Lab) -> None:
    found = services(chunk(lab.path).flows)
    syn_acks = fields(lab.path, "tcp.flags.syn == 1 and tcp.flags.ack == 1", "ip.src", "ipv6.src", "tcp.srcport")
    tcp = {(four or six, f"tcp/{port}") for four, six, port in syn_acks}
    assert tcp == {(SERVER, "tcp/443"), (SERVER6, "tcp/443")}
    assert {(sighting.address, sighting.value) for sighting in found} == tcp | {(SERVER, "udp/53")}
    (dns,) = [sighting for sighting in found if sighting.value == "udp/53"]
    times = fields(lab.path, "udp.srcport == 53", "frame.time_epoch")
    assert (dns.first, dns.last) == tuple(int(times[at][0].replace(".", "")) for at in (0, -1))


@pytest.mark.parametrize("size", [4, 16])
def test_syn_and_ack_together_offer_a_service_on_any_port(size: int, tmp_path: Path) -> None:
    a, b = A.rjust(size, b"\xfd"), B.rjust(size, b"\xfd")
    syn, answer = packet(1, a, b, 6, (1000, 50000), 0x02), packet(2, b, a, 6, (50000, 1000), 0x12)
    assert {value for _, value in offered(tmp_path, syn, answer)} == {"tcp/50000"}
    refused = packet(2, b, a, 6, (50000, 1000), 0x14)
    assert offered(tmp_path, syn, refused) == set()


def test_udp_from_a_low_port_is_an_answer_when_somebody_asked_before(tmp_path: Path) -> None:
    ask, answer = packet(1, A, B, 17, (40000, 53)), packet(2, B, A, 17, (53, 40000))
    assert offered(tmp_path, ask, answer) == {("10.0.0.2", "udp/53")}
    assert offered(tmp_path, answer) == set()
    late = packet(3, A, B, 17, (40000, 53))
    assert offered(tmp_path, answer, late) == set()


def test_who_asks_from_a_low_port_offers_nothing(tmp_path: Path) -> None:
    ask, answer = packet(1, A, B, 17, (20000, 53)), packet(2, B, A, 17, (53, 20000))
    assert offered(tmp_path, ask, answer, packet(3, A, B, 17, (20000, 53))) == {("10.0.0.2", "udp/53")}


def test_of_two_equal_ports_that_one_is_the_server_who_answers(tmp_path: Path) -> None:
    assert offered(tmp_path, packet(1, A, B, 17, (123, 123)), packet(2, B, A, 17, (123, 123))) == {
        ("10.0.0.2", "udp/123")
    }


def test_two_ephemeral_ports_offer_nothing(tmp_path: Path) -> None:
    assert offered(tmp_path, packet(1, A, B, 17, (50000, 40000)), packet(2, B, A, 17, (40000, 50000))) == set()


def test_an_answer_to_another_is_none(tmp_path: Path) -> None:
    other = b"\x0a\0\0\3"
    assert offered(tmp_path, packet(1, other, B, 17, (40000, 53)), packet(2, B, A, 17, (53, 40000))) == set()


def test_only_who_is_known_is_still_there_when_he_sends(tmp_path: Path) -> None:
    flows = chunk(write(tmp_path / "flows.pcap", [packet(at, A, B, 6, (1000 + at, 80)) for at in (3, 5, 9)])).flows
    (found,) = activity(flows, known([(0, "10.0.0.1"), (0, "10.0.0.2"), (0, "fd00::1"), (7, "10.0.0.1")]))
    assert (found.address, found.first, found.last) == ("10.0.0.1", 3, 9)
    assert activity(flows, known([(0, "10.0.0.3")])) == activity(flows, known([])) == []
