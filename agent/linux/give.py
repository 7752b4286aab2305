"""Giving a file to another user, where others than root and we can exchange what a path leads to.

chown(2) by a path is what a hostile service waits for: a link, or another file, put there in time, would be given away
instead. So what is found is held first, looked at, and given by that hold.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

from agent.linux.capabilities import acting
from agent.linux.capability_sets import mask

_HOLD = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_CHOWN = mask(["CAP_CHOWN"])

is_directory = stat.S_ISDIR
is_file = stat.S_ISREG
is_socket = stat.S_ISSOCK


def give(path: Path, uid: int, gid: int, kind: Callable[[int], bool]) -> None:
    """Make what is at ``path``, and is of that kind, that user's and group's, if it is not: -1 leaves one as it is.

    A sandbox may forbid chown(2) even where it changes nothing. On the way to a directory there may be a link, if it is
    root's: an operator has put it there. Raises ``OSError`` (``ELOOP`` for any other link, ``EINVAL`` for what is of
    another kind or has a second name).
    """
    held = os.open(path, _HOLD)
    try:
        found = os.fstat(held)
        if stat.S_ISLNK(found.st_mode) and kind is is_directory:
            if found.st_uid != 0:
                raise OSError(errno.ELOOP, "is a symbolic link, and not root's", str(path))
            target = path.parent / os.readlink("", dir_fd=held)
            os.close(held)
            held = os.open(target, _HOLD)
            found = os.fstat(held)
        if stat.S_ISLNK(found.st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        if not kind(found.st_mode) or (kind is not is_directory and found.st_nlink != 1):
            raise OSError(errno.EINVAL, "is not what it should be", str(path))
        if uid in (-1, found.st_uid) and gid in (-1, found.st_gid):
            return
        with acting(_CHOWN):
            os.chown(f"/proc/self/fd/{held}", uid, gid)
    finally:
        os.close(held)
