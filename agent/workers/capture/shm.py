"""Where the segments of an armed capture wait in memory, for whoever makes that place and whoever only asks."""

from __future__ import annotations

import os
from pathlib import Path

PLACE = Path("/dev/shm")  # noqa: S108  # tmpfs by the Filesystem Hierarchy Standard, and sticky

_PREFIX = "agent-capture-"


def stem(data: Path) -> str:
    """What the name of a directory of the capture whose store is ``data`` begins with."""
    import hashlib  # loads OpenSSL, which a query has no time for

    return f"{_PREFIX}{hashlib.blake2b(os.fsencode(data.resolve()), digest_size=8).hexdigest()}-"


def found(data: Path) -> list[Path]:
    """Where segments of the capture whose store is ``data`` wait in memory, as far as can be seen."""
    there = sorted(PLACE.glob(f"{_PREFIX}*"))
    begin = stem(data) if there else ""
    return [path for path in there if path.name.startswith(begin)]
