"""Drift over time: what stands, what was found since, and what is gone. Pure, and a file that it is kept in.

Each difference is told once when it comes and once when it goes. It is gone when everything that could tell of it was
looked at and does not tell of it any more; what could not be looked at lets it stand.
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

_Word = Annotated[str, msgspec.Meta(max_length=1024)]
_Time = Annotated[float, msgspec.Meta(ge=0, le=1e11)]


class Stands(msgspec.Struct, frozen=True):
    """A row that was told. ``since`` is what the sources said when it was found at ``found``; both unix seconds."""

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


Standing = dict[str, Stands]


class Fold(NamedTuple):
    """``standing`` is all of it from now on; the others what came and what went, the gravest first."""

    standing: Standing
    found: list[Row]
    gone: list[Stands]


def fold(before: Standing, judged: Judged, blind: Collection[str], now: float) -> Fold:
    """What stands after ``before`` and what was judged at ``now``. Sources in ``blind`` were not looked at."""
    standing: Standing = {}
    found: list[Row] = []
    for row in judged.rows:
        old = before.get(row.key)
        if old is None:
            found.append(row)
        standing[row.key] = _stands(row, now if old is None else old.found, row.since if old is None else old.since)
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


def _stands(row: Row, found: float, since: float) -> Stands:
    return Stands(
        row.key,
        row.kind,
        row.severity,
        row.host,
        row.service,
        row.what[:1024],
        max(0.0, since),
        found,
        tuple(sorted(row.depends)),
        row.expectations[:64],
        row.site,
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
