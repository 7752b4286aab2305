"""Descriptors that systemd hands to a service as it starts it: sockets it listens on, and what the service stored.

The protocol of sd_listen_fds_with_names(3): they begin at 3, LISTEN_FDS tells how many, LISTEN_FDNAMES their names, and
LISTEN_PID for whom they are meant.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from contextlib import suppress

FIRST = 3
"""SD_LISTEN_FDS_START of sd-daemon.h."""

MOST = 65536
"""More than anybody would ever pass: as many as agent.service may have open (LimitNOFILE=)."""


def inherited(environ: MutableMapping[str, str] = os.environ, first: int = FIRST) -> dict[str, list[int]]:
    """The descriptors by name, close-on-exec from now on; those without a name under ``unknown``.

    Takes the three variables out of ``environ``, so that no child believes that they are for it. Empty when there are
    none, when they are for another process, and when what the variables say makes no sense.
    """
    count = environ.pop("LISTEN_FDS", "")
    meant = environ.pop("LISTEN_PID", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if meant != str(os.getpid()) or not (count.isascii() and count.isdigit() and len(count) < 6 and int(count) <= MOST):
        return {}
    found: dict[str, list[int]] = {}
    for position, fd in enumerate(range(first, first + int(count))):
        try:
            os.set_inheritable(fd, False)
        except OSError:  # announced, and not there
            continue
        name = names[position] if position < len(names) and names[position] else "unknown"
        found.setdefault(name, []).append(fd)
    return found


def listening_socket(fds: list[int]) -> socket.socket | None:
    """The first of these descriptors that is a listening Unix stream socket, as a socket that owns it."""
    for fd in fds:
        with suppress(OSError):
            candidate = socket.socket(fileno=fd)
            listens = candidate.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            if listens and candidate.family == socket.AF_UNIX and candidate.type == socket.SOCK_STREAM:
                candidate.setblocking(False)
                return candidate
            candidate.detach()
    return None
