"""The sockets of the SYN engine: raw ones that hear its answers alone, and the one that holds its port."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from agent.workers.capture.socket_filter import attach
from agent.workers.scan import synfilter
from agent.workers.scan.rawtcp import CHECKSUM_OFFSET
from agent.workers.scan.unreachable import TYPES, TYPES6

BUFFER: Final = 8 * 1024 * 1024
"""Bytes asked for as receive buffer; without ``CAP_NET_ADMIN`` the kernel gives net.core.rmem_max at most."""

HOP_LIMIT_SPACE: Final = socket.CMSG_SPACE(4)
"""Bytes of control data that come with what the socket for TCP over IPv6 receives."""

# asm-generic/socket.h, linux/in6.h, linux/icmp.h and linux/icmpv6.h, which Python does not name.
_SO_RCVBUFFORCE = 33
_IPV6_CHECKSUM = 7
_SOL_RAW, _ICMP_FILTER, _ICMP6_FILTER = 255, 1, 1


def hold_port(*, six: bool) -> tuple[socket.socket, int]:
    """A port that is ours while the socket lives: bound, and so given to nobody else, but nothing listens there."""
    held = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_STREAM)
    try:
        held.bind(("", 0))
    except BaseException:
        held.close()
        raise
    return held, int(held.getsockname()[1])


def open_tcp(port: int, zone: str, *, six: bool) -> socket.socket:
    """Sends segments, and hears what may be an answer to that port. ``zone`` is the only interface, if it is one.

    Of IPv4 the IP header is heard too. Raises ``OSError``: ``PermissionError`` without ``CAP_NET_RAW``.
    """
    if not six:
        return _open(socket.AF_INET, socket.IPPROTO_TCP, synfilter.answers(port), zone)
    made = _open(socket.AF_INET6, socket.IPPROTO_TCP, synfilter.answers6(port), zone)
    made.setsockopt(socket.IPPROTO_IPV6, _IPV6_CHECKSUM, CHECKSUM_OFFSET)  # the kernel makes it
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
    return made


def open_icmp(port: int, zone: str, *, six: bool) -> socket.socket:
    """Hears what is said of segments that went nowhere. Otherwise as ``open_tcp``."""
    if not six:
        made = _open(socket.AF_INET, socket.IPPROTO_ICMP, synfilter.errors(socket.IPPROTO_TCP, port), zone)
        made.setsockopt(_SOL_RAW, _ICMP_FILTER, _all_but(TYPES, 1))
        return made
    made = _open(socket.AF_INET6, socket.IPPROTO_ICMPV6, synfilter.errors6(socket.IPPROTO_TCP, port), zone)
    made.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, _all_but(TYPES6, 8))
    return made


def _open(family: int, protocol: int, program: bytes, zone: str) -> socket.socket:
    made = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
    try:
        attach(made, program)
        if zone:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, zone.encode())
        try:
            made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, BUFFER)
        except PermissionError:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        with suppress(BlockingIOError):  # what came before the filter was there
            while made.recv(1):
                pass
    except BaseException:
        made.close()
        raise
    return made


def _all_but(types: Sequence[int], words: int) -> bytes:
    """``struct icmp_filter`` or ``struct icmp6_filter``, of so many words: a bit for each type that is not wanted."""
    return struct.pack(f"={words}I", sum(1 << kind for kind in types) ^ 0xFFFFFFFF, *[0xFFFFFFFF] * (words - 1))
