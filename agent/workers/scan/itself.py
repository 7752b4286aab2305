"""Sockets of this host that meet themselves, where a scan asks addresses of its own host.

The kernel picks the port that a socket is sent from (``ip_local_port_range``, ip(7)). If that is the one that is asked,
TCP connects to itself, as both ends open at once (RFC 9293, 3.5), and UDP hears its own question as an answer.
"""

from __future__ import annotations

import socket


def met_itself(one: socket.SocketType) -> bool:
    """Whether both ends of a connected socket are the same: then nobody else listens there."""
    try:
        return bool(one.getsockname() == one.getpeername())
    except OSError:  # whoever it was has gone again
        return False
