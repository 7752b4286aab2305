"""A piece of memory as a file that nobody can change any more: how a process leaves word to whom it becomes.

memfd_create(2) with every seal of fcntl(2) set. It lives as long as somebody holds its descriptor, survives execve(2),
and can be handed to systemd's descriptor store; no disk is involved, so a full one is no obstacle.
"""

from __future__ import annotations

import fcntl
import os

SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def seal(name: str, data: bytes) -> int:
    """A descriptor (close-on-exec) of a sealed file of that content. ``name`` is for /proc only. Raises ``OSError``."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.fchmod(fd, 0o600)
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def read(fd: int, limit: int) -> bytes:
    """The content of a sealed file. Raises ``OSError`` for what is none, and for more than ``limit`` bytes.

    Without every seal it could still be changed by whoever else holds it, and is not believed; nor is another user's.
    """
    if fcntl.fcntl(fd, fcntl.F_GET_SEALS) & SEALS != SEALS:
        raise OSError(f"descriptor {fd} is not sealed")
    found = os.fstat(fd)
    if found.st_uid != os.geteuid():
        raise OSError(f"descriptor {fd} is of user {found.st_uid}, and we are {os.geteuid()}")
    size = found.st_size
    if size > limit:
        raise OSError(f"descriptor {fd} holds {size} bytes, more than {limit}")
    content = bytearray()
    while len(content) < size:
        content += os.pread(fd, size - len(content), len(content))
    return bytes(content)
