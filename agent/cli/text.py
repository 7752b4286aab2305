"""Words and figures for people. Pure: no clock, no terminal.

Names, messages and log lines come from programs and hosts we do not control, and a terminal obeys what it is sent; so
all of them go through ``safe`` before they are shown.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from agent.declaration import amounts
from agent.declaration.amounts import count as count
from agent.linux.printable import printable

ABSENT = "-"

_DURATION_UNITS = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))


def safe(value: object) -> str:
    """``value`` as one line that a terminal only displays.

    Whatever Python calls unprintable (control characters, direction overrides, line separators, lone surrogates,
    unusual spaces) is written as its escape (``\\x1b``); a tab becomes the spaces it stands for.
    """
    text = str(value)
    return text if text.isprintable() else printable(text.expandtabs(8))


def duration(seconds: float | None, *, parts: int = 2) -> str:
    """``93784`` seconds as ``1d 2h``: the ``parts`` largest units, rounded down; below ten seconds with one decimal."""
    if seconds is None:
        return ABSENT
    seconds = max(seconds, 0.0)
    if seconds < 10:
        return f"{int(seconds * 10) / 10:.1f}s"
    left = int(seconds)
    shown: list[str] = []
    for unit, length in _DURATION_UNITS:
        count, left = divmod(left, length)
        if count or shown:
            shown.append(f"{count}{unit}" if count else "")
        if len(shown) == parts:
            break
    return " ".join(filter(None, shown))


def size(count: float | None) -> str:
    """Bytes in binary units; see ``amounts.size``."""
    return ABSENT if count is None else amounts.size(count)


def percent(value: float | None) -> str:
    """A percentage with one decimal; 100 % is one processor."""
    return ABSENT if value is None else f"{value:.1f}%"


def moment(when: float | None) -> str:
    """Unix seconds as ``2026-11-20 12:51:07`` in the local time zone."""
    if when is None:
        return ABSENT
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))
    except (OverflowError, ValueError, OSError):  # a year that the C library cannot hold
        return f"@{when:.0f}"


def instant(nanoseconds: int) -> str:
    """Nanoseconds since the epoch, as ``moment`` shows them."""
    return moment(nanoseconds // 1_000_000_000)


def ago(when: float | None, now: float) -> str:
    """How long ago unix time ``when`` was at ``now``."""
    return ABSENT if when is None else duration(now - when)


def until(when: float | None, now: float) -> str:
    """How far ahead unix time ``when`` lies of ``now``: ``in 11h 5m``, or ``now`` once it is reached."""
    if when is None:
        return ABSENT
    return f"in {duration(when - now)}" if when > now else "now"


def yes(value: object) -> str:
    """``yes`` or ``no``."""
    return "yes" if value else "no"


def optional(value: object) -> str:
    """The value as safe text, or a dash where there is none."""
    return ABSENT if value is None or value == "" else safe(value)


def not_in_sync(names: Sequence[str]) -> list[str]:
    """A line about jobs whose timer units are not as declared, if there are any."""
    return [f"timers are not as declared: {some(names)}; run `agentctl timers sync`"] if names else []


def not_active(names: Sequence[str]) -> list[str]:
    """A line about jobs that nobody starts because their timers are not active, if there are any."""
    return [f"timers are not active: {some(names)}; run `agentctl timers sync`"] if names else []


def some(names: Sequence[str]) -> str:
    """The first few of them."""
    return safe(", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else ""))


def figures(values: Mapping[str, object]) -> str:
    """A worker's own numbers as ``name=value`` pairs on one line."""
    return " ".join(f"{safe(name)}={_figure(value)}" for name, value in values.items())


def _figure(value: object) -> str:
    if isinstance(value, bool):
        return yes(value)
    if isinstance(value, float):
        return f"{value:g}"
    return ABSENT if value is None else safe(value)
