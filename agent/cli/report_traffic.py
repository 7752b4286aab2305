"""Of a capture report: traffic over time by interface, and who talked most. Pure."""

from __future__ import annotations

from datetime import tzinfo
from typing import Any

from agent.cli import report_chart as chart
from agent.cli import text
from agent.cli.report_html import e, none, number, table

MOST_CHARTS = 12
"""Interfaces with charts of their own; the rest are added up in one."""


def legend(report: dict[str, Any]) -> str:
    """What the colours of the charts mean."""
    lost = '<span class="key drop"></span>packets lost' if any(any(one["dropped"]) for one in report["traffic"]) else ""
    each = text.duration(report["bucket_seconds"])
    return (
        '<p class="legend"><span class="key bytes"></span>bytes/s<span class="key packets"></span>packets/s'
        f"{lost}<span>each column {each}</span></p>"
    )


def traffic(report: dict[str, Any], zone: tzinfo | None) -> str:
    """Two charts for each interface, the busiest first."""
    shown = sorted(report["traffic"], key=lambda one: (-sum(one["bytes"]), one["service"], one["interface"]))
    if not shown:
        return none("Nothing is stored.")
    if len(shown) > MOST_CHARTS:
        rest = shown[MOST_CHARTS - 1 :]
        shown = [*shown[: MOST_CHARTS - 1], _sum(rest)]
    return "".join(_charts(one, report, zone) for one in shown)


def _sum(rest: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "service": f"{len(rest)} other interfaces",
        "interface": "",
        "oldest": min(one["oldest"] for one in rest),
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
            since=one["oldest"],
            top=max(one[kind], default=0) / width,
            binary=kind == "bytes",
            kind=kind,
            title=f"{kind} per second over time",
            zone=zone,
        )
        for kind in ("bytes", "packets")
    ]
    name = e(one["service"]) + (f" <span>{e(one['interface'])}</span>" if one["interface"] else "")
    peak = max(one["bytes"], default=0) / width
    told = f"{text.size(sum(one['bytes']))} in {number(sum(one['packets']))} packets, at most {text.size(peak)}/s" + (
        f', <b class="bad">{number(sum(one["dropped"]))} lost</b>' if any(one["dropped"]) else ""
    )
    caption = f"<figcaption><h3>{name}</h3><p>{told}</p></figcaption>"
    return f'<figure>{caption}<div class="pair">{"".join(drawn)}</div></figure>'


def talkers(report: dict[str, Any]) -> str:
    """The four rankings."""
    if not report["packets"]:
        return none("No packet is stored of this time.")
    top, total = report["top"], report["bytes"]
    tables = (
        ("Hosts", [(e(one["host"]), one, f"{one['peers']} peer{'' if one['peers'] == 1 else 's'}")
                   for one in top["host"]]),
        ("Pairs", [(f"{e(one['a'])}<br>{e(one['b'])}", one, _flows(one)) for one in top["pair"]]),
        ("Service ports", [(e(f"{one['protocol']}/{one['port']}"), one,
                            f"{one['servers']} offering, {one['clients']} using") for one in top["port"]]),
        ("Protocols", [(e(one["protocol"]) + _over(one), one, _flows(one)) for one in top["proto"]]),
    )  # fmt: skip
    return '<div class="grid2">' + "".join(_ranking(title, rows, total) for title, rows in tables) + "</div>"


def _flows(one: dict[str, Any]) -> str:
    return f"{number(one['flows'])} flow{'' if one['flows'] == 1 else 's'}"


def _over(one: dict[str, Any]) -> str:
    return f" <i>{e(one['family'])}</i>" if one["family"] in ("ipv4", "ipv6") else ""


def _ranking(title: str, rows: list[tuple[str, dict[str, Any], str]], total: int) -> str:
    if not rows:
        return f"<div><h3>{title}</h3>{none('None.')}</div>"
    most = max(one["bytes"] for _, one, _ in rows) or 1
    cells = [
        (
            f"<span class=name>{name}</span><i>{more}</i>",
            chart.bar(one["bytes"] / most),
            text.size(one["bytes"]),
            f"{100 * one['bytes'] / max(total, 1):.1f}\u202f%",
            number(one["packets"]),
        )
        for name, one, more in rows
    ]
    heads = (title, "", "Bytes", "Share", "Packets")
    return f"<div>{table(heads, cells, right=('Bytes', 'Share', 'Packets'), kind='ranking')}</div>"
