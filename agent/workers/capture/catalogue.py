"""What is in the store of a capture service, for those who read it: no lock, no memory, nothing is changed.

::

    spool/NAME/store.json                         the version of the store
    spool/NAME/INTERFACE/20261120T140000.123456Z.pcap   a closed segment: packets, pcap-savefile(5)
                         20261120T140000.123456Z.meta   its account, JSON (``account``)
                         20261120T140000.123456Z.idx    its index (``agent.workers.index.form``)
                         20261120T140000.123456Z.part   the segment being written, named by when it was opened
                         20261120T140000.123456Z.tail   the index of what is in that so far

A segment may be closed, and so renamed, or removed, between any two looks at it. Names are those of ``naming``;
whatever else lies there is somebody else's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from agent.errors import StorageFailure
from agent.workers.capture.naming import CLOSED, OPEN, parse_name, valid_interface

ACCOUNT = ".meta"
INDEX = ".idx"
TAIL = ".tail"


@dataclass(frozen=True, slots=True, order=True)
class Segment:
    """One segment. Orders by time: ``begin`` is the instant in its name, nanoseconds since the epoch.

    ``indexed``: whether it had an index when it was found; of an open one, whether there is one of its beginning.
    """

    begin: int
    interface: str
    path: Path
    indexed: bool = field(default=False, compare=False)

    @property
    def closed(self) -> bool:
        """Whether it was complete when it was found."""
        return self.path.suffix == CLOSED

    @property
    def account(self) -> Path:
        """Where its account is, once it is closed."""
        return self.path.with_suffix(ACCOUNT)

    @property
    def index(self) -> Path:
        """Where its index is, if it has one."""
        return self.path.with_suffix(INDEX if self.closed else TAIL)


def interfaces(directory: Path) -> list[str]:
    """The interfaces that have a directory in this store, sorted. Raises ``StorageFailure``."""
    try:
        with os.scandir(directory) as entries:
            found = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StorageFailure(f"segments in {directory} cannot be read: {error.strerror}") from error
    return sorted(filter(valid_interface, found))


def segments(directory: Path, suffixes: tuple[str, ...] = (CLOSED, OPEN)) -> list[Segment]:
    """The segments of a store whose names end so, oldest first. Raises ``StorageFailure``."""
    try:
        return sorted(segment for name in interfaces(directory) for segment in within(directory, name, suffixes))
    except OSError as error:
        raise StorageFailure(f"segments in {directory} cannot be read: {error.strerror}") from error


def within(directory: Path, interface: str, suffixes: tuple[str, ...] = (CLOSED, OPEN)) -> Iterator[Segment]:
    """Those of one interface, in no order. Raises ``OSError``."""
    place = directory / interface
    try:
        with os.scandir(place) as entries:
            names = {entry.name for entry in entries if entry.is_file(follow_symlinks=False)}
    except FileNotFoundError:
        return
    for name in names:
        parsed = parse_name(name) if name.endswith(suffixes) else None
        if parsed is not None:
            begin, suffix = parsed
            index = name.removesuffix(suffix) + (INDEX if suffix == CLOSED else TAIL)
            yield Segment(begin, interface, place / name, index in names)
