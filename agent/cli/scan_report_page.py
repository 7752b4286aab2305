"""The page of a scan report: one HTML file that needs nothing else, as that of a capture report. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import tzinfo
from typing import Any

from agent.cli import text
from agent.cli.report_chart import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    count_label,
    round_ticks,
    time_ticks,
)
from agent.cli.report_html import at, e, moment, none, number, section, table
from agent.cli.report_style import STYLE
from agent.cli.scan_words import says_everything

MOST_ROWS = 2000
"""Of one table; what there is beyond that is counted."""

MOST_NOTES = 20

_GRAVE = ("critical", "high")

_NOTES = (
    "Each step of a chart is one run. A run that is marked was degraded or did not come to its end: what it did not "
    "see may have been there, and nothing was closed because of it.",
    "A host or port that one run missed stays among those that are there: to be gone takes a second look that misses "
    "it. So the tables can say more than the last step of a chart.",
    "Drift is as it was when the page was made, whatever time the page is about.",
)


def page(report: dict[str, Any], zone: tzinfo | None = None) -> str:
    """The document of ``scan_report.gather`` as HTML; times are those of ``zone`` (``None``: of this host)."""
    title = f"Scan report, {_span(report, zone)}"
    names = text.some([scan["scan"] for scan in report["scans"]])
    sections = (
        _headline(report),
        section("Ports and hosts over time", "".join(_chart(scan, report, zone) for scan in report["scans"]), _LEGEND),
        section("What changed", _changes(report, zone)),
        section("Not as declared", _drift(report, zone)),
        section("Hosts now", _hosts(report, zone)),
        section("How to read this", "<ul>" + "".join(f"<li>{note}</li>" for note in _notes(report)) + "</ul>"),
    )
    return "\n".join(
        (
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta name="color-scheme" content="light dark"><title>{e(title)}</title>',
            f"<style>{STYLE}{_STYLE}</style></head><body>",
            f"<header><h1>Scan report</h1><p>{e(_span(report, zone))}</p>",
            f'<p class="mute">{e(names)} · made {e(moment(report["made"], zone))}</p></header>',
            "<main>",
            *sections,
            "</main></body></html>\n",
        )
    )


_STYLE = ".findings .name,.findings .when { white-space:nowrap; }\n"

_LEGEND = (
    '<div class="legend"><span class="key bytes"></span>open ports<span class="key packets"></span>hosts up'
    '<span class="key drop"></span>degraded or unfinished</div>'
)


def _span(report: dict[str, Any], zone: tzinfo | None) -> str:
    begin, end = at(report["from"], zone), at(report["to"], zone)
    return f"{begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M %Z} ({text.duration(report['to'] - report['from'])})"


def _running(run: dict[str, Any]) -> bool:
    """Under way: how much it finds is not known yet."""
    return bool(run["status"] == "running")


def _doubtful(run: dict[str, Any]) -> bool:
    return bool(run["degraded"]) or run["status"] not in ("finished", "imported", "running")


def _headline(report: dict[str, Any]) -> str:
    runs = [run for scan in report["scans"] for run in scan["runs"]]
    doubtful = sum(map(_doubtful, runs))
    running = sum(map(_running, runs))
    of_runs = f"{number(doubtful)} degraded or unfinished" + (f", {number(running)} under way" if running else "")
    opened = sum(port["state"] == "open" for host in report["hosts"] for port in host["ports"])
    drift = report["drift"]
    left_out = report["left_out"]
    grave = sum(row["severity"] in _GRAVE for row in drift or ())
    at_least = "+" if left_out and grave == len(drift or ()) else ""  # the gravest are told, and then others
    newest = max((run["started"] for run in runs), default=None)
    more = any(scan["more_changes"] for scan in report["scans"])
    tiles = (
        ("hosts up", number(len(report["hosts"])), "now", ""),
        ("ports open", number(opened), "now", ""),
        ("runs", number(len(runs)), of_runs, "bad" if doubtful else ""),
        ("changes", number(len(report["changes"])) + ("+" if more else ""), "in this time", ""),
        ("not as declared", text.ABSENT, "nothing is declared here", "")
        if drift is None
        else (
            "not as declared",
            number(len(drift) + left_out),
            f"{number(grave)}{at_least} of them grave",
            "bad" if grave else "good",
        ),
        ("last run", text.ago(newest, report["made"]), "ago, when it began", ""),
    )
    return (
        '<div class="tiles">'
        + "".join(
            f'<div class="tile {kind}"><b>{value}</b><span>{name}</span><i>{beside}</i></div>'
            for name, value, beside, kind in tiles
        )
        + "</div>"
    )


def _chart(scan: dict[str, Any], report: dict[str, Any], zone: tzinfo | None) -> str:
    runs = [run for run in scan["runs"] if not _running(run)]
    under_way = ", ".join(f"run {run['run']} is under way" for run in scan["runs"] if _running(run))
    name = f"<h3>{e(scan['scan'])}</h3>"
    if not runs:
        why = f"No run has ended in this time; {under_way}." if under_way else "It did not run in this time."
        return f"<figure><figcaption>{name}</figcaption>{none(why)}</figure>"
    pair = (("ports_open", "bytes", "open ports"), ("hosts_up", "packets", "hosts up"))
    charts = "".join(
        _steps(runs, key, kind, f"{label} by run", (report["from"], report["to"]), zone) for key, kind, label in pair
    )
    last = runs[-1]
    beside = f"{number(last['ports_open'])} open ports on {number(last['hosts_up'])} hosts in run {last['run']}"
    beside += f"; {under_way}" if under_way else ""
    return f'<figure><figcaption>{name}<p>{beside}</p></figcaption><div class="pair">{charts}</div></figure>'


def _steps(
    runs: Sequence[dict[str, Any]], key: str, kind: str, title: str, span: tuple[float, float], zone: tzinfo | None
) -> str:
    """A step for each run, from its beginning to that of the next, or to the end of the time."""
    begin, end = span[0], max(span[1], span[0] + 1)
    if runs[0]["started"] - begin > 0.2 * (end - begin):  # most of the picture would be empty
        begin = runs[0]["started"] - 0.02 * (end - runs[0]["started"])
    ticks = round_ticks(max(1, *(run[key] for run in runs)), 1000)
    across, down = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(instant: float) -> float:
        return LEFT + min(max((instant - begin) / (end - begin), 0.0), 1.0) * across

    def y(value: float) -> float:
        return TOP + down * (1 - value / ticks[-1])

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">']
    starts = [run["started"] for run in runs]
    for run, until in zip(runs, [*starts[1:], end], strict=True):
        if _doubtful(run):
            wide = max(2.0, x(until) - x(run["started"]))
            parts.append(
                f'<rect class="drop" x="{x(run["started"]):.1f}" y="{TOP}" width="{wide:.1f}" height="{down}"/>'
            )
    for tick in ticks:
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{y(tick):.1f}" x2="{WIDTH - RIGHT}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(tick) + 3.5:.1f}" text-anchor="end">{count_label(tick)}</text>')
    for instant, label in time_ticks(begin, end, zone):
        parts.append(
            f'<line class="tick" x1="{x(instant):.1f}" y1="{TOP + down}" x2="{x(instant):.1f}" y2="{TOP + down + 4}"/>'
        )
        parts.append(f'<text x="{x(instant):.1f}" y="{HEIGHT - 5}" text-anchor="middle">{label}</text>')
    line = [f"M{x(starts[0]):.1f} {y(runs[0][key]):.1f}"]
    for run in runs[1:]:
        line.append(f"H{x(run['started']):.1f}V{y(run[key]):.1f}")
    line.append(f"H{x(end):.1f}")
    path = "".join(line)
    parts.append(f'<path class="area {kind}" d="{path}V{TOP + down}H{x(starts[0]):.1f}Z"/>')
    parts.append(f'<path class="line {kind}" d="{path}"/></svg>')
    return "".join(parts)


def _changes(report: dict[str, Any], zone: tzinfo | None) -> str:
    changes = report["changes"]
    if not changes:
        return none("Nothing, as far as scans have looked.")
    several = _several_sites(report)
    rows = [
        (
            _when(one["time"], zone),
            e(one["kind"].replace("_", " ")),
            _name(one["address"]) + _site(one, several),
            _name(f"{one['protocol']}/{one['number']}" if one["protocol"] else ""),
            e(one["before"]),
            e(one["after"]),
            f'<span class="when">{e(one["scan"])}</span>'
            + (f" <i>run {one['run']}</i>" if one["run"] is not None else " <i>seen by a capture</i>"),
        )
        for one in changes[:MOST_ROWS]
    ]
    heads = ("When", "What", "Host", "Port", "Before", "After", "Scan")
    more = any(scan["more_changes"] for scan in report["scans"])
    return table(heads, rows, kind="findings") + _beyond(len(changes), more=more)


def _drift(report: dict[str, Any], zone: tzinfo | None) -> str:
    drift = report["drift"]
    notes = "".join(f'<p class="note">{e(note)}</p>' for note in report["notes"][:MOST_NOTES])
    if drift is None:
        return none("There is no declaration here that anything could be held against, or it has mistakes.") + notes
    if not drift:
        return none("Everything is as declared, as far as anybody has looked.") + notes
    rows = [
        (
            f'<span class="bad">{e(row["severity"])}</span>' if row["severity"] in _GRAVE else e(row["severity"]),
            e(row["kind"].replace("_", " ")),
            _name(row["host"]) + (f" <i>{e(row['site'])}</i>" if row["site"] else ""),
            _name(f"{row['protocol']}/{row['port']}" if row["port"] else ""),
            _when(row["since"], zone),
            e(row["what"]) + "".join(f"<i>{e(one['text'])}</i>" for one in row["evidence"]),
        )
        for row in drift[:MOST_ROWS]
    ]
    return table(
        ("How grave", "Kind", "Host", "Port", "Since", "What, and the evidence"), rows, kind="findings"
    ) + _beyond(len(drift) + report["left_out"])


def _hosts(report: dict[str, Any], zone: tzinfo | None) -> str:
    hosts = report["hosts"]
    if not hosts:
        return none("No run has seen a host so far.")
    several = _several_sites(report)
    rows = []
    for host in hosts:
        everything = host["open_to_everything"]
        trap = says_everything(everything) if everything else ""
        beside = [trap, *host["names"][:3], host["mac"], *host["os"][:1]]
        first = _name(host["address"]) + _site(host, several) + "".join(f"<i>{e(one)}</i>" for one in beside if one)
        ports = host["ports"] or [None]
        for place, port in enumerate(ports):
            seen = host if port is None else port
            rows.append(
                (
                    first if place == 0 else "",
                    "" if port is None else _name(f"{port['protocol']}/{port['number']}"),
                    e(host["state"] if port is None else _state(port)),
                    "" if port is None else e(_service(port)),
                    _when(seen["first_seen"], zone),
                    _when(seen["last_seen"], zone),
                )
            )
    heads = ("Host", "Port", "State", "Service", "First seen", "Last seen")
    return table(heads, rows[:MOST_ROWS], kind="findings") + _beyond(len(rows))


def _several_sites(report: dict[str, Any]) -> bool:
    """Whether an address alone does not say which host is meant."""
    return len({one["site"] for one in (*report["hosts"], *report["changes"])}) > 1


def _site(one: dict[str, Any], several: bool) -> str:
    return f" <i>{e(one['site'])}</i>" if several and one["site"] else ""


def _state(port: dict[str, Any]) -> str:
    if port["flapping"]:
        return f"{port['state']} (flapping)"
    return port["state"] if port["confidence"] == "certain" else f"{port['state']} ({port['confidence']})"


def _service(port: dict[str, Any]) -> str:
    name = "/".join(part for part in (port["tunnel"], port["service"]) if part)
    extra = f"({port['extrainfo']})" if port["extrainfo"] else ""
    return " ".join(part for part in (name, port["product"], port["version"], extra) if part)


def _name(words: str) -> str:
    return f'<span class="name">{e(words)}</span>'


def _when(instant: float | None, zone: tzinfo | None) -> str:
    return text.ABSENT if instant is None else f'<span class="when">{moment(instant, zone)}</span>'


def _beyond(rows: int, *, more: bool = False) -> str:
    left = rows - MOST_ROWS
    if left > 0:
        return f'<p class="note">and {number(left)} more</p>'
    return '<p class="note">There were more; these are the newest of each scan.</p>' if more else ""


def _notes(report: dict[str, Any]) -> list[str]:
    return [e(note) for note in _NOTES] + [
        f'<b class="bad">Not read:</b> {e(one)}' for one in report["unreadable"][:20]
    ]
