"""One at a time: whoever changes what is installed, or the timers of jobs, which lie among the same units.

Two installations, even for different prefixes, would lay the same units and accounts; so root's lock is one for the
whole system, in ``/run``. Somebody who is not root may only lay a tree below a prefix of his own: his lock lies in the
first directory on the way there that he may write to, which exists before the prefix does and is the same for all who
are on that way. It is a file that others can neither open nor lock, and is there only while it is held.
"""

from __future__ import annotations

import fcntl
import os
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from agent.errors import RuntimeFailure
from agent.linux.files import flock_holder
from agent.linux.rooted import directory

RUN = "/run"

SILENCE = 1.0
"""Seconds after which it is told for whom we wait."""

PAUSE = 0.05

DOING = "installing, uninstalling or changing timers"

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@contextmanager
def only_one(root: Path, prefix: str, *, wait: bool = False) -> Iterator[None]:
    """While the block runs, no other process changes an installation below ``root``.

    Raises ``RuntimeFailure``, at once unless ``wait``, when another one does, and for a lock that is none. A wait of
    more than a moment is told on stderr. Who may write nowhere on the way can change nothing, and needs no lock.
    """
    above = _place(root, prefix)
    if above is None:
        yield
        return
    name = f".agentctl-{os.geteuid()}.lock"
    try:
        lock = _acquired(above, name, wait=wait)
        try:
            try:
                yield
            finally:
                with suppress(OSError):  # what is left of it is found, and taken, by the next one
                    os.unlink(name, dir_fd=above)
        finally:
            os.close(lock)
    finally:
        os.close(above)


def _place(root: Path, prefix: str) -> int | None:
    """The directory that the lock lies in."""
    for path in (RUN, *map(str, reversed(PurePosixPath(prefix).parents)), prefix):
        try:
            with directory(root, path) as found:
                if os.access(".", os.W_OK | os.X_OK, dir_fd=found, effective_ids=True):
                    return os.dup(found)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue
        except OSError as error:
            raise RuntimeFailure(f"{path}: cannot be opened for locking: {error.strerror}") from error
    return None


def _acquired(above: int, name: str, *, wait: bool) -> int:
    """The lock, held."""
    silent_until = time.monotonic() + SILENCE
    while True:
        lock = _opened(above, name)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is(above, name, lock):  # or else whoever had it has removed it since it was opened
                lock, held = -1, lock
                return held
        except BlockingIOError:
            holder = flock_holder(lock)
            who = f"process {holder}" if holder else "another process"
            if not wait:
                raise RuntimeFailure(f"{who} is just {DOING}: wait for it, then try again") from None
            if time.monotonic() > silent_until:
                with suppress(OSError):
                    print(f"agentctl: waiting for {who}, which is just {DOING}", file=sys.stderr, flush=True)
                silent_until = float("inf")
            time.sleep(PAUSE)
        except OSError as error:
            raise RuntimeFailure(f"{_where(above, name)}: cannot be locked: {error.strerror}") from error
        finally:
            if lock >= 0:
                os.close(lock)


def _opened(above: int, name: str) -> int:
    try:
        lock = os.open(name, _FLAGS, 0o600, dir_fd=above)
    except OSError as error:
        raise RuntimeFailure(f"{_where(above, name)}: cannot be opened for locking: {error.strerror}") from error
    found = os.fstat(lock)
    # Another's, or one that others could open too, would be theirs to hold for as long as they like.
    private = found.st_uid == os.geteuid() and not found.st_mode & 0o077 and found.st_nlink < 2
    if not (private and stat.S_ISREG(found.st_mode)):
        os.close(lock)
        raise RuntimeFailure(f"{_where(above, name)}: is no lock of agentctl's: remove it")
    return lock


def _where(above: int, name: str) -> Path:
    return Path(f"/proc/self/fd/{above}").readlink() / name


def _is(above: int, name: str, lock: int) -> bool:
    try:
        return os.path.samestat(os.stat(name, dir_fd=above, follow_symlinks=False), os.fstat(lock))
    except FileNotFoundError:
        return False
