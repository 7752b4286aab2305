"""Taking over what an earlier capture left in its store, however it ended. Nothing is remembered but what is on disk.

A segment is closed in two steps, its account and then its name, and removed packets first. So whatever instant a
capture died at, there is a ``.part``, or a ``.pcap`` with or without its account and index, or an account or index of a
segment that is not there. The first is cut back to its last whole packet and closed, the last is removed. What a power
failure has left (``damage``) is mended as far as it goes, and removed when no packet is in it. What is not ours, by its
name, its type or its content, is left alone and counts for nothing.
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
from agent.workers.capture import account
from agent.workers.capture.account import Account
from agent.workers.capture.catalogue import ACCOUNT, INDEX, TAIL
from agent.workers.capture.damage import State, blank, look
from agent.workers.capture.naming import CLOSED, OPEN, parse_name, segment_name, valid_interface
from agent.workers.capture.recovery import Recovered, recover
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
    empty: list[str] = []
    for begin in sorted(files.closed):
        # To look into each file takes long, and what has an index was ours when that was made.
        if (begin, INDEX) not in files.beside:
            state = _looked_into(place, begin, files, report, alone)
            if state is not State.WHOLE:
                (empty if state is State.EMPTY else foreign).append(segment_name(begin, CLOSED))
                continue
        size, modified = files.closed[begin]
        others = [files.beside.get((begin, suffix)) for suffix in (ACCOUNT, INDEX)]
        total = size + sum(filter(None, others))
        yield Stored(begin, place.name, max(begin, modified + SLACK), total, others[1] is not None)
    if empty:
        report("segment_recovered", f"{place.name}: removed, no packet was in them: {_some(empty)}")
    if foreign and alone:
        report("segment_unreadable", f"{place.name}: no pcap files, left alone: {_some(foreign)}")
    if alone:
        _sweep(place, files, report)


def _some(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" * (len(names) > _NAMED))


def _looked_into(place: Path, begin: int, files: _Files, report: Report, alone: bool) -> State:
    """Make of a closed segment without an index what can be made of it; ``WHOLE`` when it is one then.

    Only when ``alone``: a segment is damaged by a power failure, and after that somebody starts.
    """
    path = place / segment_name(begin, CLOSED)
    label = f"{place.name}/{path.name}"
    ours = (begin, ACCOUNT) in files.beside
    try:
        if not alone:
            return State.WHOLE if ours or look(path) in (State.WHOLE, State.CUT) else State.LOST
        state = look(path)
        if state is State.CUT:
            state = _mend(path, begin, files, report)
        if state is State.EMPTY:
            path.unlink()
            files.names.discard(path.name)  # and with it goes what lies beside it
        elif state is State.LOST and ours:
            path.with_suffix(INDEX).touch(0o640)
            files.beside[begin, INDEX] = 0
            report(
                "segment_unreadable", f"{label}: damaged, no packet in it can be read; it stays until it is the oldest"
            )
            state = State.WHOLE
    except OSError as error:
        report("segment_unreadable", f"{label}: left alone: {error.strerror}")
        return State.WHOLE  # it counts
    return state


def _mend(path: Path, begin: int, files: _Files, report: Report) -> State:
    """Cut a closed segment that ends in zeros back to its last whole packet, if they are none of a packet's."""
    found = recover(path)
    if found is None or not found.lost:
        return State.WHOLE
    if found.begin is None:
        return State.EMPTY
    opened, (_, modified) = begin, files.closed[begin]
    os.utime(path, ns=(modified, modified))
    files.closed[begin] = found.length, modified
    meta = path.with_suffix(ACCOUNT)
    files.beside[begin, ACCOUNT] = _account(
        meta, path.parent.name, opened, modified, found.records, found.length, report
    )
    report("segment_recovered", f"{path.parent.name}/{path.name}: {found.records} packets kept, {found.lost} bytes cut")
    return State.WHOLE


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
        if found is None and blank(part):
            found = Recovered(None, 0, 0, part.stat().st_size)
        if found is None:
            report("segment_unreadable", f"{label}: not a pcap file, left alone")
            return
        if found.begin is None:
            part.unlink()
        else:
            begin = free_begin(place, found.begin)
            meta = place / segment_name(begin, ACCOUNT)
            size = _account(meta, place.name, opened, modified, found.records, found.length, report)
            modified = max(modified, found.end - SLACK)  # a clock was set back
            os.utime(part, ns=(modified, modified))
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
