"""The sockets of this network namespace that wait for strangers, as the kernel lists them: sock_diag(7).

Anybody may ask, and of each the kernel tells whose it is and, since Linux 5.8, in which cgroup it was made: that is all
an unprivileged process learns about a socket of somebody else's process. Constants are those of linux/inet_diag.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Iterator
from typing import NamedTuple

from agent.linux import netlink

_NETLINK_SOCK_DIAG = 4  # linux/netlink.h
_SOCK_DIAG_BY_FAMILY = 20  # linux/sock_diag.h
_SKV6ONLY, _CGROUP_ID = 11, 21  # INET_DIAG_*, the types of attributes

_REQUEST = struct.Struct("=BBBxI48s")  # struct inet_diag_req_v2: family, protocol, extensions, states, id
_MESSAGE = struct.Struct("=4B2H16s16sI8s5I")  # struct inet_diag_msg; the ports within are big-endian

_LISTEN = 1 << 10  # TCP_LISTEN, net/tcp_states.h
_UNCONNECTED = 1 << 7  # TCP_CLOSE: of UDP, a socket without a peer

_BLOCK = 1 << 20
MOST = 100_000
"""Sockets that are looked at, of each protocol and family."""


class Bound(NamedTuple):
    """One socket that takes what strangers send. ``address`` is as ``inet_ntop`` writes it, of a wildcard ``::``.

    ``dual``: an IPv6 wildcard that takes IPv4 too. ``cgroup`` is the inode of its directory, 0 where the kernel does
    not tell. ``interface`` is the index of the one it is bound to, 0 for any.
    """

    protocol: str
    family: int
    address: str
    port: int
    uid: int
    inode: int
    cgroup: int
    dual: bool
    interface: int


def bound() -> list[Bound]:
    """TCP sockets that listen, and UDP sockets that are bound and have no peer. Raises ``OSError``."""
    found: list[Bound] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as asking:
        asking.settimeout(5.0)
        asking.bind((0, 0))
        sequence = 0
        for protocol, number, states in (
            ("tcp", socket.IPPROTO_TCP, _LISTEN),
            ("udp", socket.IPPROTO_UDP, _UNCONNECTED),
        ):
            for family in (socket.AF_INET, socket.AF_INET6):
                sequence += 1
                body = _REQUEST.pack(family, number, 0, states, bytes(48))
                flags = netlink.NLM_F_REQUEST | netlink.NLM_F_DUMP
                asking.sendto(netlink.message(_SOCK_DIAG_BY_FAMILY, flags, sequence, body), (0, 0))
                of_one = [one for one in _answers(asking, sequence, protocol) if one.port]
                found += of_one[:MOST]
    return found


def _answers(asking: socket.socket, sequence: int, protocol: str) -> Iterator[Bound]:
    """What the kernel answers to one request, to its end."""
    while True:
        data, sender = asking.recvfrom(_BLOCK)
        if sender[0] != 0:  # any process may send to us; the kernel is port 0
            continue
        for kind, number, payload in netlink.messages(data):
            if number != sequence:
                continue
            if kind == netlink.NLMSG_DONE:
                return
            if kind == netlink.NLMSG_ERROR:
                raise netlink.error(payload) or OSError(errno.EPROTO, os.strerror(errno.EPROTO))
            if (one := parse(payload, protocol)) is not None:
                yield one


def parse(payload: bytes, protocol: str) -> Bound | None:
    """A ``struct inet_diag_msg`` with its attributes; ``None`` for one that is none or has a peer."""
    if len(payload) < _MESSAGE.size:
        return None
    family, *_, sport, dport, source, _destination, interface, _cookie, _, _, _, uid, inode = _MESSAGE.unpack_from(
        payload
    )
    if family not in (socket.AF_INET, socket.AF_INET6) or dport:
        return None
    address = socket.inet_ntop(family, source[: 4 if family == socket.AF_INET else 16])
    v6only, cgroup = True, 0
    for kind, value in netlink.attributes(payload, _MESSAGE.size):
        if kind == _SKV6ONLY and value:
            v6only = bool(value[0])
        elif kind == _CGROUP_ID and len(value) == 8:
            cgroup = int.from_bytes(value, sys.byteorder)
    dual = family == socket.AF_INET6 and address == "::" and not v6only
    return Bound(protocol, family, address, socket.ntohs(sport), uid, inode, cgroup, dual, interface)
