"""What a power failure leaves of a closed segment: its name, and less than was written.

Segments are not synced one by one. So a file system may have kept the name of one and lost its end, all of it, or
pages anywhere, which are zeros then. Such a file is ours if it holds nothing at all, or has the account of a segment
beside it. Anything else without the header of a pcap file is somebody else's.
"""

from __future__ import annotations

import os
from enum import Enum, auto
from pathlib import Path

from agent.linux.files import open_regular
from agent.workers.capture import savefile

_CHUNK = 1024 * 1024


class State(Enum):
    """What a file turned out to be, that has the name of a closed segment and no index."""

    WHOLE = auto()  # as far as can be seen without reading all of it
    CUT = auto()  # a pcap file that ends in zeros
    EMPTY = auto()  # nothing, or nothing but zeros
    LOST = auto()  # no pcap file


def look(path: Path) -> State:
    """What became of a segment. Reads no more than its ends, unless it begins with zeros. Raises ``OSError``."""
    with os.fdopen(open_regular(path, os.O_RDONLY), "rb", buffering=0) as file:
        header = file.read(savefile.FILE_HEADER)
        if savefile.parse_header(header) is None:
            return State.LOST if any(header) or not blank(path) else State.EMPTY
        size = os.fstat(file.fileno()).st_size
        end = os.pread(file.fileno(), savefile.RECORD_HEADER, max(savefile.FILE_HEADER, size - savefile.RECORD_HEADER))
        return State.WHOLE if any(end) or not end else State.CUT


def blank(path: Path) -> bool:
    """Whether there is nothing in a file but zeros, if anything. Raises ``OSError``."""
    with os.fdopen(open_regular(path, os.O_RDONLY), "rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            if chunk.count(0) != len(chunk):
                return False
    return True
