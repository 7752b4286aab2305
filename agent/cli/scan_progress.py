"""How far a scan is, as a line for a person, from what its worker tells of itself. Pure.

The figures are those of ``agentctl status NAME``: ``hosts_done``, ``hosts_total``, ``ports_open``, ``percent``,
``phase``, ``rate`` (probes per second), ``loss`` (0 to 1), ``seconds_left`` and ``held`` (why nothing is sent). Any of
them may be missing or make no sense: they come from another process. 0 stands for what is not known.
"""

from __future__ import annotations

from collections.abc import Mapping

from agent.cli import text

Figures = Mapping[str, object]

BAR = 24
"""Columns of the bar."""


def words(figures: Figures) -> str:
    """What there is to tell, without the bar."""
    phase = figures.get("phase")
    parts = [text.safe(phase)] if isinstance(phase, str) and phase else []
    done, total, found = (_number(figures, name) for name in ("hosts_done", "hosts_total", "ports_open"))
    if done is not None and total is not None:
        parts.append(f"{done:,.0f} of {text.count(int(total), 'host')}")
    if found is not None:
        parts.append(f"{text.count(int(found), 'port')} open")
    held = figures.get("held")
    if isinstance(held, str) and held:
        return ", ".join([*parts, text.safe(held)])
    rate, loss, left = (_number(figures, name) for name in ("rate", "loss", "seconds_left"))
    if rate:
        parts.append(f"{rate:,.0f}/s")
    if loss:
        parts.append(f"{100 * min(loss, 1.0):.1f}% lost")
    if left:
        parts.append(f"{text.duration(left)} left")
    return ", ".join(parts)


def share(figures: Figures) -> float:
    """How much is done, from 0 to 1."""
    return min(1.0, (_number(figures, "percent") or 0.0) / 100)


def bar(figures: Figures, columns: int) -> str:
    """All of it in one line of a terminal, of which the last column stays free; ASCII, since the font is not known."""
    done = int(share(figures) * BAR)
    line = f"[{'#' * done}{'.' * (BAR - done)}] {100 * share(figures):3.0f}%  {words(figures)}"
    return line[: max(0, columns - 1)]


def line(figures: Figures) -> str:
    """All of it in one line of a log."""
    return f"{100 * share(figures):.0f}%, {words(figures)}"


def _number(figures: Figures, name: str) -> float | None:
    """A figure that is a number of at least 0, and no more than one could count."""
    value = figures.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e15:
        return None
    return float(value)
