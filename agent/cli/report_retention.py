"""Of a capture report: how far back the stores go, and what is pinned. Pure."""

from __future__ import annotations

from datetime import tzinfo
from typing import Any

from agent.cli import report_chart as chart
from agent.cli import text
from agent.cli.report_html import e, moment, none, place, table

MOST_PINS = 50
"""Pins that are told one by one."""


def retention(report: dict[str, Any], zone: tzinfo | None) -> str:
    """For each interface what is stored of which time, and the pins."""
    stores = report["retention"]
    if not stores:
        return none("Nothing is stored.")
    begin = min(min(one["oldest"] for one in stores), report["from"])
    end = max(report["made"], report["to"], begin + 1)
    rows = [
        (
            place(one),
            chart.timeline(
                begin,
                end,
                (one["oldest"], one["newest"]),
                (report["from"], report["to"]),
                [(pin["from"], pin["to"]) for pin in one["pins"]],
            ),
            f"{text.ago(one['oldest'], report['made'])}<i>{moment(one['oldest'], zone)}</i>",
            text.size(one["bytes"]),
            _budget(one),
        )
        for one in stores
    ]
    rows.append(("", chart.axis(begin, end, zone), "", "", ""))
    heads = ("Capture", "Stored", "Goes back", "Size", "Budget of the capture")
    pinned = any(one["pins"] for one in stores)
    legend = (
        '<p class="legend"><span class="key held"></span>stored<span class="key asked"></span>this report'
        + ('<span class="key pin"></span>pinned' if pinned else "")
        + "</p>"
    )
    return table(heads, rows, right=("Goes back", "Size"), kind="retention") + legend + _pins(report, zone)


def _budget(one: dict[str, Any]) -> str:
    if not one["budget"]:
        return "<i>not known: the declaration does not name it</i>"
    share = one["service_bytes"] / one["budget"]
    age = f", at most {text.duration(one['max_age'])} old" if one["max_age"] else ""
    return f"{chart.bar(share, 'held')}<i>{share:.0%} of {text.size(one['budget'])}{age}</i>"


def _pins(report: dict[str, Any], zone: tzinfo | None) -> str:
    pins = {(one["service"], pin["id"]): pin for one in report["retention"] for pin in one["pins"]}
    if not pins:
        return ""
    rows = [
        (
            e(service),
            f"<span class=name>{e(name)}</span>",
            moment(pin["from"], zone),
            moment(pin["to"], zone),
            e(pin["reason"]) or "<i>no reason given</i>",
            e(pin["by"]),
        )
        for (service, name), pin in list(pins.items())[:MOST_PINS]
    ]
    more = len(pins) - len(rows)
    return f"<h3>Pins</h3>{table(('Capture', 'Pin', 'From', 'To', 'Reason', 'By'), rows)}" + (
        f'<p class="note">and {more} more</p>' if more else ""
    )
