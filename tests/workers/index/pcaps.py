"""Small pcap files for the tests of the index process."""

from __future__ import annotations

import struct
from pathlib import Path

HEADER = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1)
BEGIN = 1_795_183_200  # 2026-11-20 14:00:00 UTC


def datagram(source: int, port: int, size: int = 100) -> bytes:
    """An Ethernet frame of a UDP datagram from 10.0.0.``source`` to port ``port`` of 192.168.0.1."""
    udp = struct.pack("!4H", 40_000, port, size, 0)
    ip = struct.pack("!BBHHHBBHII", 0x45, 0, 20 + size, 0, 0, 64, 17, 0, 0x0A000000 + source, 0xC0A80001)
    return bytes(12) + b"\x08\x00" + ip + udp.ljust(size, b"x")


def record(second: float, frame: bytes) -> bytes:
    """A record of a file with nanoseconds, ``second`` seconds after ``BEGIN``."""
    whole, fraction = divmod(round(second * 1e9), 10**9)
    return struct.pack("<IIII", BEGIN + whole, fraction, len(frame), len(frame)) + frame


def records(count: int, first: int = 0) -> bytes:
    """Datagrams of ten hosts, a millisecond apart, numbered from ``first``."""
    return b"".join(record(number / 1000, datagram(number % 10, 53)) for number in range(first, first + count))


def segment(directory: Path, interface: str, second: int, content: bytes, suffix: str = ".pcap") -> Path:
    """A segment of a store, named by a second of the hour that begins at ``BEGIN``."""
    place = directory / interface
    place.mkdir(parents=True, exist_ok=True)
    path = place / f"20261120T14{second // 60:02}{second % 60:02}.000000Z{suffix}"
    path.write_bytes(HEADER + content)
    return path
