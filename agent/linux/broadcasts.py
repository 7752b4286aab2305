"""The broadcast addresses of the networks that this host is on, as the kernel knows them.

It is asked for its routes of type broadcast, rtnetlink(7): they are there for each IPv4 network of an interface,
whether or not somebody has set a broadcast address on it.
"""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address

from agent.linux import netlink

_ROUTE = struct.Struct("=BBBBBBBBI")  # struct rtmsg, linux/rtnetlink.h
_RTM_NEWROUTE, _RTM_GETROUTE = 24, 26
_RTN_BROADCAST = 3
_RTA_DST = 1

_MESSAGE = 65536  # bytes
_MOST = 100_000  # messages: a host with more routes than this is asked for no more
_PATIENCE = 5.0  # seconds


def broadcast_addresses() -> list[str]:
    """IPv4 addresses, sorted. Raises ``OSError`` where the kernel may not be asked, or does not answer."""
    found: set[int] = set()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as asked:
        asked.settimeout(_PATIENCE)
        asked.bind((0, 0))
        question = _ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, _RTN_BROADCAST, 0)
        asked.sendto(netlink.message(_RTM_GETROUTE, netlink.NLM_F_REQUEST | netlink.NLM_F_DUMP, 1, question), (0, 0))
        for _ in range(_MOST):
            data, sender = asked.recvfrom(_MESSAGE)
            if sender[0] == 0 and _take(data, found):  # any process may send to us; the kernel is port 0
                break
    return [str(IPv4Address(number)) for number in sorted(found)]


def _take(data: bytes, found: set[int]) -> bool:
    """Read the messages of one datagram; whether the answer is complete. Raises ``OSError`` for a refusal."""
    for kind, _, payload in netlink.messages(data):
        if kind == netlink.NLMSG_DONE:
            return True
        if kind == netlink.NLMSG_ERROR and (refusal := netlink.error(payload)) is not None:
            raise refusal
        if kind == _RTM_NEWROUTE:
            found |= destinations(payload)
    return False


def destinations(message: bytes) -> set[int]:
    """The address of one route, if it is one of broadcast to a single address."""
    if len(message) < _ROUTE.size:
        return set()
    family, bits, *_, kind, _flags = _ROUTE.unpack_from(message)
    if (family, bits, kind) != (socket.AF_INET, 32, _RTN_BROADCAST):
        return set()
    value = dict(netlink.attributes(message, _ROUTE.size)).get(_RTA_DST, b"")
    return {int.from_bytes(value, "big")} if len(value) == 4 else set()
