"""Which segments of a store may hold packets of a span of time: by their names and by when they were last written.

So what a question costs is a matter of the span and not of the store: of all other segments no more is done than to
list them and to ask when they were written, and none of their files is opened.

A directory that did not change need not be listed again: ``changes`` and ``settled`` tell.
"""

from __future__ import annotations

import functools
import os
import stat
import time
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from agent.errors import StorageFailure
from agent.workers.capture.catalogue import INDEX, TAIL, Segment, interfaces
from agent.workers.capture.naming import CLOSED, OPEN, parse_name

SLACK = 60 * 1_000_000_000
"""Nanoseconds by which a packet's time may be off the clock of the files: packets of a segment are not quite in order,
and clocks are set."""

ALWAYS = (0, (1 << 63) - 1)
"""Any time: nanoseconds since the epoch, both included."""

_SETTLED = 100_000_000
"""Nanoseconds after which a change of a directory shows in its time: that of the kernel goes on in ticks."""


class Timely(NamedTuple):
    """A segment, and between which instants its packets lie as far as its files tell, ``SLACK`` included."""

    segment: Segment
    first: int
    last: int


def timely(directory: Path, within: tuple[int, int] = ALWAYS, names: Collection[str] = ()) -> list[Timely]:
    """The segments that may hold a packet of ``within``, oldest first; those that are still written are always there.

    ``names`` are the interfaces, or all when there is none. A segment holds packets from the instant in its name to
    when it was last written. Of one that was written before that, because the clock was set back meanwhile, nobody
    knows, and it is always there too. Raises ``StorageFailure``.
    """
    try:
        chosen = [name for name in interfaces(directory) if not names or name in names]
        return sorted(found for name in chosen for found in _of_interface(directory / name, within))
    except OSError as error:
        raise StorageFailure(f"segments in {directory} cannot be read: {error.strerror}") from error


def _of_interface(place: Path, within: tuple[int, int]) -> list[Timely]:
    begin, end = within[0] - SLACK, within[1] + SLACK
    found = []
    try:
        fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return []
    try:
        with os.scandir(fd) as entries:
            listed = {entry.name for entry in entries}
        hour = functools.cache(_hour)
        for name in listed:
            if not name.endswith((CLOSED, OPEN)):
                continue
            try:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except OSError:  # closed under its name, or removed, since
                continue
            written = status.st_mtime_ns
            began = hour(name[:11])
            if began is not None and name[11:15].isdecimal() and name.endswith(CLOSED):
                # Most are of another time, and to find that out so is much quicker than ``parse_name``.
                began += (int(name[11:13]) * 60 + int(name[13:15])) * 1_000_000_000
                if began <= written and (written < begin or began > end):
                    continue
            parsed = parse_name(name)
            if parsed is not None and stat.S_ISREG(status.st_mode):
                found.append(_told(place, name, *parsed, written, listed))
    finally:
        os.close(fd)
    return found


def _hour(name: str) -> int | None:
    """When the hour begins that a name begins with."""
    parsed = parse_name(f"{name}0000.000000Z{CLOSED}")
    return parsed and parsed[0]


def _told(place: Path, name: str, begin: int, suffix: str, written: int, listed: set[str]) -> Timely:
    index = name.removesuffix(suffix) + (INDEX if suffix == CLOSED else TAIL)
    segment = Segment(begin, place.name, place / name, index in listed)
    if suffix == OPEN:
        return Timely(segment, begin - SLACK, ALWAYS[1])
    if written < begin - SLACK:
        return Timely(segment, *ALWAYS)
    return Timely(segment, begin - SLACK, max(begin, written) + SLACK)


def changes(directory: Path) -> list[int]:
    """When the directories that segments come into changed last. Raises ``StorageFailure``."""
    stamps = []
    for place in (directory, *(directory / name for name in interfaces(directory))):
        try:
            stamps.append(place.stat().st_mtime_ns)
        except OSError:  # gone: the one above has changed
            continue
    return stamps


def settled(stamps: list[int]) -> bool:
    """Whether a further change would have made other ``stamps`` of these.

    A stamp from far in the future, after the clock was set back, is as good as one of long ago.
    """
    now = time.time_ns()
    return all(abs(now - stamp) >= _SETTLED for stamp in stamps)
