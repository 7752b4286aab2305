"""The end of a segment: it gets its name, which tells others that it is complete, and its account beside it.

Several processes may do so in one directory. The account is made first and only where there is none: whoever makes it
has the name. Only then the segment is renamed, and never over something. So a segment is never seen without its
account, unless the disk would not even take that.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from agent.linux.libc import rename_noreplace
from agent.workers.capture.account import Account
from agent.workers.capture.catalogue import ACCOUNT
from agent.workers.capture.naming import CLOSED, segment_name

_STEP = 1000
"""Nanoseconds: the next name there is."""

_MODE = 0o640


class Finished(NamedTuple):
    """A complete segment: ``begin`` is the instant in its name, ``beside`` how many bytes its account takes.

    ``missing`` is why there is no account, if so.
    """

    path: Path
    begin: int
    beside: int
    missing: OSError | None


def finish(part: Path, begin: int, account: Account | None) -> Finished:
    """Complete the segment that was written as ``part`` and begins at ``begin``, nanoseconds since the epoch.

    The instant in its name is later by microseconds when the name is taken. Raises ``OSError`` when it cannot be
    renamed; it is then as it was.
    """
    encoded = b"" if account is None else msgspec.json.encode(account) + b"\n"
    while True:
        final = part.with_name(segment_name(begin, CLOSED))
        beside = final.with_suffix(ACCOUNT)
        missing: OSError | None = None
        stored = False
        try:
            if encoded:
                _store(beside, encoded)
                stored = True
        except FileExistsError:
            begin += _STEP
            continue
        except OSError as error:
            missing = error
        try:
            rename(part, final)
        except OSError as error:
            if stored:
                with suppress(OSError):
                    beside.unlink()
            if not isinstance(error, FileExistsError):
                raise
            begin += _STEP
        else:
            return Finished(final, begin, len(encoded) if stored else 0, missing)


def _store(path: Path, content: bytes) -> None:
    """Write a file that must not be there yet. Raises ``OSError``; it is not there then, unless it was before."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE)
    try:
        try:
            written = os.write(fd, content)
        finally:
            os.close(fd)
        if written < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError:
        path.unlink(missing_ok=True)
        raise


def rename(source: Path, target: Path) -> None:
    """Rename, and raise ``FileExistsError`` instead of replacing anything."""
    try:
        rename_noreplace(source, target)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS):
            raise
        # A file system that cannot promise it. Of ours nobody else has this name: the account was made by us.
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
        source.rename(target)
