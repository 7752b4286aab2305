"""Charts of a report as SVG: rates over time, bars, and a line of time for retention. Pure.

Colours are classes, so that the page gives them, light or dark. Every text in a chart is made here, of numbers; names
of others stand in the page, escaped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, tzinfo

WIDTH, HEIGHT = 480, 150
LEFT, RIGHT, TOP, BOTTOM = 58, 8, 8, 20

_STEPS = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800),
    *(3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800, 1_209_600, 2_592_000, 7_776_000, 31_536_000),
)
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_DECIMAL = ("", "k", "M", "G", "T")

Label = Callable[[float], str]


def round_ticks(most: float, base: int, count: int = 4) -> list[float]:
    """From 0 up to ``most`` or just beyond: steps of 1, 2 or 5 and zeros (in the unit of ``base``'s powers)."""
    if most <= 0:
        return [0.0, 1.0]
    unit = 1.0
    while most / unit >= base:
        unit *= base
    steps = (factor * 10.0**power for power in range(-3, 4) for factor in (1, 2, 5))
    step = next(step for step in steps if step >= most / unit / count)
    ticks = [0.0]
    while ticks[-1] < most:
        ticks.append(step * unit * len(ticks))
    return ticks


def size_label(value: float) -> str:
    """``1.5 MiB``: bytes, for an axis."""
    return _label(value, 1024, _BINARY)


def count_label(value: float) -> str:
    """``20 k``: a number, for an axis."""
    return _label(value, 1000, _DECIMAL)


def _label(value: float, base: int, units: Sequence[str]) -> str:
    place = 0
    while value >= base and place < len(units) - 1:
        value /= base
        place += 1
    return f"{value:.4g} {units[place]}".rstrip()


def time_ticks(begin: float, end: float, zone: tzinfo | None, count: int = 6) -> list[tuple[float, str]]:
    """Round times of the clock of ``zone`` (``None``: of this host) within ``begin..end``, with their labels."""
    step = next((step for step in _STEPS if (end - begin) / step <= count), _STEPS[-1] * 10)
    offset = _at(begin, zone).utcoffset()
    shift = offset.total_seconds() if offset else 0.0
    first = -(-(begin + shift) // step)
    ticks = []
    number = 0
    while (instant := (first + number) * step - shift) <= end and number <= 4 * count:
        ticks.append((instant, _time(instant, step, zone)))
        number += 1
    return ticks


def _at(instant: float, zone: tzinfo | None) -> datetime:
    return datetime.fromtimestamp(instant, UTC).astimezone(zone)


def _time(instant: float, step: float, zone: tzinfo | None) -> str:
    at = _at(instant, zone)
    if step < 1:
        return f"{at:%H:%M:%S}.{at.microsecond // 1000:03}"
    if step < 60:
        return f"{at:%H:%M:%S}"
    if step >= 86_400 or (at.hour, at.minute) == (0, 0):
        return f"{at.day} {at:%b}"
    return f"{at:%H:%M}"


def rates(
    amounts: Sequence[int],
    dropped: Sequence[int],
    *,
    begin: float,
    width: float,
    since: float,
    top: float,
    binary: bool,
    kind: str,
    title: str,
    zone: tzinfo | None,
) -> str:
    """An area of rates over time. ``amounts`` is what there was in each of the columns, ``width`` seconds each.

    ``dropped`` are marked where there are any. Before ``since`` nothing is stored, and that is marked as such. ``top``
    is the greatest rate that the axis is to show.
    """
    end = begin + width * len(amounts)
    ticks = round_ticks(top, 1024 if binary else 1000)
    label: Label = size_label if binary else count_label
    across, down = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(instant: float) -> float:
        return LEFT + min(max((instant - begin) / (end - begin), 0.0), 1.0) * across

    def y(rate: float) -> float:
        return TOP + down * (1 - rate / ticks[-1])

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">']
    if since > begin:
        parts.append(f'<rect class="void" x="{LEFT}" y="{TOP}" width="{x(since) - LEFT:.1f}" height="{down}"/>')
        if x(since) - LEFT > 90:
            parts.append(
                f'<text class="note" x="{(LEFT + x(since)) / 2:.1f}" y="{TOP + down / 2:.0f}" text-anchor="middle">'
                "nothing stored</text>"
            )
    for tick in ticks:
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(tick) + 3.5:.1f}" text-anchor="end">{label(tick)}</text>')
    for instant, word in time_ticks(begin, end, zone):
        parts.append(
            f'<line class="tick" x1="{x(instant):.1f}" x2="{x(instant):.1f}" y1="{TOP + down}" y2="{TOP + down + 4}"/>'
        )
        if LEFT + 14 <= x(instant) <= WIDTH - RIGHT - 14:
            parts.append(f'<text x="{x(instant):.1f}" y="{HEIGHT - 4}" text-anchor="middle">{word}</text>')
    column = across / max(len(amounts), 1)
    line = []
    for number, amount in enumerate(amounts):
        height = y(amount / width)
        line.append(f"{LEFT + number * column:.1f},{height:.1f} {LEFT + (number + 1) * column:.1f},{height:.1f}")
    outline = " ".join(line)
    base = f"{y(0):.1f}"
    parts.append(f'<polygon class="area {kind}" points="{LEFT},{base} {outline} {WIDTH - RIGHT},{base}"/>')
    parts.append(f'<polyline class="line {kind}" points="{outline}"/>')
    for number, lost in enumerate(dropped):
        if lost:
            place = f'x="{LEFT + number * column:.1f}" width="{max(column, 1.5):.1f}"'
            parts.append(f'<rect class="drop" {place} y="{TOP}" height="{down}"><title>{lost} lost</title></rect>')
            parts.append(f'<rect class="lost" {place} y="{TOP + down - 4}" height="4"/>')
    return "".join([*parts, "</svg>"])


def bar(share: float, kind: str = "bytes") -> str:
    """A bar as long as ``share`` (0..1) of its cell."""
    share = min(max(share, 0.0), 1.0)
    return f'<span class="bar"><span class="{kind}" style="width:{share * 100:.2f}%"></span></span>'


def axis(begin: float, end: float, zone: tzinfo | None) -> str:
    """The times below lines of ``timeline``."""
    ticks = "".join(
        f'<span style="left:{100 * (instant - begin) / (end - begin):.2f}%">{word}</span>'
        for instant, word in time_ticks(begin, end, zone)
        if 0.03 < (instant - begin) / (end - begin) < 0.97
    )
    return f'<div class="axis">{ticks}</div>'


Stretch = tuple[float, float]
"""From, to."""


def timeline(begin: float, end: float, stored: Stretch, asked: Stretch, pins: Sequence[Stretch]) -> str:
    """One line: what is stored; the time that the report is about; what is pinned."""

    def place(one: float, other: float) -> str:
        low = min(max((one - begin) / (end - begin), 0.0), 1.0)
        high = min(max((other - begin) / (end - begin), 0.0), 1.0)
        return f"left:{low * 100:.3f}%;width:{max((high - low) * 100, 0.3):.3f}%"

    marks = "".join(
        f'<span class="pin" style="{place(*pin)}"></span>' for pin in pins if pin[1] >= begin and pin[0] <= end
    )
    return (
        f'<div class="time"><span class="asked" style="{place(*asked)}"></span>'
        f'<span class="held" style="{place(*stored)}"></span>{marks}</div>'
    )
