"""Durations, sizes and percentages as people write them, and back.

* A duration is a number of seconds (``10``, ``0.5``) or numbers with units, from large to small: ``10s``, ``5m``,
  ``1h30m``, ``500ms``, ``2d``, ``1w``, ``1.5h``. The units are ``w d h m s ms us`` (``min`` and ``sec`` too). The
  resolution is one microsecond, the longest duration ten years of 365 days.
* A size is a number of bytes or a number with a unit. ``K M G T`` are powers of 1024, as they are in
  systemd.resource-control(5), and so are ``KiB MiB GiB TiB``; ``KB MB GB TB`` are powers of 1000 (IEC 80000-13). Case
  does not matter. The largest size is 2^63 - 1 bytes, the largest file offset of Linux.
* A percentage is a number above 0 and up to 100 with ``%``.

Every function here raises ``UsageError`` with one line that says what would be right.
"""

from __future__ import annotations

import math
import re

from agent.declaration.wording import shown
from agent.errors import UsageError

_LONGEST_TEXT = 64

_MICROSECONDS = {
    "w": 604_800_000_000,
    "d": 86_400_000_000,
    "h": 3_600_000_000,
    "m": 60_000_000,
    "s": 1_000_000,
    "ms": 1_000,
    "us": 1,
}
_SAME_UNIT = {"min": "m", "sec": "s"}
_LONGEST_DURATION = 3650 * 86_400
_DURATION_PART = re.compile(r"\s*([0-9]+)(?:\.([0-9]+))?\s*(min|sec|ms|us|[wdhms])")
_NUMBER = re.compile(r"([0-9]+)(?:\.([0-9]+))?")
_DURATION_HINT = 'write a number with a unit, such as "30s", "1h30m" or "500ms"'

_SIZE = re.compile(r"([0-9]+)(?:\.([0-9]+))?\s*(?:([kmgt])(i?b)?|b)?", re.IGNORECASE)
_POWER = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_LARGEST_SIZE = 2**63 - 1
_SIZE_HINT = 'write a number of bytes or a number with a unit, such as "512M" or "20GiB"'

_PERCENT = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*%")


def parse_duration(value: str | int | float) -> float:
    """Seconds, from 0 to ten years. A plain number, also one in a string, counts seconds."""
    if isinstance(value, str):
        seconds = _duration_text(value) / 1_000_000
    elif isinstance(value, float) and math.isnan(value):
        raise UsageError(f"nan is not a duration; {_DURATION_HINT}")
    elif value < 0:
        raise UsageError(f"{shown(value)} is negative; {_DURATION_HINT}")
    else:
        seconds = value
    if seconds > _LONGEST_DURATION:
        raise UsageError(f"{shown(value)} is longer than ten years")
    return round(seconds * 1_000_000) / 1_000_000


def _duration_text(text: str) -> int:
    wrong = UsageError(f"{shown(text)} is not a duration; {_DURATION_HINT}")
    stripped = text.strip()
    if not stripped or len(text) > _LONGEST_TEXT:
        raise wrong
    if stripped.startswith("-"):
        raise UsageError(f"{shown(text)} is negative; {_DURATION_HINT}")
    if number := _NUMBER.fullmatch(stripped):
        return _scaled(number[1], number[2], 1_000_000)
    total, position, left = 0, 0, list(_MICROSECONDS)
    while position < len(stripped):
        part = _DURATION_PART.match(stripped, position)
        if part is None:
            raise wrong
        unit = _SAME_UNIT.get(part[3], part[3])
        if unit not in left:
            raise UsageError(f"{shown(text)} is not a duration; units go from large to small, each once: 1d12h, 1h30m")
        del left[: left.index(unit) + 1]
        total += _scaled(part[1], part[2], _MICROSECONDS[unit])
        position = part.end()
    return total


def _scaled(whole: str, fraction: str | None, unit: int) -> int:
    """``whole.fraction`` times ``unit`` in integers, rounded down: no float ever sees the text."""
    fraction = fraction or ""
    number = int(whole + fraction)
    return number * unit // int("1" + "0" * len(fraction))


def format_duration(seconds: float) -> str:
    """The shortest exact text of a duration; ``parse_duration`` turns it back into the same number."""
    rest = round(seconds * 1_000_000)
    parts = []
    for unit in ("d", "h", "m", "s", "ms", "us"):
        count, rest = divmod(rest, _MICROSECONDS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def parse_size(value: str | int) -> int:
    """Bytes, from 0 to 2^63 - 1. A fraction of a byte is cut off."""
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip()) if len(value) <= _LONGEST_TEXT else None
        if match is None:
            raise UsageError(f"{shown(value)} is not a size; {_SIZE_HINT}")
        base = 1000 if (match[4] or "").lower() == "b" else 1024
        size = _scaled(match[1], match[2], base ** _POWER[(match[3] or "").lower()])
    else:
        size = value
    if size < 0:
        raise UsageError(f"{shown(value)} is negative; {_SIZE_HINT}")
    if size > _LARGEST_SIZE:
        raise UsageError(f"{shown(value)} is more than a file can hold (8 EiB)")
    return size


def format_size(size: int) -> str:
    """The size in the largest unit that divides it: ``512MiB``, ``1000B``; ``parse_size`` turns it back."""
    for unit, power in (("TiB", 4), ("GiB", 3), ("MiB", 2), ("KiB", 1)):
        if size and size % 1024**power == 0:
            return f"{size // 1024**power}{unit}"
    return f"{size}B"


def parse_percent(text: str) -> float:
    """The fraction a percentage stands for: ``"50%"`` is 0.5. Above 0 and at most 1."""
    match = _PERCENT.fullmatch(text.strip()) if len(text) <= _LONGEST_TEXT else None
    if match is None or not 0 < float(match[1]) <= 100:
        raise UsageError(f'{shown(text)} is not a percentage; write a number above 0 and up to 100, such as "50%"')
    return float(match[1]) / 100
