"""The sockets of this network namespace that wait for strangers, as the kernel lists them: sock_diag(7).

Anybody may ask, and of each the kernel tells whose it is and, since Linux 5.8, in which cgroup it was made: that is all
an unprivileged process learns about a socket of somebody else's process. Constants are those of linux/inet_diag.h.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

_NETLINK_SOCK_DIAG = 4  # linux/netlink.h
_SOCK_DIAG_BY_FAMILY = 20  # linux/sock_diag.h
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_REQUEST, _NLM_F_DUMP = 0x1, 0x300
_SKV6ONLY, _CGROUP_ID = 11, 21  # INET_DIAG_*, the types of attributes

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_REQUEST = struct.Struct("=BBBxI48s")  # struct inet_diag_req_v2: family, protocol, extensions, states, id
_MESSAGE = struct.Struct("=4B2H16s16sI8s5I")  # struct inet_diag_msg; the ports within are big-endian
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr: length, type
_ERROR = struct.Struct("=i")

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
                head = _HEADER.pack(
                    _HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST | _NLM_F_DUMP, sequence, 0
                )
                asking.sendto(head + body, (0, 0))
                of_one = [one for one in _answers(asking, sequence, protocol) if one.port]
                found += of_one[:MOST]
    return found


def _answers(asking: socket.socket, sequence: int, protocol: str) -> Iterator[Bound]:
    """What the kernel answers to one request, to its end."""
    while True:
        data, sender = asking.recvfrom(_BLOCK)
        if sender[0] != 0:  # any process may send to us; the kernel is port 0
            continue
        for kind, number, payload in messages(data):
            if number != sequence:
                continue
            if kind == _NLMSG_DONE:
                return
            if kind == _NLMSG_ERROR:
                code = -_ERROR.unpack_from(payload)[0] if len(payload) >= _ERROR.size else 0
                raise OSError(code, os.strerror(code))
            if (one := parse(payload, protocol)) is not None:
                yield one


def messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """The netlink messages in ``data``: type, sequence number, payload."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, _, sequence, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size:
            return
        yield kind, sequence, data[offset + _HEADER.size : offset + length]
        offset += length + 3 & ~3  # NLMSG_ALIGN


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
    for kind, value in _attributes(payload[_MESSAGE.size :]):
        if kind == _SKV6ONLY and value:
            v6only = bool(value[0])
        elif kind == _CGROUP_ID and len(value) == 8:
            cgroup = int.from_bytes(value, "little" if struct.pack("=H", 1)[0] else "big")
    dual = family == socket.AF_INET6 and address == "::" and not v6only
    return Bound(protocol, family, address, socket.ntohs(sport), uid, inode, cgroup, dual, interface)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            return
        yield kind, data[offset + _ATTRIBUTE.size : offset + length]
        offset += length + 3 & ~3  # NLA_ALIGN
