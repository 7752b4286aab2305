"""Sends the frames of a savefile over and over, at a rate, numbered on demand: ``replay INTERFACE FILE OPTIONS``.

What tcpreplay cannot: frames that differ in a number each, and a count of those sent that others can see at any time.
sendmmsg(2) takes 64 at a time, past the queueing discipline (packet(7), PACKET_QDISC_BYPASS), so that Python has no
work for each. It says ``begun`` before the first, and at the end ``{"sent", "seconds", "refused"}``: how many went
out, in what time, and how often the interface would not take more.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import json
import os
import select
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench import traffic

BATCH = 64
_PACKET_QDISC_BYPASS = 20  # linux/if_packet.h
_SOL_PACKET = 263

_VECTOR = np.dtype([("base", np.uint64), ("length", np.uint64)])
"""``struct iovec``."""
_MESSAGE = np.dtype(
    [
        ("name", np.uint64),
        ("name_length", np.uint64),
        ("vectors", np.uint64),
        ("vector_count", np.uint64),
        ("control", np.uint64),
        ("control_length", np.uint64),
        ("flags", np.uint64),
        ("sent", np.uint64),
    ]
)
"""``struct mmsghdr`` of a 64-bit system, padding and all."""


class Frames:
    """What is sent, in turn, as the messages of sendmmsg(2)."""

    def __init__(self, packets: traffic.Packets) -> None:
        self.records = packets.records.copy()  # to be written to, and to stay where it is
        self._starts = packets.starts
        self._vectors = np.zeros(len(packets.starts), _VECTOR)
        self._vectors["base"] = self.records.ctypes.data + packets.starts
        self._vectors["length"] = packets.lengths
        self._messages = np.zeros(len(packets.starts), _MESSAGE)
        self._messages["vectors"] = self._vectors.ctypes.data + np.arange(len(self._vectors)) * _VECTOR.itemsize
        self._messages["vector_count"] = 1

    def __len__(self) -> int:
        return len(self._messages)

    def message(self, number: int) -> int:
        """Where the message of that frame is."""
        return int(self._messages.ctypes.data) + number * _MESSAGE.itemsize

    def number(self, first: int, count: int, begin: int) -> None:
        """Number ``count`` frames from the one at ``begin`` on, as ``traffic.numbers`` reads them."""
        places = self._starts[begin : begin + count] + traffic.NUMBER_AT
        numbers = np.arange(first, first + count).astype(">u4").view(np.uint8).reshape(-1, 4)
        for column in range(4):
            self.records[places + column] = numbers[:, column]


def send(frames: Frames, interface: str, *, rate: float, limit: int, numbered: bool, shared: Any) -> dict[str, Any]:
    """Until ``limit`` frames are sent, or stdin ends. ``shared[0]`` is how many were, all the time."""
    sendmmsg = ctypes.CDLL(None, use_errno=True).sendmmsg
    sendmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)
    sent = refused = turns = 0
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender:
        sender.bind((interface, 0))
        sender.setsockopt(_SOL_PACKET, _PACKET_QDISC_BYPASS, 1)
        print("begun", flush=True)
        begun = time.monotonic()
        while sent < limit:
            turns += 1
            if turns % 64 == 0 and select.select([0], [], [], 0)[0]:
                break
            at = sent % len(frames)
            count = min(BATCH, len(frames) - at, limit - sent)
            if numbered:
                frames.number(sent, count, at)
            done = sendmmsg(sender.fileno(), frames.message(at), count, 0)
            if done < 0 and ctypes.get_errno() != errno.ENOBUFS:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            sent += max(done, 0)
            refused += done < 0
            shared[0] = sent
            if rate and (ahead := sent / rate - (time.monotonic() - begun)) > 0:
                time.sleep(ahead)
        seconds = time.monotonic() - begun
    return {"sent": sent, "seconds": seconds, "refused": refused}


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("interface")
    asked.add_argument("file", type=Path)
    asked.add_argument("--rate", type=float, default=0.0)
    asked.add_argument("--limit", type=int, default=1 << 62)
    asked.add_argument("--numbered", action="store_true")
    asked.add_argument("--count-in", type=Path)
    given = asked.parse_args()
    shared = np.memmap(given.count_in, np.uint64, "r+") if given.count_in else np.zeros(1, np.uint64)
    frames = Frames(traffic.read(given.file))
    how = {"rate": given.rate, "limit": given.limit, "numbered": given.numbered, "shared": shared}
    print(json.dumps(send(frames, given.interface, **how)), flush=True)


if __name__ == "__main__":
    main()
