"""Numbered datagrams of 256 flows, on a pair of interfaces. Run as a program: ``wire.py FIRST COUNT PACE``.

``PACE`` is how many a second; 0 is as many as there can be.
"""

from __future__ import annotations

import socket
import struct
import sys
import time

PORT = 4739
FILTER = f"udp dst port {PORT}"
FLOWS = 256
LENGTH = 46
"""Bytes of a frame."""


class Wire:
    """What is sent into ``near`` comes out of its peer."""

    def __init__(self, first: int = 0) -> None:
        self._raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self._raw.bind(("near", 0))
        self.sent = first

    def send(self, count: int) -> None:
        for number in range(self.sent, self.sent + count):
            self._raw.send(frame(number))
        self.sent += count

    def close(self) -> None:
        self._raw.close()


def frame(number: int) -> bytes:
    """An Ethernet frame that carries a number."""
    ports = struct.pack("!HHHH", 1024 + number % FLOWS, PORT, 12, 0)
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 32, 0, 0, 64, 17, 0, b"\x0a\0\0\1", b"\x0a\0\0\2")
    return b"\xff" * 6 + b"\x02\0\0\0\0\1" + b"\x08\0" + head + ports + struct.pack("!I", number)


def number(data: bytes) -> int:
    """The number in such a frame."""
    return int.from_bytes(data[42:46], "big")


if __name__ == "__main__":
    first, count, pace = map(int, sys.argv[1:])
    wire = Wire(first)
    began = time.monotonic()
    while wire.sent < first + count:
        wire.send(min(50, first + count - wire.sent))
        if pace:
            time.sleep(max(0.0, began + (wire.sent - first) / pace - time.monotonic()))
