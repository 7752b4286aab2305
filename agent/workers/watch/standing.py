"""Drift over time: what stands, what was found since, and what is gone. Pure, and a file that it is kept in.

Each difference is told once when it comes and once when it goes, and in between when it is graver than was ever told of
it, or somebody answers of whom that was not told yet: what turns to and fro is not told each time. It is gone when
everything that could tell of it was looked at and does not tell of it any more; what could not be looked at lets it
stand.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import msgspec

from agent.errors import StorageFailure
from agent.linux.files import open_regular, why, write_atomic
from agent.telemetry.kinds import DRIFT_KINDS, DRIFT_SEVERITIES
from agent.workers.watch.drift import MOST, Judged
from agent.workers.watch.row import Row

NAME: Final = "drift.json"
VERSION: Final = 1

LONGEST_FILE: Final = 64 << 20
"""Bytes: more than so many rows can need."""

MOST_STANDING: Final = 2 * MOST

ANSWERS: Final = 8
"""Of those that have answered at a port in turn, so many are kept as told; the latest."""

_LONGEST = 1024  # characters
_Word = Annotated[str, msgspec.Meta(max_length=_LONGEST)]
_Time = Annotated[float, msgspec.Meta(ge=0, le=1e11)]


class Stands(msgspec.Struct, frozen=True):
    """A row that was told. ``since`` is what the sources said when it was found at ``found``; both unix seconds.

    ``told`` is the gravest that was told of it, empty in what an earlier version wrote, and ``answers`` are who it was
    told of.
    """

    key: _Word
    kind: _Word
    severity: _Word
    host: _Word
    service: _Word
    what: _Word
    since: _Time
    found: _Time
    depends: tuple[_Word, ...] = ()
    expectations: tuple[_Word, ...] = ()
    site: _Word = ""
    told: _Word = ""
    answers: tuple[_Word, ...] = ()


Standing = dict[str, Stands]


class Fold(NamedTuple):
    """``standing`` is all of it from now on; the others what is to be told as found, and as gone, the gravest first."""

    standing: Standing
    found: list[Row]
    gone: list[Stands]


def fold(before: Standing, judged: Judged, blind: Collection[str], now: float) -> Fold:
    """What stands after ``before`` and what was judged at ``now``. Sources in ``blind`` were not looked at."""
    standing: Standing = {}
    found: list[Row] = []
    for row in judged.rows:
        old = before.get(row.key)
        if old is None or _graver(row, old) or _other(row, old):
            found.append(row)
        standing[row.key] = _stands(row, old, now)
    gone: list[Stands] = []
    unseen = set(blind)
    for key, old in before.items():
        if key in standing:
            continue
        # What was left out for want of room may still be so.
        if unseen.intersection(old.depends) or (judged.left_out and len(standing) < MOST_STANDING):
            standing[key] = old
        else:
            gone.append(old)
    gone.sort(key=lambda one: (-_rank(one.severity), one.key))
    return Fold(standing, found, gone)


def _rank(severity: str) -> int:
    return DRIFT_SEVERITIES.index(severity) if severity in DRIFT_SEVERITIES else -1


def _graver(row: Row, old: Stands) -> bool:
    return _rank(row.severity) > _rank(old.told or old.severity)


def _other(row: Row, old: Stands) -> bool:
    """Whether somebody answers of whom that was not told yet; an earlier version did not write down of whom it was."""
    return bool(old.answers) and bool(row.answer) and row.answer[:_LONGEST] not in old.answers


def _stands(row: Row, old: Stands | None, now: float) -> Stands:
    begun = old is None or _other(row, old)
    answers = (row.answer[:_LONGEST],) if row.answer else ()
    return Stands(
        row.key,
        row.kind,
        row.severity,
        row.host,
        row.service,
        row.what[:_LONGEST],
        max(0.0, row.since) if begun or old is None else old.since,
        now if begun or old is None else old.found,
        tuple(sorted(row.depends)),
        row.expectations[:64],
        row.site,
        row.severity if old is None or _graver(row, old) else old.told or old.severity,
        answers if old is None else (*(one for one in old.answers if one not in answers), *answers)[-ANSWERS:],
    )


class Damaged(StorageFailure):
    """The file is not what it should be, or cannot be read."""


class _File(msgspec.Struct, frozen=True):
    rows: list[Stands]
    noticed: list[tuple[_Word, _Word, Annotated[int, msgspec.Meta(ge=0, le=65535)], _Time]] = []
    version: int = VERSION
    last: Annotated[int, msgspec.Meta(ge=0, lt=2**53)] = 0
    untold: list[tuple[str, str, dict[str, Any]]] = []


class _Version(msgspec.Struct):
    version: int = 0


Noticed = dict[tuple[str, str, int], float]
"""Since when listeners are known to be there, by protocol, address and port: unix seconds."""


def notice(before: Noticed, listening: Iterable[tuple[str, str, int]], now: float) -> Noticed:
    """Those that listen at ``now``, each with when it was noticed first; whoever has gone is forgotten."""
    return {key: before.get(key, now) for key in listening}


class Kept(NamedTuple):
    """What the file holds. ``last`` is the number of the last event, ``untold`` those that may not have been told: the
    kind of each, its message and its data.
    """

    standing: Standing
    noticed: Noticed
    last: int = 0
    untold: Sequence[tuple[str, str, dict[str, Any]]] = ()


def write(path: Path, kept: Kept) -> None:
    """Replace the file. Raises ``StorageFailure``."""
    rows = list(kept.standing.values())[:MOST_STANDING]
    listed = [(*key, at) for key, at in kept.noticed.items()][:MOST_STANDING]
    try:
        content = msgspec.json.encode(_File(rows, listed, last=kept.last, untold=list(kept.untold)))
    except ValueError as error:  # a text that is no Unicode
        raise StorageFailure(f"{path}: cannot be written: {error}") from error
    write_atomic(path, content + b"\n", mode=0o640)


def read(path: Path) -> Kept | None:
    """What was written; ``None`` where there is no file. Raises ``Damaged``, or ``StorageFailure`` when a newer version
    wrote it.
    """
    try:
        with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
            data = file.read(LONGEST_FILE + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Damaged(f"{path}: cannot be read: {why(error)}") from error
    try:
        if len(data) > LONGEST_FILE:
            raise ValueError("it is too long")
        version = msgspec.json.decode(data, type=_Version).version
        if version > VERSION:
            raise StorageFailure(f"{path}: of version {version}; this program knows up to {VERSION}")
        found = msgspec.json.decode(data, type=_File)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{path}: no list of drift ({error}); a new one is begun") from error
    rows = {one.key: one for one in found.rows if one.kind in DRIFT_KINDS and one.severity in DRIFT_SEVERITIES}
    noticed = {(protocol, address, port): at for protocol, address, port, at in found.noticed}
    return Kept(rows, noticed, found.last, found.untold)
