"""What leaves an interface, of this network namespace or another: every packet, whom it is for, and when it left."""

from __future__ import annotations

import ctypes
import select
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from ipaddress import ip_address
from typing import NamedTuple

CLONE_NEWNET = 0x40000000  # linux/sched.h
ETH_P_ALL = 3
SO_TIMESTAMPNS = 35
SO_RCVBUFFORCE = 33
SOL_PACKET, PACKET_STATISTICS = 263, 6  # linux/if_packet.h
_OUTGOING = 4  # PACKET_OUTGOING, linux/if_packet.h
_ARP, _IPV4, _IPV6 = 0x0806, 0x0800, 0x86DD
_NEIGHBOUR_SOLICITATION = 135  # RFC 4861, 4.3


class Sent(NamedTuple):
    """``at`` is when the kernel handed it to the interface, in unix seconds; ``to`` is who is asked or asked for.

    ``what`` is one of ``arp`` (also its like of IPv6), ``icmp``, ``syn PORT``, ``tcp PORT`` (all else that is TCP),
    ``udp PORT`` and ``ip``.
    """

    at: float
    to: str
    what: str


class Wire:
    """What has been sent since it was opened."""

    def __init__(self, namespace: str | None, interface: str) -> None:
        with entered(namespace) if namespace else nullcontext():
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)  # without what is before IP
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 * 1024 * 1024)
        self._socket.bind((interface, ETH_P_ALL))
        self.sent: list[Sent] = []
        self.dropped = 0
        """Packets that the kernel could not hand over; known when it is closed."""
        self._over, self._end = socket.socketpair()
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def to(self) -> set[str]:
        """Whom packets were for."""
        return {one.to for one in self.sent}

    def probes(self, *kinds: str, since: int = 0) -> Counter[tuple[str, str]]:
        """How often each was sent, by ``(to, what)``, of these kinds (``syn``, ``udp``), from packet ``since`` on."""
        return Counter((one.to, one.what) for one in self.sent[since:] if one.what.partition(" ")[0] in kinds)

    def close(self) -> None:
        """Take in what has been sent until now, and stop."""
        self._end.close()
        self._thread.join()
        self._over.close()
        self.dropped = int(struct.unpack("II", self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[1])
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
        if (probe := _probe(address[1], data)) is not None:
            self.sent.append(Sent(seconds + nanoseconds / 1e9, *probe))


def _probe(protocol: int, data: bytes) -> tuple[str, str] | None:
    """Who is asked, and what. Headers as in RFC 826, 791, 8200, 9293 and 768, without options of IPv6."""
    if protocol == _ARP:
        return str(ip_address(data[24:28])), "arp"
    if protocol == _IPV4:
        return str(ip_address(data[16:20])), _what(data[9], data[4 * (data[0] & 15) :])
    if protocol != _IPV6:
        return None
    if data[6] == socket.IPPROTO_ICMPV6 and data[40] == _NEIGHBOUR_SOLICITATION:
        return str(ip_address(data[48:64])), "arp"
    return str(ip_address(data[24:40])), _what(data[6], data[40:])


def _what(protocol: int, data: bytes) -> str:
    match protocol:
        case socket.IPPROTO_ICMP | socket.IPPROTO_ICMPV6:
            return "icmp"
        case socket.IPPROTO_TCP:
            return f"{'syn' if data[13] & 0x12 == 0x02 else 'tcp'} {int.from_bytes(data[2:4], 'big')}"
        case socket.IPPROTO_UDP:
            return f"udp {int.from_bytes(data[2:4], 'big')}"
        case _:
            return "ip"


@contextmanager
def wire(namespace: str | None, interface: str = "wire") -> Iterator[Wire]:
    """Listens while the block runs; what was sent in it is complete after it."""
    listening = Wire(namespace, interface)
    try:
        yield listening
    finally:
        listening.close()


@contextmanager
def entered(namespace: str) -> Iterator[None]:
    """This thread is in a network namespace of ``ip-netns(8)``; a socket that it makes there stays there."""
    with open("/proc/thread-self/ns/net") as back, open(f"/run/netns/{namespace}") as there:  # noqa: PTH123  # descriptors
        _enter(there.fileno())
        try:
            yield
        finally:
            _enter(back.fileno())


def _enter(namespace: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
