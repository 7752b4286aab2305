"""Who is at the other end of a Unix socket, as the kernel says.

Identity is what the peer was when it connected, SO_PEERCRED and SO_PEERGROUPS of unix(7) and socket(7). Reading the
groups from /proc/PID/status instead would ask about whoever has that PID by now, and the user database may list groups
that the peer's process has dropped.
"""

from __future__ import annotations

import grp
import os
import pwd
import socket
import struct
from dataclasses import dataclass

_SO_PEERGROUPS = 59  # asm-generic/socket.h, Linux 4.13
_UCRED = struct.Struct("iII")  # struct ucred: pid, uid, gid
_GETSOCKOPT_LIMIT = 1024  # bytes that Python's getsockopt can return: 256 groups


@dataclass(frozen=True, slots=True)
class PeerCredentials:
    """The peer as it connected. ``pid`` is 0 for a process of another PID namespace, and proves nothing later on."""

    pid: int
    uid: int
    gid: int
    groups: tuple[int, ...] = ()


def peer_credentials(connection: socket.socket) -> PeerCredentials:
    """The credentials of the peer of a connected Unix socket. Raises ``OSError`` on any other kind."""
    pid, uid, gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    try:
        data = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GETSOCKOPT_LIMIT)
        groups = struct.unpack(f"{len(data) // 4}I", data)
    except OSError:  # more than 256 of them (ERANGE), or an older kernel
        groups = groups_of(uid, gid)
    return PeerCredentials(pid, uid, gid, groups)


def groups_of(uid: int, gid: int) -> tuple[int, ...]:
    """The supplementary groups that the user database gives ``uid``; empty for an unknown user.

    Second best: it says what the user may have, not what the peer has, and with a directory service it can be slow.
    """
    try:
        return tuple(os.getgrouplist(pwd.getpwuid(uid).pw_name, gid))
    except (KeyError, OSError):
        return ()


def is_member(credentials: PeerCredentials, group: str) -> bool:
    """Whether the peer belongs to the named group, primary or supplementary. Nobody belongs to an unknown one."""
    try:
        wanted = grp.getgrnam(group).gr_gid
    except KeyError:
        return False
    return wanted == credentials.gid or wanted in credentials.groups
