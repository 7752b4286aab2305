"""Network interfaces that come, go, and change: the kernel tells, and we look.

What it tells is taken for a sign that something has changed, and no more: messages can be lost, and whoever is woken
asks for the whole list anyway. rtnetlink(7).
"""

from __future__ import annotations

import socket
from contextlib import suppress

from agent.linux import netlink

_RTMGRP_LINK = 1  # linux/rtnetlink.h
_RTM_NEWLINK, _RTM_DELLINK = 16, 17

_MESSAGE = 65536  # bytes
_MOST = 64  # datagrams at a time


class LinkWatch:
    """``fd`` polls readable when there is something to ``heed``. Raises ``OSError`` where that is not permitted."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        try:
            self._socket.bind((0, _RTMGRP_LINK))
        except BaseException:
            self._socket.close()
            raise
        self.fd = self._socket.fileno()

    def heed(self) -> bool:
        """Take in what was told; whether an interface came, went or changed, or may have. Never blocks."""
        changed = False
        for _ in range(_MOST):
            try:
                data, sender = self._socket.recvfrom(_MESSAGE)
            except BlockingIOError:
                break
            except OSError:  # ENOBUFS: there was more than the socket holds
                changed = True
                continue
            # Any process may send to us; the kernel is port 0.
            changed |= sender[0] == 0 and speaks_of_links(data)
        return changed

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()


def speaks_of_links(data: bytes) -> bool:
    """Whether one of the netlink messages in ``data`` is about an interface."""
    return any(kind in (_RTM_NEWLINK, _RTM_DELLINK) for kind, _, _ in netlink.messages(data))


def interface_names() -> list[str]:
    """The names of all interfaces; none when the kernel does not tell."""
    with suppress(OSError):
        return [name for _, name in socket.if_nameindex()]
    return []
