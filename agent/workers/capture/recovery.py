"""Segments that were left unfinished: cut back to the last whole packet."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from agent.workers.capture import savefile

#: Bytes read at a time. Longer than any record, so that each step gets on.
_CHUNK = 1024 * 1024

_SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Recovered:
    """``records`` whole packets are in ``length`` bytes, the first captured at ``begin``; ``lost`` bytes were cut off.

    ``begin`` is in nanoseconds since the epoch, ``None`` when there is no packet. So is ``end``, than which none is
    later.
    """

    begin: int | None
    records: int
    length: int
    lost: int
    end: int = field(default=0, compare=False)


def recover(path: Path) -> Recovered | None:
    """Cut the file back to its last whole record; ``None``, and untouched, when it is no pcap file.

    Reads it once, in bounded memory. A file too short for a header holds no packet. Raises ``OSError``.
    """
    with path.open("r+b", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size < savefile.FILE_HEADER:
            return Recovered(None, 0, 0, size)
        form = savefile.parse_header(file.read(savefile.FILE_HEADER))
        if form is None:
            return None
        begin: int | None = None
        length, records, latest, carry = savefile.FILE_HEADER, 0, 0, b""
        while chunk := file.read(_CHUNK):
            carry += chunk
            walk = savefile.whole_records(carry, form)
            if begin is None and walk.records:
                begin = savefile.first_instant(form, carry)
            length += walk.length
            records += walk.records
            latest = max(latest, walk.latest)
            carry = carry[walk.length :]
            if walk.damaged:
                break
        if length < size:
            os.ftruncate(file.fileno(), length)
        return Recovered(begin, records, length, size - length, (latest + 1) * _SECOND)
