"""The page of a capture report: one HTML file that needs nothing else, readable on a screen and on paper. Pure.

No script, no font, no picture from anywhere: a content security policy in the page forbids them.
"""

from __future__ import annotations

from datetime import tzinfo
from typing import Any

from agent.cli import text
from agent.cli.accounts import LOST
from agent.cli.report_html import at, e, latency, moment, none, number, section, table
from agent.cli.report_losses import accounted, losses
from agent.cli.report_retention import retention
from agent.cli.report_style import STYLE
from agent.cli.report_traffic import legend, talkers, traffic

_NOTES = (
    "Bytes are frames on the wire, link header included; a packet that two interfaces saw is counted on both. Sums and "
    "talkers are exact for the span. A host has both directions, so what it sends to itself is in its bytes twice.",
    "Traffic over time is made of flows: each flow's packets are spread evenly between its first and its last one in a "
    "segment, so that a burst within one flow looks flatter than it was. The sum of all columns is exact for each "
    "segment.",
    "Losses come from the account that is stored with each segment when it is closed; those of a segment are spread "
    "evenly over it, and those of a segment that only begins or ends in the span count whole. The segment that is "
    "being written has no account yet.",
)


def page(report: dict[str, Any], zone: tzinfo | None = None) -> str:
    """The document of ``report_data.gather`` as HTML; times are those of ``zone`` (``None``: of this host)."""
    title = f"Capture report, {_span(report, zone)}"
    sections = (
        _headline(report),
        section("Traffic over time", traffic(report, zone), legend(report)),
        section("Top talkers", talkers(report)),
        section("Drops, and where", losses(report, zone)),
        section("How far back", retention(report, zone)),
        section("Hosts newly seen", _hosts(report, zone)),
        section("How to read this", _notes(report, zone)),
    )
    return "\n".join(
        (
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta name="color-scheme" content="light dark"><title>{e(title)}</title>',
            f"<style>{STYLE}</style></head><body>",
            f"<header><h1>Capture report</h1><p>{e(_span(report, zone))}</p>",
            f'<p class="mute">{e(_made(report, zone))}</p></header>',
            "<main>",
            *sections,
            "</main></body></html>\n",
        )
    )


def _span(report: dict[str, Any], zone: tzinfo | None) -> str:
    begin, end = at(report["from"], zone), at(report["to"], zone)
    until = f"{end:%H:%M:%S}" if begin.date() == end.date() else f"{end:%Y-%m-%d %H:%M:%S}"
    length = text.duration(report["to"] - report["from"])
    return f"{begin:%Y-%m-%d %H:%M:%S} to {until} {end:%Z} ({length})"


def _made(report: dict[str, Any], zone: tzinfo | None) -> str:
    names = text.some(report["services"])
    return f"{names} · made {moment(report['made'], zone)}"


def _headline(report: dict[str, Any]) -> str:
    seconds = max(report["to"] - report["from"], 1e-9)
    told = [one for one in report["accounts"] if accounted(one)]
    lost = sum(one[where] for one in told for where in LOST)
    lag = max((one["lag_max"] for one in told), default=None)
    oldest = min((one["oldest"] for one in report["retention"]), default=None)
    tiles = (
        ("bytes", text.size(report["bytes"]), f"{text.size(report['bytes'] / seconds)}/s on average", ""),
        ("packets", number(report["packets"]), f"{report['packets'] / seconds:,.1f}/s on average", ""),
        ("flows", number(report["flows"]), "one direction each", ""),
        ("packets lost", number(lost), "in closed segments", "bad" if lost else "good")
        if told
        else ("packets lost", text.ABSENT, "no account of it yet", ""),
        ("worst lag", text.ABSENT if lag is None else latency(lag), "packet to disk", ""),
        ("goes back", text.ago(oldest, report["made"]), "the oldest packet", ""),
    )
    return (
        '<div class="tiles">'
        + "".join(
            f'<div class="tile {kind}"><b>{value}</b><span>{name}</span><i>{more}</i></div>'
            for name, value, more, kind in tiles
        )
        + "</div>"
    )


def _hosts(report: dict[str, Any], zone: tzinfo | None) -> str:
    hosts = report["hosts"]
    if not hosts["known"]:
        return none("No inventory is kept here yet.")
    if not hosts["new"]:
        return none(f"None: all {number(hosts['known'])} hosts were known before.")
    rows = [
        (
            moment(one["first"], zone),
            "<br>".join(f"<span class=name>{e(address)}</span>" for address in one["addresses"][:4])
            + (f"<i>and {len(one['addresses']) - 4} more</i>" if len(one["addresses"]) > 4 else ""),
            f"<span class=name>{e(one['mac'] or '')}</span>",
            e(one["name"] or "") + (" <i>this host</i>" if one["this_host"] else ""),
            e(", ".join(one["seen_by"])),
        )
        for one in hosts["new"]
    ]
    parts = [table(("First seen", "Addresses", "MAC", "Name", "Seen by"), rows)]
    if hosts["new_count"] > len(rows):
        parts.append(f'<p class="note">and {number(hosts["new_count"] - len(rows))} more</p>')
    if hosts["since"] >= report["from"]:
        parts.append(
            '<p class="note">The inventory itself began within this time: these are all hosts it has met, and some of '
            "them may have been there before.</p>"
        )
    return "".join(parts)


def _notes(report: dict[str, Any], zone: tzinfo | None) -> str:
    notes = [e(note) for note in _NOTES]
    if report["evicted_flows"]:
        notes.append("There were more flows than fit into memory: counts of flows, peers and parties are estimates.")
    if report["unindexed_bytes"]:
        notes.append(f"{text.size(report['unindexed_bytes'])} of packets had no index yet and were read as they are.")
    notes += [
        f'<b class="bad">Stopped by --time-limit:</b> traffic of {e(one["service"])} is left out from '
        f"{moment(one['from'], zone)} on"
        for one in report["left_out"]
    ]
    notes += [f'<b class="bad">Not read:</b> {e(one)}' for one in report["unreadable"][:20]]
    if len(report["unreadable"]) > 20:
        notes.append(f'<b class="bad">{len(report["unreadable"]) - 20} more could not be read.</b>')
    return "<ul>" + "".join(f"<li>{note}</li>" for note in notes) + "</ul>"
