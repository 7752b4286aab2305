"""The SSH connection that a command runs in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

_LONGEST_CHAIN = 64
"""Ancestors that are looked at."""


class Connection(NamedTuple):
    """The two ends of a TCP connection."""

    client: str
    client_port: int
    server: str
    server_port: int


def connection(environment: Mapping[str, str]) -> Connection | None:
    """The connection by which whoever typed this command is logged in; ``None`` when there is none, or none is found.

    sshd(8) tells it in SSH_CONNECTION. Where sudo(8) has dropped that, it is the connection of the nearest ancestor
    that is an sshd, if we may look at it.
    """
    words = environment.get("SSH_CONNECTION", "").split()
    if len(words) == 4 and words[1].isdecimal() and words[3].isdecimal():
        return Connection(_plain(words[0]), int(words[1]), _plain(words[2]), int(words[3]))
    return _of_an_ancestor()


def _of_an_ancestor() -> Connection | None:
    import psutil

    try:
        process = psutil.Process(os.getpid())
        for _ in range(_LONGEST_CHAIN):
            parent = process.parent()
            if parent is None:
                return None
            process = parent
            if process.name().startswith("sshd"):
                for held in process.net_connections("tcp"):
                    if held.status == psutil.CONN_ESTABLISHED and held.raddr:
                        there, here = held.raddr, held.laddr
                        return Connection(_plain(there.ip), there.port, _plain(here.ip), here.port)
    except psutil.Error:
        return None
    return None


def _plain(address: str) -> str:
    """An address without its zone; one of IPv4 that an IPv6 socket shows as mapped is shown as it is."""
    return address.partition("%")[0].removeprefix("::ffff:")
