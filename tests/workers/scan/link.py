"""A way between two network namespaces that delays, loses and limits packets, by the address at its far end.

netem does that in the kernel, but not every kernel has it; and what is lost here is the same each time. Run as a
program in the namespace of who scans: ``link.py NAMESPACE WAYS``, the other namespace's file and a JSON object of
``{address: [delay, loss, cap]}``. Makes the interface ``way`` in both, says ``ready``, and ends with its standard
input.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import random
import select
import socket
import struct
import sys
import time
from collections import deque

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000  # linux/if_tun.h
CLONE_NEWNET = 0x40000000
NAME = b"way"
TURN = 512
"""Packets that are taken from one end before the other has its turn."""
BURST = 0.2
"""Seconds for which a limit may be exceeded."""
SEED = 5

Held = deque[tuple[float, int, bytes]]


def tunnel() -> int:
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", NAME, IFF_TUN | IFF_NO_PI))
    return fd


def tunnel_in(namespace: str) -> int:
    """The same in another network namespace, into which this process goes for good."""
    with open(namespace) as there:  # noqa: PTH123  # of /run/netns, of which only the descriptor counts
        if ctypes.CDLL(None, use_errno=True).setns(there.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    return tunnel()


class Bucket:
    """Passes ``rate`` packets a second, and ``BURST`` seconds' worth at once."""

    def __init__(self, rate: int) -> None:
        self._rate, self._full = rate, rate * BURST
        self._level, self._last = self._full, time.monotonic()

    def passes(self, now: float) -> bool:
        self._level = min(self._full, self._level + (now - self._last) * self._rate)
        self._last = now
        if self._level < 1:
            return False
        self._level -= 1
        return True


def carry(near: int, far: int, ways: dict[bytes, tuple[float, float, Bucket | None]]) -> None:
    held: dict[float, Held] = {delay: deque() for delay, _, _ in ways.values()}
    chance = random.Random(SEED).random
    other = {near: (far, 16, 20), far: (near, 12, 16)}  # where the far address is in an IPv4 header, RFC 791
    poller = select.epoll()
    for fd in (near, far, 0):
        poller.register(fd, select.EPOLLIN)
    while True:
        due = min((queue[0][0] for queue in held.values() if queue), default=None)
        ready = dict(poller.poll(None if due is None else max(0.0, due - time.monotonic())))
        if 0 in ready and not os.read(0, 4096):
            return
        for fd in other:
            if fd not in ready:
                continue
            target, start, end = other[fd]
            now = time.monotonic()
            for _ in range(TURN):
                try:
                    packet = os.read(fd, 65536)
                except BlockingIOError:
                    break
                way = ways.get(packet[start:end])
                if way is None:
                    continue
                delay, loss, bucket = way
                if (loss and chance() < loss) or (bucket and fd == near and not bucket.passes(now)):
                    continue
                held[delay].append((now + delay, target, packet))
        now = time.monotonic()
        for queue in held.values():
            while queue and queue[0][0] <= now:
                _, target, packet = queue.popleft()
                try:
                    os.write(target, packet)
                except BlockingIOError:  # its queue is full: a loss as on any other way
                    continue


if __name__ == "__main__":
    parameters = {
        socket.inet_aton(address): (delay, loss, Bucket(cap) if cap else None)
        for address, (delay, loss, cap) in json.loads(sys.argv[2]).items()
    }
    ends = tunnel(), tunnel_in(sys.argv[1])
    print("ready", flush=True)
    carry(*ends, parameters)
