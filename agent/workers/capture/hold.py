"""Who works on an open segment: flock(2) on the file, from before it is called one until it has its last name.

A segment is made under a scratch name, locked, and only then called ``.part``; whoever makes it keeps a descriptor of
its own for the lock, beside the one that is written by, and lets go once the segment is called ``.pcap`` or is gone. So
a ``.part`` that nobody holds is one whose process has ended. The kernel lets go for who dies.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from contextlib import suppress
from pathlib import Path

from agent.linux.files import open_regular
from agent.workers.capture.naming import OPEN, parse_name

_SCRATCH = re.compile(r"\.(\d{8}T\d{6}\.\d{6}Z\.part)\.[0-9a-f]{8}", re.ASCII)


class Hold:
    """The lock on what ``fd`` is open on, by a duplicate of it; a file system without locks is no obstacle.

    ``wait`` for whoever only looks whether it is held. Else ``BlockingIOError`` is raised when somebody has it.
    """

    def __init__(self, fd: int, *, wait: bool = False) -> None:
        self._fd = os.dup(fd)
        try:
            #: Whether there are locks there at all.
            self.sure = _locked(self._fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise

    def release(self) -> None:
        """Let go. Twice does no harm."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def scratch(part: Path) -> Path:
    """Where to make a segment that is to be called ``part``: nobody takes that name for a segment."""
    return part.with_name(f".{part.name}.{secrets.token_hex(4)}")


def is_scratch(name: str) -> bool:
    """Whether this is such a name."""
    found = _SCRATCH.fullmatch(name)
    return found is not None and parse_name(found[1]) is not None


def claim(part: Path, *, alone: bool) -> Hold | None:
    """Take over an open segment that nobody holds any more; ``None`` when somebody does, or it is no longer called so.

    Where there are no locks it is taken for held unless we are ``alone``. Raises ``OSError`` when it cannot be opened.
    """
    try:
        fd = open_regular(part, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        hold = Hold(fd)
        # Whoever let go just now may have renamed it before.
        if (hold.sure or alone) and _same(part, fd):
            return hold
        hold.release()
    except BlockingIOError:
        pass
    finally:
        os.close(fd)
    return None


def busy(place: Path) -> bool:
    """Whether a process is writing a segment in this directory, as far as locks tell. Raises ``OSError``."""
    return any(
        _held(place / name)
        for name in os.listdir(place)  # noqa: PTH208  # names, and nothing else
        if name.endswith(OPEN) or is_scratch(name)
    )


def _held(path: Path) -> bool:
    with suppress(OSError):
        fd = open_regular(path, os.O_RDWR)
        try:
            Hold(fd).release()
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
    return False


def _locked(fd: int, how: int) -> bool:
    try:
        fcntl.flock(fd, how)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def _same(path: Path, fd: int) -> bool:
    with suppress(OSError):
        return os.path.samestat(path.stat(follow_symlinks=False), os.fstat(fd))
    return False
