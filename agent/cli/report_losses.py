"""Of a capture report: what was lost, where, and whether the accounts add up. Pure."""

from __future__ import annotations

from datetime import tzinfo
from typing import Any

from agent.cli.accounts import LOST
from agent.cli.report_html import e, latency, moment, none, number, place, table


def losses(report: dict[str, Any], zone: tzinfo | None) -> str:
    """The balance of each interface, and the segments with losses one by one."""
    if not report["accounts"]:
        return none("No segment of this time is stored.")
    counts = ("Received", "Kernel ring", "Interface", "Not written", "Written", "Cut")
    rows = [
        (
            place(one) + _filters(one["filters"]),
            _segments(one),
            number(one["received"]),
            *(_lost(one[where]) for where in LOST),
            number(one["written"]),
            number(one["cut"]),
            _balance(one),
            latency(one["lag_max"]),
        )
        for one in report["accounts"]
    ]
    right = ("Received", "Kernel ring", "Interface", "Not written", "Written", "Cut", "Lag")
    parts = [
        table(("Capture", "Segments", *counts, "Balance", "Lag"), rows, right=right),
        '<p class="note">Balance: what was written is what was received less what the ring and the disk refused. '
        "Interface: lost before the kernel counted it as received. Cut: stored to the snaplen only, as far as there "
        "are indexes.</p>",
    ]
    if report["losses"]:
        parts.append("<h3>Segments with losses</h3>")
        heads = (
            "Capture",
            "From",
            "To",
            "Closed for",
            "Received",
            "Kernel ring",
            "Interface",
            "Not written",
            "Balance",
        )
        parts.append(table(heads, [_segment(one, zone) for one in report["losses"]], right=right))
        if report["losses_more"]:
            parts.append(f'<p class="note">and {number(report["losses_more"])} more segments with fewer</p>')
    return "".join(parts)


def _filters(filters: list[str]) -> str:
    return "".join(f'<i class="code">{e(one)}</i>' for one in filters[:3])


def _segments(one: dict[str, Any]) -> str:
    words = [number(one["segments"])]
    words += [
        f"{one[key]} {word}"
        for key, word in (
            ("open_segments", "open"),
            ("recovered_segments", "recovered"),
            ("unaccounted_segments", "without account"),
        )
        if one[key]
    ]
    return words[0] + (f"<i>{', '.join(words[1:])}</i>" if words[1:] else "")


def _lost(value: int | None) -> str:
    if value is None:
        return "?"
    return f'<b class="bad">{number(value)}</b>' if value else "0"


def accounted(one: dict[str, Any]) -> bool:
    """Whether there is an account of any of its segments that tells what was received."""
    known: int = one["segments"] - one["open_segments"] - one["recovered_segments"] - one["unaccounted_segments"]
    return known > 0


def _balance(one: dict[str, Any]) -> str:
    if not accounted(one):
        return "<i>not known yet</i>"
    if one["holds"]:
        return '<span class="good">holds</span>'
    return f'<b class="bad">off by {number(one["unaccounted"])}</b>'


def _segment(one: dict[str, Any], zone: tzinfo | None) -> tuple[str, ...]:
    return (
        place(one),
        *(moment(one[when], zone) if one[when] else "?" for when in ("from", "to")),
        e(one["reason"]),
        "?" if one["received"] is None else number(one["received"]),
        *(_lost(one[where]) for where in LOST),
        {True: '<span class="good">holds</span>', False: '<b class="bad">does not hold</b>', None: "not known"}[
            one["holds"]
        ],
    )
