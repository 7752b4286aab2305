"""Proof that an index is made and used on this machine, numpy and what that brings included: for ``agentctl selftest``.

A segment is indexed as the index process does it, the file is read back, and the packets of one host and port are
looked up in it, and then looked at.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from agent.errors import StorageFailure
from agent.workers.capture import savefile
from agent.workers.capture.naming import CLOSED, segment_name
from agent.workers.index import form, worker
from agent.workers.index.growing import Growing

WORKER = worker.IndexWorker
"""What a worker is, and so everything that one loads."""

PACKETS = 3000
HOSTS = 50
PORTS = (53, 123, 443)

_BEGIN = 1_772_323_200
_NETWORK = 0xC0000200  # 192.0.2.0, RFC 5737: nobody's
_WANTED = (_NETWORK + 7, 123)


def found_again(directory: Path) -> str:
    """Write a segment to the empty ``directory``, index it, find packets by that; returns what was found.

    Raises ``StorageFailure``.
    """
    segment = directory / segment_name(_BEGIN * 10**9, CLOSED)
    packets = [(_NETWORK + number % HOSTS, PORTS[number % len(PORTS)]) for number in range(PACKETS)]
    segment.write_bytes(_HEADER + b"".join(_record(number, *packet) for number, packet in enumerate(packets)))
    try:
        growing = Growing(segment)
        try:
            indexed = sum(chunk.packets for chunk in growing.advance())
            index = growing.finish(segment)
        finally:
            growing.close()
    except OSError as error:
        raise StorageFailure(f"{segment}: cannot be indexed: {error.strerror}") from error
    found = _lookup(segment.read_bytes(), index.read_bytes())
    expected = [number for number, packet in enumerate(packets) if packet == _WANTED]
    if indexed != PACKETS or found != expected:
        raise StorageFailure(
            f"an index of {indexed} of {PACKETS} packets found {len(found)} of one host and port, not {len(expected)}"
        )
    return f"numpy {np.__version__}: {PACKETS} packets indexed, and those of a host and port found again"


def _lookup(data: bytes, index: bytes) -> list[int]:
    """The numbers of the packets from ``_WANTED``, by the index and then by what is in them."""
    address, port = _WANTED
    numbers = []
    for chunk in form.decode(index):
        flows = chunk.flows
        known = flows.addresses == np.array([0, address], np.uint64)
        rows = known.all(axis=1)[flows.source] & (flows.source_port == port)
        for offset in chunk.offsets_of(rows).tolist():
            frame = data[chunk.begin + offset + savefile.RECORD_HEADER :]
            source, sent, number = _READ.unpack_from(frame)
            if (source, sent) != _WANTED:
                raise StorageFailure("an index leads to packets of others")
            numbers.append(number)
    return numbers


# pcap-savefile(5), with nanoseconds; pcap-linktype(7): LINKTYPE_ETHERNET
_HEADER = savefile.file_header(1, 65535, "<")
_READ = struct.Struct("!26x I 4x H 6x I")
"""Of a frame below: where it is from, the port, its number."""


def _record(number: int, address: int, port: int) -> bytes:
    """An Ethernet frame of an IPv4 datagram from a UDP port with a number in it: RFC 894, 791, 768."""
    udp = struct.pack("!4HI", port, 40_000, 12, 0, number)
    ip = struct.pack("!BBHHHBBHII", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, address, _NETWORK + 1)
    frame = bytes(12) + struct.pack("!H", 0x0800) + ip + udp
    return struct.pack("<4I", _BEGIN, number, len(frame), len(frame)) + frame
