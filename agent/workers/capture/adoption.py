"""Taking over what an earlier capture left in its store, however it ended. Nothing is remembered but what is on disk.

A segment is closed in two steps, its account and then its name, and removed packets first. So whatever instant a
capture died at, there is a ``.part``, or a ``.pcap`` with or without its account and index, or an account or index of a
segment that is not there. The first is cut back to its last whole packet and closed, the last is removed. What a power
failure has left (``damage``) is mended as far as it goes, and removed when no packet is in it. What is not ours, by its
name, its type or its content, is left alone and counts for nothing.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from agent.errors import StorageFailure
from agent.workers.capture import account
from agent.workers.capture.account import Account
from agent.workers.capture.catalogue import ACCOUNT, INDEX, TAIL
from agent.workers.capture.damage import State, blank, look
from agent.workers.capture.finish import finish, rename
from agent.workers.capture.hold import busy, claim, is_scratch
from agent.workers.capture.naming import CLOSED, OPEN, parse_name, segment_name, valid_interface
from agent.workers.capture.recovery import Recovered, recover
from agent.workers.capture.retention import Stored

#: ``report(kind, message)``: something happened that the operator should know.
Report = Callable[[str, str], None]

SLACK = 1_000_000_000
"""Nanoseconds that the last packet of a segment may be later than its file's time of modification, which is kept by a
coarser clock.
"""

YOUNG = 60.0
"""Seconds for which a segment may be in the making and not be held yet. That takes microseconds."""

_NAMED = 3
_SCRATCH = re.compile(r"\.(\d{8}T\d{6}\.\d{6}Z\.(?:meta|idx|tail))\.[0-9a-f]{8}", re.ASCII)


@dataclass(slots=True)
class _Files:
    """What lies in the directory of one interface: of each file of ours its size, when it was modified, by its name."""

    closed: dict[int, tuple[int, int]] = field(default_factory=dict)
    opened: list[int] = field(default_factory=list)
    beside: dict[tuple[int, str], int] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)


def adopt(directory: Path, report: Report) -> list[Stored]:
    """The closed segments of a store, oldest first, once everything that was left unfinished is finished.

    What another process still writes, one that was beside a capture which was killed, is left to it. Raises ``OSError``
    when the directory cannot be read.
    """
    with os.scandir(directory) as entries:
        interfaces = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    return sorted(
        segment for name in interfaces if valid_interface(name) for segment in _interface(directory / name, report)
    )


def discover(directory: Path, known: Callable[[int, str], bool], report: Report) -> Iterator[Stored | None]:
    """The closed segments that are not ``known`` yet, by their begin and interface, while others write and close some.

    What one of them left open when it ended is finished. ``None`` comes wherever there is nothing to tell, so that
    whoever asks can see to something else meanwhile: a directory may be large. Of what cannot be read nothing is said.
    """
    with suppress(OSError):
        with os.scandir(directory) as entries:
            interfaces = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        for name in filter(valid_interface, interfaces):
            with suppress(OSError), os.scandir(directory / name) as files:
                for entry in files:
                    yield _unknown(directory / name, entry, known, report)


def _unknown(place: Path, entry: os.DirEntry[str], known: Callable[[int, str], bool], report: Report) -> Stored | None:
    """The segment that this is, or has become, if it is one that is not known."""
    parsed = parse_name(entry.name) if entry.name.endswith((CLOSED, OPEN)) else None
    if parsed is None or (parsed[1] == CLOSED and known(parsed[0], place.name)) or not _is_file(entry):
        return None
    if parsed[1] == OPEN:
        return _finish(place, parsed[0], report, alone=False)
    path = place / entry.name
    beside = [path.with_suffix(ACCOUNT), path.with_suffix(INDEX)]
    if not any(map(os.path.lexists, beside)) and not _is_capture(path):
        return None
    return _stored(path)


def _stored(path: Path) -> Stored | None:
    """What there is of a closed segment; ``None`` when it is gone."""
    parsed, sizes = parse_name(path.name), [_size(path.with_suffix(suffix)) for suffix in (ACCOUNT, INDEX)]
    with suppress(OSError):
        status = path.stat(follow_symlinks=False)
        if parsed is not None:
            end = max(parsed[0], status.st_mtime_ns + SLACK)
            total = status.st_size + sum(filter(None, sizes))
            return Stored(parsed[0], path.parent.name, end, total, sizes[1] is not None)
    return None


def _interface(place: Path, report: Report) -> Iterator[Stored]:
    files = _files(place)
    for opened in files.opened:
        done = _finish(place, opened, report)
        part = segment_name(opened, OPEN)
        if not os.path.lexists(place / part):
            files.names.discard(part)
        if done is not None:
            files.names.add(segment_name(done.begin, CLOSED))
            yield done
    foreign: list[str] = []
    empty: list[str] = []
    promised = 0
    for begin in sorted(files.closed):
        # To look into each file takes long, and what has an index was ours when that was made.
        if (begin, INDEX) not in files.beside:
            told = account.read(place / segment_name(begin, ACCOUNT)) if (begin, ACCOUNT) in files.beside else None
            state = _looked_into(place, begin, files, report)
            if state is State.EMPTY and told is not None:
                promised += told.written
            if state is not State.WHOLE:
                (empty if state is State.EMPTY else foreign).append(segment_name(begin, CLOSED))
                continue
        size, modified = files.closed[begin]
        others = [files.beside.get((begin, suffix)) for suffix in (ACCOUNT, INDEX)]
        total = size + sum(filter(None, others))
        yield Stored(begin, place.name, max(begin, modified + SLACK), total, others[1] is not None)
    if empty:
        lost = f"; their accounts tell of {promised}" if promised else ""
        report("segment_recovered", f"{place.name}: removed, no packet was in them{lost}: {_some(empty)}")
    if foreign:
        report("segment_unreadable", f"{place.name}: no pcap files, left alone: {_some(foreign)}")
    _sweep(place, files, report)


def _some(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" * (len(names) > _NAMED))


def _looked_into(place: Path, begin: int, files: _Files, report: Report) -> State:
    """Make of a closed segment without an index what can be made of it; ``WHOLE`` when it is one then.

    Only at a start: a segment is damaged by a power failure, and after that somebody starts.
    """
    path = place / segment_name(begin, CLOSED)
    label = f"{place.name}/{path.name}"
    ours = (begin, ACCOUNT) in files.beside
    try:
        state = look(path)
        if state is State.CUT or (state is State.WHOLE and ours and not _as_told(path, files.closed[begin][0])):
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
    """Cut a closed segment back to its last whole packet, and let its account say so: one that ends in zeros, if they
    are none of a packet's, or that is not as long as its account says.
    """
    found = recover(path)
    if found is None or (not found.lost and _as_told(path, found.length)):
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


def _as_told(path: Path, size: int) -> bool:
    """Whether the account of a segment of this size, if there is one, is of that size."""
    told = account.read(path.with_suffix(ACCOUNT))
    return told is None or told.bytes == size


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


def _finish(place: Path, opened: int, report: Report, *, alone: bool = True) -> Stored | None:
    """Close a segment that was left open, or remove it when no packet is in it.

    One that somebody holds is let be, and unless we are ``alone`` so is one of which that cannot be told.
    """
    part = place / segment_name(opened, OPEN)
    label = f"{place.name}/{part.name}"
    try:
        hold = claim(part, alone=alone)
        if hold is None:
            return None
        try:
            modified = part.stat().st_mtime_ns
            found = recover(part)
            if found is None and blank(part):
                found = Recovered(None, 0, 0, part.stat().st_size)
            if found is None:
                report("segment_unreadable", f"{label}: not a pcap file, left alone")
                return None
            modified = max(modified, found.end - SLACK)  # a clock was set back
            final = _closed(part, found, opened, modified, report)
        finally:
            hold.release()
    except OSError as error:
        report("segment_unreadable", f"{label}: left alone: {error.strerror}")
        return None
    report(
        "segment_recovered",
        f"{label}: {found.records} packets kept, {found.lost} bytes of an unfinished one cut",
    )
    parsed = None if final is None else parse_name(final.name)
    if final is None or parsed is None:
        return None
    end = max(parsed[0], modified + SLACK)
    return Stored(parsed[0], place.name, end, found.length + (_size(final.with_suffix(ACCOUNT)) or 0), indexed=False)


def _closed(part: Path, found: Recovered, opened: int, modified: int, report: Report) -> Path | None:
    """Give its name to what was recovered, and an account that says what is in it. Raises ``OSError``."""
    if found.begin is None:
        part.unlink()
        return None
    os.utime(part, ns=(modified, modified))
    final = part.with_name(segment_name(found.begin, CLOSED))
    before = account.read(final.with_suffix(ACCOUNT))
    if before is not None and (before.written, before.bytes) == (found.records, found.length):
        with suppress(FileExistsError):  # then it is the account of another
            rename(part, final)
            return final
    record = Account(
        interface=part.parent.name,
        opened=opened,
        closed=max(opened, modified),
        written=found.records,
        bytes=found.length,
        reason="recovered",
    )
    done = finish(part, found.begin, record)
    if done.missing is not None:
        report("storage_error", f"{record.interface}: a recovered segment has no account: {done.missing.strerror}")
    return done.path


def _is_capture(path: Path) -> bool:
    try:
        return look(path) in (State.WHOLE, State.CUT)
    except OSError:
        return False


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


def _sweep(place: Path, files: _Files, report: Report) -> None:
    """Remove what belongs to no segment any more, and what a writer of segments, accounts or indexes left half done.

    While somebody still writes here nothing is removed: an account is there before its segment is, and a segment for an
    instant before it is held.
    """
    stray = [
        segment_name(begin, suffix)
        for begin, suffix in files.beside
        if segment_name(begin, OPEN if suffix == TAIL else CLOSED) not in files.names
    ]
    stray += [name for name in files.names if is_scratch(name) or _is_half(name)]
    if not stray or busy(place):
        return
    for name in stray:
        path = place / name
        if path.suffix in (ACCOUNT, INDEX) and os.path.lexists(path.with_suffix(CLOSED)):
            continue  # it was closed meanwhile
        if is_scratch(name) and 0 <= time.time() - _modified(path) < YOUNG:
            continue
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            report("segment_stuck", f"{place.name}/{name}: cannot be removed: {error.strerror}")


def _is_half(name: str) -> bool:
    found = _SCRATCH.fullmatch(name)
    return found is not None and _beside(found[1]) is not None


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file(follow_symlinks=False)
    except OSError:
        return False


def _modified(path: Path) -> float:
    try:
        return path.stat(follow_symlinks=False).st_mtime
    except OSError:
        return 0.0


def _size(path: Path) -> int | None:
    try:
        return path.stat(follow_symlinks=False).st_size
    except OSError:
        return None
