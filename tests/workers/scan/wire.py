"""What leaves an interface, of this network namespace or another: every packet, whom it is for, and when it left."""

from __future__ import annotations

import ctypes
import select
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from ipaddress import ip_address
from typing import NamedTuple

CLONE_NEWNET = 0x40000000
ETH_P_ALL = 3
SO_TIMESTAMPNS = 35
SO_RCVBUFFORCE = 33
_OUTGOING = 4  # PACKET_OUTGOING, linux/if_packet.h
_ARP, _IPV4, _IPV6 = 0x0806, 0x0800, 0x86DD
_NEIGHBOUR_SOLICITATION = 135  # RFC 4861, 4.3


class Sent(NamedTuple):
    """``at`` is when the kernel handed it to the interface, in unix seconds; ``to`` is who is asked or asked for."""

    at: float
    to: str


class Wire:
    """What has been sent since it was opened."""

    def __init__(self, namespace: str | None, interface: str) -> None:
        with _entered(namespace) if namespace else nullcontext():
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 * 1024 * 1024)
        self._socket.bind((interface, ETH_P_ALL))
        self.sent: list[Sent] = []
        self._over, self._end = socket.socketpair()
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def to(self) -> set[str]:
        """Whom packets were for."""
        return {one.to for one in self.sent}

    def close(self) -> None:
        """Take in what has been sent until now, and stop."""
        self._end.close()
        self._thread.join()
        self._over.close()
        self._socket.close()

    def _listen(self) -> None:
        over = False
        while True:
            ready, _, _ = select.select([self._socket, self._over], [], [], 0 if over else None)
            over = over or self._over in ready
            if self._socket in ready:
                self._take()
            elif over:
                return

    def _take(self) -> None:
        data, more, _, address = self._socket.recvmsg(128, 128)
        if address[2] != _OUTGOING:
            return
        seconds, nanoseconds = struct.unpack("qq", more[0][2])
        if (to := _for_whom(address[1], data)) is not None:
            self.sent.append(Sent(seconds + nanoseconds / 1e9, to))


def _for_whom(protocol: int, data: bytes) -> str | None:
    data = data[14:]  # Ethernet
    if protocol == _ARP:
        return str(ip_address(data[24:28]))
    if protocol == _IPV4:
        return str(ip_address(data[16:20]))
    if protocol != _IPV6:
        return None
    solicits = data[6] == socket.IPPROTO_ICMPV6 and data[40] == _NEIGHBOUR_SOLICITATION
    return str(ip_address(data[48:64] if solicits else data[24:40]))


@contextmanager
def wire(namespace: str | None, interface: str = "wire") -> Iterator[Wire]:
    """Listens while the block runs; what was sent in it is complete after it."""
    listening = Wire(namespace, interface)
    try:
        yield listening
    finally:
        listening.close()


@contextmanager
def _entered(namespace: str) -> Iterator[None]:
    with open("/proc/thread-self/ns/net") as back, open(f"/run/netns/{namespace}") as there:  # noqa: PTH123  # descriptors
        _enter(there.fileno())
        try:
            yield
        finally:
            _enter(back.fileno())


def _enter(namespace: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
