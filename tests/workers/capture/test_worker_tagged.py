"""Frames with VLAN tags, off a wire: the kernel takes the outer tag away, libpcap puts it back, a query finds it."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import pytest

from agent.workers.retrieval.answer import Answer
from tests.workers.capture.lab import Network, packets, run, segments, worker
from tests.workers.retrieval.stores import tcpdump

ADDRESSES = bytes.fromhex("020000000002020000000001")
Q7, AD5 = b"\x81\x00\x00\x07", b"\x88\xa8\x00\x05"
"""IEEE 802.1Q: the ethertype of a customer's tag with VLAN 7, that of a provider's with VLAN 5."""


def _datagram(size: int) -> bytes:
    """IPv4 with UDP to port 53, and its ethertype before it."""
    udp = struct.pack("!4H", 1000, 53, 8 + size, 0) + b"x" * size
    return (
        b"\x08\x00"
        + struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, b"\n\0\0\1", b"\n\0\0\2")
        + udp
    )


FRAMES = {
    "plain": ADDRESSES + _datagram(100),
    "one": ADDRESSES + Q7 + _datagram(100),
    "two": ADDRESSES + AD5 + Q7 + _datagram(100),
}

_SEND = """
import socket, sys
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
raw.bind(("near", 0))
for frame in sys.argv[1:]:
    raw.send(bytes.fromhex(frame))
"""


@pytest.mark.parametrize(
    ("declared", "snaplen", "stored"),
    [
        ("", 262_144, ("plain", "one", "two")),
        ("", 60, ("plain", "one", "two")),
        ("vlan 7", 262_144, ("one",)),
        ("vlan 5 and vlan 7", 60, ("two",)),
        ("udp port 53", 60, ("plain", "one")),  # the filter sees them as the kernel does, without the outer tag
    ],
)
def test_tagged_frames_are_stored_bit_for_bit_and_found_by_their_tags(
    tmp_path: Path, net: Network, declared: str, snaplen: int, stored: tuple[str, ...]
) -> None:
    settings = {"interfaces": ["far"], "budget": 2**26, "rotate": {"size": 2**20, "every": 3600}, "snaplen": snaplen}
    with worker(tmp_path, net, **settings, **({"filter": declared} if declared else {})) as capture:
        run(*net.inside(sys.executable, "-c", _SEND, *(frame.hex() for frame in FRAMES.values())))
        capture.stop()
    (path,) = segments(capture.data, "far")
    kept = packets(path)
    assert [(packet.data, packet.original) for packet in kept] == [
        (FRAMES[name][:snaplen], len(FRAMES[name])) for name in stored
    ]
    for expression, wanted in (("vlan 7", "one"), ("vlan 5 and vlan 7", "two"), ("udp port 53", "plain")):
        there = [(kept[stored.index(wanted)].time, FRAMES[wanted][:snaplen])] if wanted in stored else []
        assert [(one.time, bytes(one.data)) for one in tcpdump(path, expression, tmp_path / "o")] == there
        assert found(capture.data, expression) == there


def found(store: Path, expression: str) -> list[tuple[int, bytes]]:
    """Time and bytes of the packets that a query gives."""
    answer = Answer([store], expression)
    given = [run.batch.packet(number) for run in answer.runs() for number in range(run.begin, run.end)]
    answer.close()
    assert answer.notes == []
    return [(packet.time, packet.data) for packet in given]
