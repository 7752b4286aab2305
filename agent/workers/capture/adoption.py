"""Taking over what an earlier capture left in its store, however it ended. Nothing is remembered but what is on disk.

A segment is closed in two steps, its account and then its name, and removed packets first. So whatever instant a
capture died at, there is a ``.part``, or a ``.pcap`` with or without its account and index, or an account or index of a
segment that is not there. The first is cut back to its last whole packet and closed, the last is removed. What is not
ours, by its name, its type or its content, is left alone and counts for nothing.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from agent.errors import StorageFailure
from agent.linux.files import open_regular
from agent.workers.capture import account, savefile
from agent.workers.capture.account import Account
from agent.workers.capture.catalogue import ACCOUNT, INDEX, TAIL
from agent.workers.capture.naming import CLOSED, OPEN, parse_name, segment_name, valid_interface
from agent.workers.capture.recovery import recover
from agent.workers.capture.retention import Stored

#: ``report(kind, message)``: something happened that the operator should know.
Report = Callable[[str, str], None]

SLACK = 1_000_000_000
"""Nanoseconds that the last packet of a segment may be later than its file's time of modification, which is kept by a
coarser clock.
"""

_NAMED = 3
_SCRATCH = re.compile(r"\.(\d{8}T\d{6}\.\d{6}Z\.(?:meta|idx|tail))\.[0-9a-f]{8}", re.ASCII)


@dataclass(slots=True)
class _Files:
    """What lies in the directory of one interface: of each file of ours its size, when it was modified, by its name."""

    closed: dict[int, tuple[int, int]] = field(default_factory=dict)
    opened: list[int] = field(default_factory=list)
    beside: dict[tuple[int, str], int] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)


def adopt(directory: Path, report: Report, *, alone: bool = True) -> list[Stored]:
    """The closed segments of a store, oldest first, once everything that was left unfinished is finished.

    What another process is writing is left to it. Unless we are ``alone``, nothing is said of what is no segment, and
    nothing is cleared away: it may be about to become one. Raises ``OSError`` when the directory cannot be read.
    """
    with os.scandir(directory) as entries:
        interfaces = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    return sorted(
        segment
        for name in interfaces
        if valid_interface(name)
        for segment in _interface(directory / name, report, alone)
    )


def _interface(place: Path, report: Report, alone: bool) -> Iterator[Stored]:
    files = _files(place)
    for opened in files.opened:
        _finish(place, opened, files, report)
    foreign: list[str] = []
    for begin, (size, modified) in files.closed.items():
        name = segment_name(begin, CLOSED)
        others = [files.beside.get((begin, suffix)) for suffix in (ACCOUNT, INDEX)]
        # To look into each file takes long, and what has one of these was ours before.
        if others == [None, None] and not _is_capture(place / name):
            foreign.append(name)
            continue
        total = size + sum(filter(None, others))
        yield Stored(begin, place.name, max(begin, modified + SLACK), total, others[1] is not None)
    if foreign and alone:
        some = ", ".join(sorted(foreign)[:_NAMED]) + (f" and {len(foreign) - _NAMED} more" * (len(foreign) > _NAMED))
        report("segment_unreadable", f"{place.name}: no pcap files, left alone: {some}")
    if alone:
        _sweep(place, files, report)


def _files(place: Path) -> _Files:
    found = _Files()
    with os.scandir(place) as entries:
        for entry in entries:
            found.names.add(entry.name)
            if not entry.is_file(follow_symlinks=False):
                continue
            if (parsed := parse_name(entry.name)) is not None:
                begin, suffix = parsed
                if suffix == OPEN:
                    found.opened.append(begin)
                else:
                    status = entry.stat(follow_symlinks=False)
                    found.closed[begin] = status.st_size, status.st_mtime_ns
            elif (beside := _beside(entry.name)) is not None:
                found.beside[beside] = entry.stat(follow_symlinks=False).st_size
    return found


def _beside(name: str) -> tuple[int, str] | None:
    """The instant and the suffix of what lies beside a segment."""
    stem, dot, word = name.rpartition(".")
    if dot + word not in (ACCOUNT, INDEX, TAIL):
        return None
    parsed = parse_name(stem + CLOSED)
    return None if parsed is None else (parsed[0], dot + word)


def _finish(place: Path, opened: int, files: _Files, report: Report) -> None:
    """Close a segment that was left open, or remove it when no packet is in it."""
    part = place / segment_name(opened, OPEN)
    label = f"{place.name}/{part.name}"
    if _in_use(part):
        return
    try:
        modified = part.stat().st_mtime_ns
        found = recover(part)
        if found is None:
            report("segment_unreadable", f"{label}: not a pcap file, left alone")
            return
        if found.begin is None:
            part.unlink()
        else:
            begin = free_begin(place, found.begin)
            meta = place / segment_name(begin, ACCOUNT)
            size = _account(meta, place.name, opened, modified, found.records, found.length, report)
            part.rename(place / segment_name(begin, CLOSED))
            files.closed[begin] = found.length, modified
            files.names.add(segment_name(begin, CLOSED))
            if size:
                files.beside[begin, ACCOUNT] = size
        files.names.discard(part.name)
        report(
            "segment_recovered",
            f"{label}: {found.records} packets kept, {found.lost} bytes of an unfinished one cut",
        )
    except OSError as error:
        report("segment_unreadable", f"{label}: left alone: {error.strerror}")


def _account(meta: Path, interface: str, opened: int, closed: int, written: int, length: int, report: Report) -> int:
    """See to it that a recovered segment has an account that says what is in it; returns the size of that."""
    before = account.read(meta)
    try:
        if before is None or (before.written, before.bytes) != (written, length):
            account.write(
                meta,
                Account(
                    interface=interface,
                    opened=opened,
                    closed=max(opened, closed),
                    written=written,
                    bytes=length,
                    reason="recovered",
                ),
            )
        return meta.stat().st_size
    except (StorageFailure, OSError) as error:
        report("storage_error", f"{interface}: a recovered segment has no account: {error}")
        return 0


def _in_use(part: Path) -> bool:
    """Whether a process is writing it: ``Dumper`` holds a lock for as long."""
    try:
        fd = open_regular(part, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(fd)
    return False


def free_begin(place: Path, begin: int) -> int:
    """The first instant from ``begin`` on that no closed segment bears yet, in whole microseconds as names have them.

    Two segments may begin in one microsecond, and a clock may be set back.
    """
    begin -= begin % 1000
    while os.path.lexists(place / segment_name(begin, CLOSED)):
        begin += 1000
    return begin


def _is_capture(path: Path) -> bool:
    try:
        with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
            return savefile.parse_header(file.read(savefile.FILE_HEADER)) is not None
    except OSError:
        return False


def _sweep(place: Path, files: _Files, report: Report) -> None:
    """Remove what belongs to no segment any more, and what a writer of accounts or indexes left half done."""
    stray = [
        segment_name(begin, suffix)
        for begin, suffix in files.beside
        if segment_name(begin, OPEN if suffix == TAIL else CLOSED) not in files.names
    ]
    stray += [name for name in files.names if (scratch := _SCRATCH.fullmatch(name)) and _beside(scratch[1]) is not None]
    for name in stray:
        try:
            (place / name).unlink(missing_ok=True)
        except OSError as error:
            report("segment_stuck", f"{place.name}/{name}: cannot be removed: {error.strerror}")
