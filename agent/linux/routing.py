"""Which way packets go to an address, and whether the neighbour that they go to is known: rtnetlink(7).

Asking needs no privilege, and the kernel answers a question before send(2) returns.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import Final, NamedTuple

from agent.linux import netlink
from agent.linux.netlink import INT, attribute, attributes

_RTMGRP_NEIGH = 4  # linux/rtnetlink.h
_RTM_NEWLINK, _RTM_GETLINK = 16, 18
_RTM_NEWROUTE, _RTM_GETROUTE, _RTM_NEWNEIGH, _RTM_GETNEIGH = 24, 26, 28, 30
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PREFSRC, _RTA_VIA = 1, 4, 5, 7, 18
_NDA_DST = 1  # linux/neighbour.h
_RTN_UNICAST = 1

_ROUTE = struct.Struct("=BBBBBBBBI")  # struct rtmsg: family, bits of the destination, …, type, flags
_ROUTE_TYPE = 7
_NEIGHBOUR = struct.Struct("=BxHiHBB")  # struct ndmsg: family, padding, interface, state, flags, type
_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg: family, padding, type, interface, flags, change
_IFF_NOARP = 0x80  # linux/if.h

_VALID: Final = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80
"""NUD_REACHABLE, STALE, DELAY, PROBE, NOARP, PERMANENT of linux/neighbour.h: packets go out at once."""
_FAILED: Final = 0x20

_MESSAGE = 65536  # bytes
_MOST = 256  # datagrams at a time


class Route(NamedTuple):
    """``source`` is the address that packets get, empty when the kernel does not say; ``direct`` without a router."""

    interface: int
    source: bytes
    direct: bool


class Routing:
    """Answers about this network namespace. ``fd`` polls readable when there is something to ``heed``."""

    def __init__(self) -> None:
        """Raises ``OSError`` where netlink is not permitted."""
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK
        self._asking = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        try:
            self._told = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        except BaseException:
            self._asking.close()
            raise
        try:
            self._told.bind((0, _RTMGRP_NEIGH))
        except BaseException:
            self.close()
            raise
        self.fd = self._told.fileno()

    def route(self, address: bytes, interface: int = 0) -> Route:
        """How a packet goes to an address (4 or 16 bytes), on that interface if one is given.

        Raises ``OSError`` with what sending would raise: ``ENETUNREACH``, ``EHOSTUNREACH``, ``EACCES``, ``EINVAL``.
        """
        asked = _ROUTE.pack(_family(address), len(address) * 8, 0, 0, 0, 0, 0, 0, 0) + attribute(_RTA_DST, address)
        if interface:
            asked += attribute(_RTA_OIF, INT.pack(interface))
        body = self._ask(_RTM_GETROUTE, _RTM_NEWROUTE, asked)
        found = dict(attributes(body, _ROUTE.size))
        out = found.get(_RTA_OIF, b"")
        return Route(
            INT.unpack(out)[0] if len(out) == INT.size else 0,
            found.get(_RTA_PREFSRC, b""),
            len(body) > _ROUTE_TYPE
            and body[_ROUTE_TYPE] == _RTN_UNICAST
            and _RTA_GATEWAY not in found
            and _RTA_VIA not in found,
        )

    def known(self, address: bytes, interface: int) -> bool | None:
        """Whether packets to a neighbour go out at once; ``None`` when that is not known yet, or had no answer."""
        asked = _NEIGHBOUR.pack(_family(address), 0, interface, 0, 0, 0) + attribute(_NDA_DST, address)
        try:
            body = self._ask(_RTM_GETNEIGH, _RTM_NEWNEIGH, asked)
        except OSError:
            return None
        return _state(body)

    def looks(self, interface: int) -> bool:
        """Whether the kernel looks for neighbours on an interface at all; on a tunnel it does not."""
        try:
            body = self._ask(_RTM_GETLINK, _RTM_NEWLINK, _LINK.pack(0, 0, interface, 0, 0))
        except OSError:
            return False
        return len(body) >= _LINK.size and not _LINK.unpack_from(body)[3] & _IFF_NOARP

    def heed(self) -> list[tuple[bytes, int, bool]]:
        """Neighbours of which something was decided: address, interface, and whether it is there. Never blocks."""
        found = []
        for _ in range(_MOST):
            try:
                data, sender = self._told.recvfrom(_MESSAGE)
            except BlockingIOError:
                break
            except OSError:  # ENOBUFS: there was more than the socket holds
                continue
            if sender[0] != 0:
                continue  # any process may send to us; the kernel is port 0
            for kind, _, body in netlink.messages(data):
                if kind == _RTM_NEWNEIGH and (state := _state(body)) is not None:
                    address = dict(attributes(body, _NEIGHBOUR.size)).get(_NDA_DST, b"")
                    found.append((address, _NEIGHBOUR.unpack_from(body)[2], state))
        return found

    def close(self) -> None:
        """Listen no more. Twice does no harm."""
        self._asking.close()
        self._told.close()

    def _ask(self, kind: int, answer: int, body: bytes) -> bytes:
        self._asking.send(netlink.message(kind, netlink.NLM_F_REQUEST, 0, body))
        data, sender = self._asking.recvfrom(_MESSAGE)
        for got, _, found in netlink.messages(data) if sender[0] == 0 else ():
            if got == answer:
                return found
            if got == netlink.NLMSG_ERROR and (refusal := netlink.error(found)) is not None:
                raise refusal
        raise OSError(errno.EPROTO, os.strerror(errno.EPROTO))


def _family(address: bytes) -> int:
    return socket.AF_INET if len(address) == 4 else socket.AF_INET6


def _state(body: bytes) -> bool | None:
    if len(body) < _NEIGHBOUR.size:
        return None
    state = _NEIGHBOUR.unpack_from(body)[3]
    return True if state & _VALID else False if state & _FAILED else None
