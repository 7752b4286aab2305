"""Where the segments of an armed capture wait in memory, for whoever makes that place and whoever only asks."""

from __future__ import annotations

import os
import stat
from pathlib import Path

PLACE = Path("/dev/shm")  # noqa: S108  # tmpfs by the Filesystem Hierarchy Standard, and sticky

_PREFIX = "agent-capture-"


def stem(data: Path) -> str:
    """What the name of a directory of the capture whose store is ``data`` begins with."""
    import hashlib  # loads OpenSSL, which a query has no time for

    return f"{_PREFIX}{hashlib.blake2b(os.fsencode(data.resolve()), digest_size=8).hexdigest()}-"


def found(data: Path) -> list[Path]:
    """Where segments of the capture whose store is ``data`` wait in memory, as far as can be seen.

    Everybody may make directories there: only those of the store's user count, and root's, who may work for that one.
    """
    there = sorted(PLACE.glob(f"{_PREFIX}*"))
    begin = stem(data) if there else ""
    return [path for path in there if path.name.startswith(begin) and _genuine(path, data)]


def _genuine(path: Path, data: Path) -> bool:
    try:
        status = path.lstat()
        return stat.S_ISDIR(status.st_mode) and status.st_uid in (0, data.stat().st_uid)
    except OSError:
        return False
