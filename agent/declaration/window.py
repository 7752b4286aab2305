"""When a scan may run: ``"22:00-06:00"``, ``"Mon..Fri 20:00-06:00"``, ``"Sat,Sun 00:00-24:00"``. Pure.

A window is what a clock on the wall says, in local time: it is open while the hands stand between its ends, on its
days. One that ends before it begins goes over midnight, and belongs to the day on which it begins. So an hour that
comes twice, when clocks are set back, is open twice or not at all, and one that is left out is never open.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from agent.declaration.wall_clock import Offset, offsets_of
from agent.declaration.wording import shown
from agent.errors import UsageError

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")

DAY = 86_400

FARTHEST = 16 * DAY
"""Seconds ahead that a change is looked for: each window opens and ends once a week, if no clock is set meanwhile."""

_WINDOW = re.compile(r"(?:([A-Za-z.,]+) +)?([0-9]{1,2}):([0-9]{2}) *- *([0-9]{1,2}):([0-9]{2})", re.ASCII)
_HINT = 'write one such as "22:00-06:00" or "Mon..Fri 20:00-06:00"'

OffsetAt = Callable[[int], Offset]
"""Seconds east of UTC at a unix time."""


class Window(NamedTuple):
    """``days`` are numbers, Monday being 0. ``start`` and ``end`` are minutes of the day; ``end`` goes up to 1440."""

    days: frozenset[int]
    start: int
    end: int

    def __str__(self) -> str:
        days = f"{_days_written(self.days)} " if len(self.days) < len(DAYS) else ""
        return f"{days}{_clock(self.start)}-{_clock(self.end)}"

    def holds(self, day: int, minute: int) -> bool:
        """Whether it is open at a minute of a day of the week."""
        if self.start < self.end:
            return day in self.days and self.start <= minute < self.end
        return (day in self.days and minute >= self.start) or ((day - 1) % 7 in self.days and minute < self.end)


def parse_window(text: str) -> Window:
    """Raises ``UsageError``."""
    match = _WINDOW.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{shown(text)} is not a window of time; {_HINT}")
    start, end = _minute(match[2], match[3], text), _minute(match[4], match[5], text)
    if start == 24 * 60:
        raise UsageError(f"{shown(text)} begins at 24:00; write 00:00 of the next day")
    if start == end:
        raise UsageError(f"{shown(text)} is empty; write 00:00-24:00 for the whole day")
    return Window(_days(match[1], text) if match[1] else frozenset(range(7)), start, end)


def is_open(windows: Sequence[Window], moment: float, offset_at: OffsetAt | None = None) -> bool:
    """Whether one of them is open at a unix time. No windows at all are always open."""
    if not windows:
        return True
    seconds = int(moment // 1)
    wall = seconds + (offset_at or offsets_of(None))(seconds)[0]
    day, minute = (wall // DAY + 3) % 7, wall % DAY // 60  # 1970-01-01 was a Thursday
    return any(window.holds(day, minute) for window in windows)


def next_change(windows: Sequence[Window], moment: float, offset_at: OffsetAt | None = None) -> int | None:
    """The first unix time after ``moment`` at which ``is_open`` is no longer what it is; ``None``: it stays so."""
    offset_at = offset_at or offsets_of(None)
    now, before = int(moment // 1), is_open(windows, moment, offset_at)
    edges = sorted({edge % (24 * 60) for window in windows for edge in (window.start, window.end)} | {0})
    end = now + FARTHEST
    while now < end:
        # The next edge, or the next change of the clock if that comes before it.
        offset = offset_at(now)[0]
        wall = now + offset
        minute = wall % DAY / 60
        ahead = next((edge for edge in edges if edge > minute), edges[0] + 24 * 60)
        now = _until(offset_at, now, wall - wall % DAY + ahead * 60 - offset, offset)
        if is_open(windows, now, offset_at) != before:
            return now
    return None


def opens(windows: Sequence[Window], moment: float, offset_at: OffsetAt | None = None) -> int | None:
    """When one of them opens next, if all are closed at a unix time; ``None``: one is open."""
    return None if is_open(windows, moment, offset_at) else next_change(windows, moment, offset_at)


def _until(offset_at: OffsetAt, after: int, last: int, offset: int) -> int:
    """The first time after ``after``, and at most ``last``, at which the clock is another; else ``last``.

    Edges are a day apart at most, and no clock is set twice a day.
    """
    if offset_at(last)[0] == offset:
        return last
    low, high = after, last
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if offset_at(middle)[0] == offset else (low, middle)
    return high


def _minute(hour: str, minute: str, text: str) -> int:
    total = int(hour) * 60 + int(minute)
    if int(minute) > 59 or total > 24 * 60:
        raise UsageError(f"{shown(text)} holds {hour}:{minute}, which no clock shows; hours go from 00:00 to 24:00")
    return total


def _days(text: str, whole: str) -> frozenset[int]:
    """``Mon..Wed,Fri`` as numbers; a range may go over Sunday."""
    found: set[int] = set()
    for part in text.split(","):
        first, dots, last = part.partition("..")
        low = _day(first, whole)
        high = _day(last, whole) if dots else low
        found |= {(low + step) % 7 for step in range((high - low) % 7 + 1)}
    return frozenset(found)


def _day(word: str, whole: str) -> int:
    short = word.capitalize()[:3]
    full = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
    if short not in DAYS or word.capitalize() not in (short, full[DAYS.index(short)]):
        raise UsageError(f"{shown(whole)} names no day with {shown(word)}; days are {', '.join(DAYS)}")
    return DAYS.index(short)


def _days_written(days: frozenset[int]) -> str:
    """In order from Monday, runs of three and more as ranges."""
    runs: list[list[int]] = []
    for day in sorted(days):
        if runs and day == runs[-1][-1] + 1:
            runs[-1].append(day)
        else:
            runs.append([day])
    parts: list[str] = []
    for run in runs:
        parts += [f"{DAYS[run[0]]}..{DAYS[run[-1]]}"] if len(run) > 2 else [DAYS[day] for day in run]
    return ",".join(parts)


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"
