"""What the page of a capture report is made of: texts, numbers, times, tables. Pure.

Names in it come from packets, users and other programs: ``e`` makes each a text that a browser only shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, tzinfo
from typing import Any

from agent.cli import text

_ESCAPES = {ord(character): f"&#{ord(character)};" for character in "&<>\"'"}


def e(value: object) -> str:
    """Any value as text of a page, also within a quoted attribute."""
    return text.safe(value).translate(_ESCAPES)


def section(title: str, body: str, beside: str = "") -> str:
    return f"<section><div class=head><h2>{title}</h2>{beside}</div>{body}</section>"


def at(instant: float, zone: tzinfo | None) -> datetime:
    return datetime.fromtimestamp(instant, UTC).astimezone(zone)


def moment(instant: float, zone: tzinfo | None) -> str:
    return f"{at(instant, zone):%Y-%m-%d %H:%M:%S}"


def number(value: float) -> str:
    return f"{value:,}".replace(",", "\u202f") if isinstance(value, int) else f"{value:g}"


def latency(value: float) -> str:
    if value < 1:
        return f"{value * 1000:.3g} ms"
    return text.duration(value)


def place(one: dict[str, Any]) -> str:
    return f"{e(one['service'])} <span class=name>{e(one['interface'])}</span>"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = (), kind: str = "") -> str:
    """``rows`` are HTML already; columns in ``right`` hold numbers."""
    classes = [' class="n"' if head in right else "" for head in heads]
    head = "".join(f"<th{one}>{word}</th>" for one, word in zip(classes, heads, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{one}>{cell}</td>" for one, cell in zip(classes, row, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def none(words: str) -> str:
    return f'<p class="none">{words}</p>'
