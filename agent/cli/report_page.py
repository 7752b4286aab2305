"""The page of a capture report: one HTML file that needs nothing else, readable on a screen and on paper. Pure.

No script, no font, no picture from anywhere: a content security policy in the page forbids them. Names in it come from
packets, users and other programs: ``_e`` makes each a text that a browser only shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, tzinfo
from typing import Any

from agent.cli import report_chart as chart
from agent.cli import text
from agent.cli.report_data import LOST
from agent.cli.report_style import STYLE

MOST_CHARTS = 12
"""Interfaces with charts of their own; the rest are added up in one."""

MOST_PINS = 50
"""Pins that are told one by one."""

_ESCAPES = {ord(character): f"&#{ord(character)};" for character in "&<>\"'"}

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
        _section("Traffic over time", _traffic(report, zone), _legend(report)),
        _section("Top talkers", _talkers(report)),
        _section("Drops, and where", _losses(report, zone)),
        _section("How far back", _retention(report, zone)),
        _section("Hosts newly seen", _hosts(report, zone)),
        _section("How to read this", _notes(report)),
    )
    return "\n".join(
        (
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta name="color-scheme" content="light dark"><title>{_e(title)}</title>',
            f"<style>{STYLE}</style></head><body>",
            f"<header><h1>Capture report</h1><p>{_e(_span(report, zone))}</p>",
            f'<p class="mute">{_e(_made(report, zone))}</p></header>',
            "<main>",
            *sections,
            "</main></body></html>\n",
        )
    )


def _e(value: object) -> str:
    """Any value as text of a page, also within a quoted attribute."""
    return text.safe(value).translate(_ESCAPES)


def _section(title: str, body: str, beside: str = "") -> str:
    return f"<section><div class=head><h2>{title}</h2>{beside}</div>{body}</section>"


def _at(instant: float, zone: tzinfo | None) -> datetime:
    return datetime.fromtimestamp(instant, UTC).astimezone(zone)


def _moment(instant: float, zone: tzinfo | None) -> str:
    return f"{_at(instant, zone):%Y-%m-%d %H:%M:%S}"


def _span(report: dict[str, Any], zone: tzinfo | None) -> str:
    begin, end = _at(report["from"], zone), _at(report["to"], zone)
    until = f"{end:%H:%M:%S}" if begin.date() == end.date() else f"{end:%Y-%m-%d %H:%M:%S}"
    length = text.duration(report["to"] - report["from"])
    return f"{begin:%Y-%m-%d %H:%M:%S} to {until} {end:%Z} ({length})"


def _made(report: dict[str, Any], zone: tzinfo | None) -> str:
    names = text.some(report["services"])
    return f"{names} · made {_moment(report['made'], zone)}"


def _number(value: float) -> str:
    return f"{value:,}".replace(",", "\u202f") if isinstance(value, int) else f"{value:g}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = (), kind: str = "") -> str:
    """``rows`` are HTML already; columns in ``right`` hold numbers."""
    classes = [' class="n"' if head in right else "" for head in heads]
    head = "".join(f"<th{one}>{word}</th>" for one, word in zip(classes, heads, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{one}>{cell}</td>" for one, cell in zip(classes, row, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _none(words: str) -> str:
    return f'<p class="none">{words}</p>'


# -- the first figures ---------------------------------------------------------------------------------------------


def _headline(report: dict[str, Any]) -> str:
    seconds = max(report["to"] - report["from"], 1e-9)
    told = [one for one in report["accounts"] if _told(one)]
    lost = sum(one[where] for one in told for where in LOST)
    lag = max((one["lag_max"] for one in told), default=None)
    oldest = min((one["oldest"] for one in report["retention"]), default=None)
    tiles = (
        ("bytes", text.size(report["bytes"]), f"{text.size(report['bytes'] / seconds)}/s on average", ""),
        ("packets", _number(report["packets"]), f"{report['packets'] / seconds:,.1f}/s on average", ""),
        ("flows", _number(report["flows"]), "one direction each", ""),
        ("packets lost", _number(lost), "in closed segments", "bad" if lost else "good")
        if told
        else ("packets lost", text.ABSENT, "no account of it yet", ""),
        ("worst lag", text.ABSENT if lag is None else _seconds(lag), "packet to disk", ""),
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


def _seconds(value: float) -> str:
    if value < 1:
        return f"{value * 1000:.3g} ms"
    return text.duration(value)


# -- traffic -------------------------------------------------------------------------------------------------------


def _legend(report: dict[str, Any]) -> str:
    lost = '<span class="key drop"></span>packets lost' if any(any(one["dropped"]) for one in report["traffic"]) else ""
    each = text.duration(report["bucket_seconds"])
    return (
        '<p class="legend"><span class="key bytes"></span>bytes/s<span class="key packets"></span>packets/s'
        f"{lost}<span>each column {each}</span></p>"
    )


def _traffic(report: dict[str, Any], zone: tzinfo | None) -> str:
    shown = sorted(report["traffic"], key=lambda one: (-sum(one["bytes"]), one["service"], one["interface"]))
    if not shown:
        return _none("Nothing is stored.")
    if len(shown) > MOST_CHARTS:
        rest = shown[MOST_CHARTS - 1 :]
        shown = [*shown[: MOST_CHARTS - 1], _sum(rest)]
    return "".join(_charts(one, report, zone) for one in shown)


def _sum(rest: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "service": f"{len(rest)} other interfaces",
        "interface": "",
        "since": min(one["since"] for one in rest),
        **{kind: [sum(column) for column in zip(*(one[kind] for one in rest), strict=True)]
           for kind in ("bytes", "packets", "dropped")},
    }  # fmt: skip


def _charts(one: dict[str, Any], report: dict[str, Any], zone: tzinfo | None) -> str:
    width = report["bucket_seconds"]
    drawn = [
        chart.rates(
            one[kind],
            one["dropped"],
            begin=report["from"],
            width=width,
            since=one["since"],
            top=max(one[kind], default=0) / width,
            binary=kind == "bytes",
            kind=kind,
            title=f"{kind} per second over time",
            zone=zone,
        )
        for kind in ("bytes", "packets")
    ]
    name = _e(one["service"]) + (f" <span>{_e(one['interface'])}</span>" if one["interface"] else "")
    peak = max(one["bytes"], default=0) / width
    told = f"{text.size(sum(one['bytes']))} in {_number(sum(one['packets']))} packets, at most {text.size(peak)}/s" + (
        f', <b class="bad">{_number(sum(one["dropped"]))} lost</b>' if any(one["dropped"]) else ""
    )
    caption = f"<figcaption><h3>{name}</h3><p>{told}</p></figcaption>"
    return f'<figure>{caption}<div class="pair">{"".join(drawn)}</div></figure>'


# -- talkers -------------------------------------------------------------------------------------------------------


def _talkers(report: dict[str, Any]) -> str:
    if not report["packets"]:
        return _none("No packet is stored of this time.")
    top, total = report["top"], report["bytes"]
    tables = (
        ("Hosts", [(_e(one["host"]), one, f"{one['peers']} peer{'' if one['peers'] == 1 else 's'}")
                   for one in top["host"]]),
        ("Pairs", [(f"{_e(one['a'])}<br>{_e(one['b'])}", one, _flows(one)) for one in top["pair"]]),
        ("Service ports", [(_e(f"{one['protocol']}/{one['port']}"), one,
                            f"{one['servers']} offering, {one['clients']} using") for one in top["port"]]),
        ("Protocols", [(_e(one["protocol"]) + _over(one), one, _flows(one)) for one in top["proto"]]),
    )  # fmt: skip
    return '<div class="grid2">' + "".join(_ranking(title, rows, total) for title, rows in tables) + "</div>"


def _flows(one: dict[str, Any]) -> str:
    return f"{_number(one['flows'])} flow{'' if one['flows'] == 1 else 's'}"


def _over(one: dict[str, Any]) -> str:
    return f" <i>{_e(one['family'])}</i>" if one["family"] in ("ipv4", "ipv6") else ""


def _ranking(title: str, rows: list[tuple[str, dict[str, Any], str]], total: int) -> str:
    if not rows:
        return f"<div><h3>{title}</h3>{_none('None.')}</div>"
    most = max(one["bytes"] for _, one, _ in rows) or 1
    cells = [
        (
            f"<span class=name>{name}</span><i>{more}</i>",
            chart.bar(one["bytes"] / most),
            text.size(one["bytes"]),
            f"{100 * one['bytes'] / max(total, 1):.1f}\u202f%",
            _number(one["packets"]),
        )
        for name, one, more in rows
    ]
    heads = (title, "", "Bytes", "Share", "Packets")
    return f"<div>{_table(heads, cells, right=('Bytes', 'Share', 'Packets'), kind='ranking')}</div>"


# -- losses --------------------------------------------------------------------------------------------------------


def _losses(report: dict[str, Any], zone: tzinfo | None) -> str:
    if not report["accounts"]:
        return _none("No segment of this time is stored.")
    heads = ("Capture", "Segments", "Received", "Kernel ring", "Interface", "Not written", "Written", "Balance", "Lag")
    rows = [
        (
            _place(one) + _filters(one["filters"]),
            _segments(one),
            _number(one["received"]),
            *(_lost(one[where]) for where in LOST),
            _number(one["written"]),
            _balance(one),
            _seconds(one["lag_max"]),
        )
        for one in report["accounts"]
    ]
    right = ("Received", "Kernel ring", "Interface", "Not written", "Written", "Lag")
    parts = [
        _table(heads, rows, right=right),
        '<p class="note">Balance: what was written is what was received less what the ring and the disk refused. '
        "Interface: lost before the kernel counted it as received.</p>",
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
        parts.append(_table(heads, [_segment(one, zone) for one in report["losses"]], right=right))
        if report["losses_more"]:
            parts.append(f'<p class="note">and {_number(report["losses_more"])} more segments with fewer</p>')
    return "".join(parts)


def _place(one: dict[str, Any]) -> str:
    return f"{_e(one['service'])} <span class=name>{_e(one['interface'])}</span>"


def _filters(filters: list[str]) -> str:
    return "".join(f'<i class="code">{_e(one)}</i>' for one in filters[:3])


def _segments(one: dict[str, Any]) -> str:
    words = [_number(one["segments"])]
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
    return f'<b class="bad">{_number(value)}</b>' if value else "0"


def _told(one: dict[str, Any]) -> bool:
    """Whether there is an account of any of its segments that tells what was received."""
    known: int = one["segments"] - one["open_segments"] - one["recovered_segments"] - one["unaccounted_segments"]
    return known > 0


def _balance(one: dict[str, Any]) -> str:
    if not _told(one):
        return "<i>not known yet</i>"
    if one["holds"]:
        return '<span class="good">holds</span>'
    return f'<b class="bad">off by {_number(one["unaccounted"])}</b>'


def _segment(one: dict[str, Any], zone: tzinfo | None) -> tuple[str, ...]:
    return (
        _place(one),
        *(_moment(one[when], zone) if one[when] else "?" for when in ("opened", "closed")),
        _e(one["reason"]),
        "?" if one["received"] is None else _number(one["received"]),
        *(_lost(one[where]) for where in LOST),
        {True: '<span class="good">holds</span>', False: '<b class="bad">does not hold</b>', None: "not known"}[
            one["holds"]
        ],
    )


# -- retention -----------------------------------------------------------------------------------------------------


def _retention(report: dict[str, Any], zone: tzinfo | None) -> str:
    stores = report["retention"]
    if not stores:
        return _none("Nothing is stored.")
    begin = min(min(one["oldest"] for one in stores), report["from"])
    end = max(report["made"], report["to"], begin + 1)
    rows = [
        (
            _place(one),
            chart.timeline(
                begin,
                end,
                (one["oldest"], one["newest"]),
                (report["from"], report["to"]),
                [(pin["from"], pin["to"]) for pin in one["pins"]],
            ),
            f"{text.ago(one['oldest'], report['made'])}<i>{_moment(one['oldest'], zone)}</i>",
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
    return _table(heads, rows, right=("Goes back", "Size"), kind="retention") + legend + _pins(report, zone)


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
            _e(service),
            f"<span class=name>{_e(name)}</span>",
            _moment(pin["from"], zone),
            _moment(pin["to"], zone),
            _e(pin["reason"]) or "<i>no reason given</i>",
            _e(pin["by"]),
        )
        for (service, name), pin in list(pins.items())[:MOST_PINS]
    ]
    more = len(pins) - len(rows)
    return f"<h3>Pins</h3>{_table(('Capture', 'Pin', 'From', 'To', 'Reason', 'By'), rows)}" + (
        f'<p class="note">and {more} more</p>' if more else ""
    )


# -- hosts ---------------------------------------------------------------------------------------------------------


def _hosts(report: dict[str, Any], zone: tzinfo | None) -> str:
    hosts = report["hosts"]
    if not hosts["known"]:
        return _none("No inventory is kept here yet.")
    if not hosts["new"]:
        return _none(f"None: all {_number(hosts['known'])} hosts were known before.")
    rows = [
        (
            _moment(one["first"], zone),
            "<br>".join(f"<span class=name>{_e(address)}</span>" for address in one["addresses"][:4])
            + (f"<i>and {len(one['addresses']) - 4} more</i>" if len(one["addresses"]) > 4 else ""),
            f"<span class=name>{_e(one['mac'] or '')}</span>",
            _e(one["name"] or "") + (" <i>this host</i>" if one["this_host"] else ""),
            _e(", ".join(one["seen_by"])),
        )
        for one in hosts["new"]
    ]
    parts = [_table(("First seen", "Addresses", "MAC", "Name", "Seen by"), rows)]
    if hosts["new_count"] > len(rows):
        parts.append(f'<p class="note">and {_number(hosts["new_count"] - len(rows))} more</p>')
    if hosts["since"] >= report["from"]:
        parts.append(
            '<p class="note">The inventory itself began within this time: these are all hosts it has met, and some of '
            "them may have been there before.</p>"
        )
    return "".join(parts)


def _notes(report: dict[str, Any]) -> str:
    notes = [_e(note) for note in _NOTES]
    if report["evicted_flows"]:
        notes.append("There were more flows than fit into memory: counts of flows, peers and parties are estimates.")
    if report["unindexed_bytes"]:
        notes.append(f"{text.size(report['unindexed_bytes'])} of packets had no index yet and were read as they are.")
    notes += [f'<b class="bad">Not read:</b> {_e(one)}' for one in report["unreadable"][:20]]
    if len(report["unreadable"]) > 20:
        notes.append(f'<b class="bad">{len(report["unreadable"]) - 20} more could not be read.</b>')
    return "<ul>" + "".join(f"<li>{note}</li>" for note in notes) + "</ul>"
