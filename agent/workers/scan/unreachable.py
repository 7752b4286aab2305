"""ICMP messages that say that a probe went nowhere: their codes in nmap's words, and where they quote it. Pure but for
``told``.

Such a message comes from a host, or from whatever stands before it; either way it is no answer of the port. A code that
says nothing of the way to the port (a wrong type of service, a route that was asked for) is no reason.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

TYPES: Final = (3, 11)
"""Destination unreachable and time exceeded, RFC 792."""

TYPES6: Final = (1, 3)
"""The same in IPv6, RFC 4443, 3.1 and 3.3."""

REASONS: Final = {
    (3, 0): "net-unreach",
    (3, 1): "host-unreach",
    (3, 2): "proto-unreach",
    (3, 3): "port-unreach",
    (3, 9): "net-prohibited",
    (3, 10): "host-prohibited",
    (3, 13): "admin-prohibited",
    (11, 0): "time-exceeded",
}
"""By type and code, RFC 792 and RFC 1812, 5.2.7.1."""

REASONS6: Final = {
    (1, 0): "net-unreach",
    (1, 1): "admin-prohibited",
    (1, 2): "net-unreach",
    (1, 3): "host-unreach",
    (1, 4): "port-unreach",
    (1, 5): "admin-prohibited",
    (1, 6): "net-unreach",
    (3, 0): "time-exceeded",
}
"""By type and code, RFC 4443, 3.1 and 3.3, in the words for the same of IPv4: what is stored knows no other."""

IP_RECVERR: Final = 11  # linux/in.h
IPV6_RECVERR: Final = 25  # linux/in6.h

_MSG_ERRQUEUE = 0x2000  # linux/socket.h
_EXTENDED_ERROR = struct.Struct("=IBBB")  # how struct sock_extended_err begins, linux/errqueue.h
_ORIGIN_ICMP, _ORIGIN_ICMP6 = 2, 3
_CONTROL = 512

_HEADER = 8  # of the message, before what it quotes
_HEADER6 = 40  # of an IPv6 packet, RFC 8200, 3


def ip_header(packet: memoryview | bytes, at: int, length: int) -> int:
    """How long an IPv4 header at ``at`` is, RFC 791, 3.1; 0 when there is none. The packet ends at ``length``."""
    if length < at + 20 or packet[at] >> 4 != 4:
        return 0
    long = (packet[at] & 0x0F) * 4
    return long if long >= 20 and length >= at + long else 0


def quoted(packet: memoryview | bytes, length: int, protocol: int) -> tuple[str, bytes, int] | None:
    """Of an IPv4 packet with such a message: the reason, whom the quoted packet was for, where its payload begins.

    ``None`` when it is another message, or what it quotes is not of that ``protocol`` or not a first fragment.
    """
    outer = ip_header(packet, 0, length)
    if not outer or length < outer + _HEADER:
        return None
    inner = outer + _HEADER
    reason, long = REASONS.get((packet[outer], packet[outer + 1])), ip_header(packet, inner, length)
    if reason is None or not long or packet[inner + 9] != protocol:
        return None
    if (packet[inner + 6] << 8 | packet[inner + 7]) & 0x1FFF:
        return None
    return reason, bytes(packet[inner + 16 : inner + 20]), inner + long


def quoted6(message: memoryview | bytes, length: int, protocol: int) -> tuple[str, bytes, int] | None:
    """The same of an ICMPv6 message without the IPv6 header before it.

    Our probes have no extension headers, so a quoted packet that has some is none of ours.
    """
    if length < _HEADER + _HEADER6:
        return None
    reason = REASONS6.get((message[0], message[1]))
    if reason is None or message[_HEADER] >> 4 != 6 or message[_HEADER + 6] != protocol:
        return None
    return reason, bytes(message[_HEADER + 24 : _HEADER + 40]), _HEADER + _HEADER6


def told(one: socket.SocketType) -> str | None:
    """The reason in the error queue of a socket with ``IP_RECVERR`` or ``IPV6_RECVERR``, ip(7); ``None`` when none is.

    The oldest that there is, and whatever it is, it is taken from the queue.
    """
    try:
        _, controls, _, _ = one.recvmsg(1, _CONTROL, _MSG_ERRQUEUE)
    except OSError:
        return None
    for _, _, data in controls:
        if len(data) >= _EXTENDED_ERROR.size:
            _, origin, kind, code = _EXTENDED_ERROR.unpack_from(data)
            if origin == _ORIGIN_ICMP:
                return REASONS.get((kind, code))
            if origin == _ORIGIN_ICMP6:
                return REASONS6.get((kind, code))
    return None
