"""The account of a segment: what was received for it and what became of that, stored beside it as JSON."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import msgspec

from agent.linux.files import open_regular, write_atomic

VERSION = 1

LONGEST = 65536
"""Bytes: no account is longer."""


_MOST = 2**48  # of anything in one segment: what is planted here must not break sums
_LATEST = 2**63 - 1

Instant = Annotated[int, msgspec.Meta(ge=0, le=_LATEST)]
Count = Annotated[int, msgspec.Meta(ge=0, le=_MOST)]
Difference = Annotated[int, msgspec.Meta(ge=-_MOST, le=_MOST)]
Span = Annotated[int, msgspec.Meta(ge=-_LATEST, le=_LATEST)]


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """One closed segment. Counts are packets, of this segment alone; instants are nanoseconds since the epoch.

    ``opened`` and ``closed`` bound the time in which it took packets. ``received`` passed the filter,
    ``dropped_kernel`` of these found the ring full, ``dropped_interface`` were lost before the kernel saw them,
    ``not_written`` were read and would not go to disk. ``unaccounted`` is what is missing of
    ``received == dropped_kernel + not_written + written``, and 0 unless the kernel delivered other packets than it
    counted. ``bytes`` is the length of the file.
    ``lag`` is the most time that passed between a packet and its being written, in nanoseconds.
    ``ring`` is the kernel memory that was granted, in bytes. ``reason`` is why the segment was closed: ``size``,
    ``time``, ``request``, ``stop``, ``lost`` (the interface went away), ``full`` (the disk would take no more) or
    ``recovered`` (cut back after a crash: then only ``written`` and ``bytes`` are known).
    """

    interface: str
    opened: Instant
    closed: Instant
    written: Count
    bytes: Count
    reason: str
    received: Difference = 0
    dropped_kernel: Count = 0
    dropped_interface: Count = 0
    not_written: Count = 0
    unaccounted: Difference = 0
    lag: Span = 0
    snaplen: Count = 0
    ring: Count = 0
    filter: str = ""
    version: int = VERSION


def write(path: Path, account: Account) -> None:
    """Store an account. Raises ``StorageFailure``."""
    write_atomic(path, msgspec.json.encode(account) + b"\n", mode=0o640)


def read(path: Path) -> Account | None:
    """An account; ``None`` when there is none that can be understood."""
    try:
        with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
            return msgspec.json.decode(file.read(LONGEST), type=Account)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
