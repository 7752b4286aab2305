"""A snapshot of ``agentctl top`` as lines of text with styles, in the room that there is. Pure.

What does not fit is left out in this order: columns that matter least, then flows, then services beyond the first ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from agent.cli import text
from agent.cli.accounts import lag, number
from agent.cli.flows_top import end_of, protocol_of
from agent.cli.table import GAP, STYLES


class Piece(NamedTuple):
    """Text that is shown in one style of rich; plain text has the style ``""``."""

    words: str
    style: str = ""


Line = list[Piece]


class Column(NamedTuple):
    """``rank``: columns of the highest one go first when a line is too long; those of 0 never go."""

    head: str
    rank: int = 0
    right: bool = False


_SERVICES = (
    Column("SERVICE"),
    Column("STATE"),
    Column("PACKETS/S", 1, right=True),
    Column("DROPPED", 1, right=True),
    Column("DROPS/S", 3, right=True),
    Column("LAG", 2, right=True),
    Column("IN RING", 2, right=True),
    Column("RING", 5, right=True),
    Column("STORED", 3, right=True),
    Column("TO INDEX", 4, right=True),
    Column("CPU", 4, right=True),
    Column("RSS", 5, right=True),
)
_INTERFACES = (
    Column("INTERFACE"),
    Column("SERVICE", 2),
    Column("PACKETS/S", 0, right=True),
    Column("BYTES/S", 0, right=True),
    Column("DROPPED", 1, right=True),
    Column("DROPS/S", 3, right=True),
    Column("LAG", 1, right=True),
    Column("IN RING", 2, right=True),
    Column("RING", 5, right=True),
    Column("CUT", 5, right=True),
    Column("TO DISK/S", 3, right=True),
    Column("OPEN SEGMENT", 4, right=True),
    Column("TREND", 6),
)
_FLOWS = (
    Column("SOURCE"),
    Column("DESTINATION"),
    Column("PROTOCOL", 2),
    Column("BYTES/S", 0, right=True),
    Column("PACKETS/S", 1, right=True),
    Column("INTERFACE", 3),
)
_BARS = "▁▂▃▄▅▆▇█"

MOST_FLOWS = 20
"""Lines of flows where no height bounds them."""


def view(
    snapshot: dict[str, Any], width: int | None = None, height: int | None = None, *, hint: str = ""
) -> list[Line]:
    """The lines of one screen; ``None``: as much as there is. ``hint`` stands at the end of the first line."""
    top = [*_summary(snapshot, width, hint)]
    services = _table(_SERVICES, [_service(one) for one in snapshot["services"]], width)
    interfaces = _table(_INTERFACES, [_interface(one) for one in snapshot["interfaces"]], width)
    flows = _flows(snapshot, width)
    if height is not None:
        left = height - len(top)
        interfaces = _cut(interfaces, max(left // 3 - 1, 2))
        services = _cut(services, max(left - len(interfaces) - 6, 2))
    else:
        flows = flows[: MOST_FLOWS + 1]
    lines = top
    for block in (services, interfaces, flows):
        if block:
            lines = [*lines, [], *block]
    return lines if height is None else lines[:height]


def _cut(block: list[Line], most: int) -> list[Line]:
    """The first lines of it; the last one says how many are missing."""
    if len(block) <= most:
        return block
    return [*block[: most - 1], [Piece(f"… {len(block) - most + 1} more", "dim")]]


def _summary(snapshot: dict[str, Any], width: int | None, hint: str) -> list[Line]:
    agent = snapshot["agent"]
    if agent is None:
        first = [Piece("no agent answers; this is from the stores alone", "yellow")]
    else:
        state = str(agent["state"])
        since = text.ago(agent["since"], snapshot["at"])
        first = [Piece("agent "), Piece(text.safe(state), STYLES.get(state, "")), Piece(f", up {since}")]
        drops = sum(one["dropped"] or 0 for one in snapshot["services"])
        packets = sum(one["rate"] or 0 for one in snapshot["services"])
        first += [
            Piece(f", {round(packets):,} packets/s, "),
            Piece(f"{drops:,} dropped", "bold red" if drops else ""),
        ]
    if hint and width is not None:
        used = sum(len(piece.words) for piece in first)
        if used + 2 + len(hint) <= width:
            first += [Piece(" " * (width - used - len(hint))), Piece(hint, "dim")]
    return [first, *([Piece(text.safe(one), "yellow")] for one in snapshot["problems"][:3])]


def _service(one: dict[str, Any]) -> list[Piece]:
    return [
        Piece(one["name"]),
        Piece(one["state"], STYLES.get(one["state"], "")),
        _number(one["rate"]),
        *_drops(one),
        Piece(lag(one["lag"])),
        _number(one["ring_packets"]),
        Piece(text.size(one["ring"])),
        Piece(text.size(one["store_bytes"])),
        _number(one["index_waiting"]),
        Piece(text.percent(one["cpu_percent"])),
        Piece(text.size(one["rss_bytes"])),
    ]


def _drops(one: dict[str, Any]) -> list[Piece]:
    """How many were dropped, and how many in a second."""
    dropped, rising = one["dropped"], one["dropped_per_second"]
    return [Piece(number(dropped), "bold red" if dropped else ""), Piece(number(rising), "red" if rising else "")]


def _number(value: float | None) -> Piece:
    return Piece(number(value))


def _interface(one: dict[str, Any]) -> list[Piece]:
    about = "~" if one["read_share"] < 1 else ""  # told from a part of the packets

    def rate(key: str, size: bool) -> Piece:
        value = one[key]
        if value is None:
            return Piece(text.ABSENT)
        return Piece(about + (text.size(value) if size else f"{round(value):,}"))

    stored = one["stored_per_second"]
    return [
        Piece(one["interface"]),
        Piece(one["service"]),
        rate("packets_per_second", False),
        rate("bytes_per_second", True),
        *_drops(one),
        Piece("waiting" if one["waiting"] else lag(one["lag"]), "yellow" if one["waiting"] else ""),
        _number(one["ring_packets"]),
        Piece(text.size(one["ring"])),
        _number(one["cut"]),
        Piece(text.size(stored)),
        Piece(text.size(one["open_bytes"])),
        Piece(trend(one["trend"]), "cyan"),
    ]


def trend(values: Sequence[float]) -> str:
    """One character for each value, as high as it is against the greatest."""
    most = max(values, default=0)
    return "".join(_BARS[min(int(value / most * len(_BARS)), len(_BARS) - 1)] if most else _BARS[0] for value in values)


def _flows(snapshot: dict[str, Any], width: int | None) -> list[Line]:
    if not snapshot["flows"]:
        return []
    rows = [
        [
            Piece(end_of(one["source"], one["source_port"])),
            Piece(end_of(one["destination"], one["destination_port"])),
            Piece(protocol_of(one)),
            Piece(text.size(one["bytes_per_second"])),
            Piece(f"{one['packets_per_second']:.1f}"),
            Piece(one["interface"]),
        ]
        for one in snapshot["flows"]
    ]
    return _table(_FLOWS, rows, width)


def _table(columns: Sequence[Column], rows: Sequence[Sequence[Piece]], width: int | None) -> list[Line]:
    """A head and the rows, without the columns that there is no room for; empty when there is no row."""
    if not rows:
        return []
    cells = [[Piece(text.safe(cell.words), cell.style) for cell in row] for row in rows]
    widths = [max(len(column.head), *(len(row[at].words) for row in cells)) for at, column in enumerate(columns)]
    kept = list(range(len(columns)))
    while width is not None and sum(widths[at] + GAP for at in kept) - GAP > width:
        rank = max(columns[at].rank for at in kept)
        if rank == 0:
            break
        kept.remove(max(at for at in kept if columns[at].rank == rank))
    heads = [Piece(column.head, "bold") for column in columns]
    return [_joined([row[at] for at in kept], [columns[at] for at in kept], [widths[at] for at in kept])
            for row in (heads, *cells)]  # fmt: skip


def _joined(row: Sequence[Piece], columns: Sequence[Column], widths: Sequence[int]) -> Line:
    line: Line = []
    for piece, column, width in zip(row, columns, widths, strict=True):
        words = piece.words.rjust(width) if column.right else piece.words.ljust(width)
        line += [Piece(" " * GAP if line else ""), Piece(words, piece.style)]
    return line


def plain(lines: Sequence[Line]) -> list[str]:
    """The lines without styles."""
    return ["".join(piece.words for piece in line).rstrip() for line in lines]
