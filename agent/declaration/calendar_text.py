"""``agentctl calendar``: the next elapses of an event, as data and as the text of ``systemd-analyze calendar``."""

from __future__ import annotations

import math
import re
import time
from datetime import datetime

import msgspec

from agent.declaration.calendar import Calendar
from agent.declaration.wall_clock import WallClock, offsets_of
from agent.errors import UsageError

_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")

_MINUTE, _HOUR, _DAY, _WEEK = 60, 3600, 86_400, 604_800
_MONTH, _YEAR = 2_629_800, 31_557_600
"""Seconds in a twelfth of a year and in a year, of 365.25 days."""

_DAY_WORDS = {"yesterday": -1, "today": 0, "tomorrow": 1}
_BASE_TIME = re.compile(
    r"(?:(?P<year>\d{4})-(?P<month>\d{1,2})-(?P<day>\d{1,2}))?"
    r"(?:(?:^|(?<=\d) +)(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2}(?:\.\d{1,6})?))?)?",
    re.ASCII,
)


class Elapse(msgspec.Struct, frozen=True):
    """One elapse: ``number`` counts from 1, ``time`` is unix time in seconds."""

    number: int
    time: float


def describe(calendar: Calendar, base: float, iterations: int) -> list[Elapse]:
    """The first ``iterations`` elapses after the unix time ``base``; fewer when there are no more."""
    elapses: list[Elapse] = []
    moment: float | None = base
    while len(elapses) < iterations and moment is not None:
        moment = calendar.next_elapse(moment)
        if moment is not None:
            elapses.append(Elapse(len(elapses) + 1, moment))
    return elapses


def render(expression: str, calendar: Calendar, elapses: list[Elapse], now: float) -> str:
    """What ``systemd-analyze calendar`` prints. Times are local, with a line in UTC where that differs."""
    normalized = calendar.normalized()
    lines = [] if expression == normalized else [("Original form", expression)]
    lines.append(("Normalized form", normalized))
    if not elapses:
        lines.append(("Next elapse", "never"))
    for elapse in elapses:
        lines.append(("Next elapse" if elapse.number == 1 else f"Iter. #{elapse.number}", format_time(elapse.time)))
        if time.timezone or time.daylight:
            lines.append(("(in UTC)", format_time(elapse.time, utc=True)))
        lines.append(("From now", format_relative(elapse.time, now)))
    return "\n".join(f"{label:>15}: {value}" for label, value in lines)


def format_time(moment: float, *, utc: bool = False) -> str:
    """``Sun 2026-10-25 03:00:00 EEST``: local time, or UTC; fractions are cut off."""
    second = math.floor(moment)
    there = time.gmtime(second) if utc else time.localtime(second)
    zone = "UTC" if utc else there.tm_zone
    return f"{_WEEKDAYS[there.tm_wday]} {there.tm_year:04}-{there.tm_mon:02}-{there.tm_mday:02} " + (
        f"{there.tm_hour:02}:{there.tm_min:02}:{there.tm_sec:02} {zone}"
    )


def format_relative(moment: float, now: float) -> str:
    """``3 weeks 5 days left`` or ``1min 20s ago``, in systemd's two largest units."""
    microseconds = round(abs(moment - now) * 1_000_000)
    if not microseconds:
        return "now"
    return f"{_span(microseconds)} {'ago' if moment < now else 'left'}"


def _span(microseconds: int) -> str:
    seconds = microseconds // 1_000_000
    if seconds >= _YEAR:
        return f"{_count(seconds // _YEAR, 'year')} {_count(seconds % _YEAR // _MONTH, 'month')}"
    if seconds >= _MONTH:
        return f"{_count(seconds // _MONTH, 'month')} {_count(seconds % _MONTH // _DAY, 'day')}"
    if seconds >= _WEEK:
        return f"{_count(seconds // _WEEK, 'week')} {_count(seconds % _WEEK // _DAY, 'day')}"
    if seconds >= 2 * _DAY:
        return f"{seconds // _DAY} days"
    if seconds >= 25 * _HOUR:
        return f"1 day {(seconds - _DAY) // _HOUR}h"
    if seconds >= 6 * _HOUR:
        return f"{seconds // _HOUR}h"
    if seconds >= _HOUR:
        return f"{seconds // _HOUR}h {seconds % _HOUR // _MINUTE}min"
    if seconds >= 5 * _MINUTE:
        return f"{seconds // _MINUTE}min"
    if seconds >= _MINUTE:
        return f"{seconds // _MINUTE}min {seconds % _MINUTE}s"
    if seconds:
        return f"{seconds}s"
    return f"{microseconds // 1000}ms" if microseconds >= 1000 else f"{microseconds}us"


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"


def parse_base_time(text: str, now: float | None = None) -> float:
    """Read a time: ``now``, ``@1700000000``, ``tomorrow``, ``2026-11-20``, ``12:00`` or ``2026-11-20 12:00:00 UTC``.

    The result is unix time in seconds. Local time unless ``UTC`` follows; ``now`` (default: the real one) is what
    ``now``, a time without a date, and the words for days refer to. Raises ``UsageError``.
    """
    now = time.time() if now is None else now
    stripped = text.strip()
    words = stripped.lower()
    if words == "now":
        return now
    if re.fullmatch(r"@[0-9]{1,11}(\.[0-9]{1,6})?", words, re.ASCII):
        return float(words[1:])
    zone = "UTC" if words.endswith(" utc") else None
    words = words.removesuffix(" utc").rstrip()
    clock = WallClock(offsets_of(zone), math.floor(now))
    year, month, day, *_ = clock.read(math.floor(now))
    if words in _DAY_WORDS:
        moment = clock.resolve((year, month, day + _DAY_WORDS[words], 0, 0, 0), None)
        fraction = 0.0
    else:
        match = _BASE_TIME.fullmatch(words) if words else None
        if match is None:
            raise _no_time(text)
        if match["year"]:
            year, month, day = int(match["year"]), int(match["month"]), int(match["day"])
        second, fraction = divmod(float(match["second"] or 0), 1)
        reading = (year, month, day, int(match["hour"] or 0), int(match["minute"] or 0), int(second))
        if not _possible(reading):
            raise _no_time(text)
        moment = clock.resolve(reading, None)
    if moment is None or moment < 0:
        raise _no_time(text)
    return moment + fraction


def _possible(reading: tuple[int, int, int, int, int, int]) -> bool:
    """Whether there is such a date, from 1970 to 9998, and such a time of day."""
    try:
        return 1970 <= datetime(*reading).year < 9999
    except ValueError:
        return False


def _no_time(text: str) -> UsageError:
    return UsageError(
        f"time {text[:80]!r}: expected for example now, @1700000000, 2026-11-20, '2026-11-20 12:00' or '12:00:00 UTC'"
    )
