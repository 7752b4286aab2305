"""What became of the packets of each stored segment: its account, and what its index says of packets that were cut."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.cli import text

if TYPE_CHECKING:
    from agent.workers.capture.account import Account
    from agent.workers.capture.catalogue import Segment

LOST = ("dropped_kernel", "dropped_interface", "not_written")
"""Where packets are lost: the kernel's ring was full, before the kernel saw them, the disk would not take them."""

HEADS = (
    *("SERVICE", "INTERFACE", "FROM", "SIZE", "RECEIVED", "RING DROPS", "NIC DROPS", "NOT WRITTEN", "WRITTEN", "CUT"),
    *("BALANCE", "LAG", "CLOSED FOR"),
)
NUMBERS = ("SIZE", "RECEIVED", "RING DROPS", "NIC DROPS", "NOT WRITTEN", "WRITTEN", "CUT", "LAG")

_COUNTS = ("received", *LOST, "written", "unaccounted")


def holds(told: Account) -> bool | None:
    """Whether what was written is what was received less what was lost; ``None`` where that is not known any more."""
    if told.reason == "recovered":
        return None
    return told.unaccounted == 0 and told.received == told.dropped_kernel + told.not_written + told.written


def each(directory: Path, interfaces: Collection[str] = ()) -> list[dict[str, Any]]:
    """The segments of a store, of these interfaces or of all, oldest first. Raises ``StorageFailure``.

    ``None`` is what is not known: of one that is open, that has no account, or no index yet (``cut``), or that was
    recovered after a crash.
    """
    from agent.workers.capture.catalogue import segments

    found = segments(directory)
    return [_one(directory.name, each) for each in found if not interfaces or each.interface in interfaces]


def _one(service: str, segment: Segment) -> dict[str, Any]:
    from agent.workers.capture import account
    from agent.workers.index.head import cut_in

    told = account.read(segment.account) if segment.closed else None
    known = told is not None and told.reason != "recovered"
    try:
        size = segment.path.stat(follow_symlinks=False).st_size
    except OSError:  # closed under its name, or removed, since
        size = None
    return {
        "service": service,
        "interface": segment.interface,
        "file": segment.path.name,
        "open": not segment.closed,
        "begin": segment.begin / 1e9,
        "from": told.opened / 1e9 if told else None,
        "to": told.closed / 1e9 if told else None,
        "reason": told.reason if told else None,
        "bytes": size,
        **{name: getattr(told, name) if known else None for name in _COUNTS},
        "written": told.written if told else None,
        "cut": cut_in(segment.index) if segment.closed else None,
        "holds": holds(told) if told else None,
        "lag_max": told.lag / 1e9 if known and told else None,
        "ring": told.ring if known and told else None,
        "snaplen": told.snaplen if known and told else None,
        "filter": told.filter if known and told else None,
    }


def row(one: dict[str, Any]) -> tuple[str, ...]:
    """A segment as the cells of ``HEADS``."""
    balance = {True: "holds", False: f"off by {one['unaccounted']}", None: text.ABSENT}[one["holds"]]
    return (
        *(one["service"], one["interface"], text.moment(one["begin"]), text.size(one["bytes"])),
        *(number(one[name]) for name in ("received", *LOST, "written", "cut")),
        *(balance, lag(one["lag_max"]), "open" if one["open"] else text.optional(one["reason"])),
    )


def number(value: float | None) -> str:
    """A count with its thousands apart."""
    return text.ABSENT if value is None else f"{round(value):,}"


def lag(seconds: float | None) -> str:
    """Below a second in milliseconds."""
    return f"{seconds * 1000:.0f} ms" if seconds is not None and seconds < 1 else text.duration(seconds)
