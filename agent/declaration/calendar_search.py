"""The next elapse of a calendar event, found field by field as systemd 252 finds it.

From the largest unit down, each field is moved on to its first match, and everything smaller starts anew; a field
without a match left moves the next larger one. No walk over minutes: at most some hundred rounds cover two centuries.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from agent.declaration.wall_clock import WallClock, offsets_of

if TYPE_CHECKING:
    from agent.declaration.calendar import Calendar

MICROSECONDS = 1_000_000
"""Microseconds in a second."""

LAST_YEAR = 2199
"""The last year in which anything elapses: systemd 252's bound."""

_YEAR, _MONTH, _DAY, _HOUR, _MINUTE, _SECOND = range(6)
_LOWEST = (0, 1, 1, 0, 0, 0)

_MOST_ROUNDS = 1000
"""systemd's bound, after which it gives up. An impossible date takes some 500 rounds to reach the last year."""

_Range = tuple[int, int | None, int]
"""First, last, step: a ``Span`` with the days from the month's end already turned into dates."""


def find_next(calendar: Calendar, after: int) -> int | None:
    """The first elapse strictly after ``after`` (microseconds since the epoch, at least -1), ``also`` left aside.

    ``None``: none until the end of ``LAST_YEAR``. Raises ``UsageError`` when the zone is gone from this host.
    """
    offset_at = offsets_of(calendar.zone)
    second, fraction = divmod(after + 1, MICROSECONDS)
    search = _Search(calendar, WallClock(offset_at, second), second, fraction)
    found = search.run()
    if found is not None and found <= after:
        # Within an hour that comes twice, its second coming was taken for the first, which is past.
        found += (offset_at(found // MICROSECONDS)[0] - offset_at(second)[0]) * MICROSECONDS
    return found


class _Search:
    """A reading of the wall clock on its way to the next match. ``fraction`` is in microseconds."""

    def __init__(self, calendar: Calendar, clock: WallClock, second: int, fraction: int) -> None:
        self._calendar = calendar
        self._clock = clock
        self._reading = clock.read(second)
        self._fraction = fraction

    def run(self) -> int | None:
        """The first match from the reading on, in microseconds since the epoch."""
        for _ in range(_MOST_ROUNDS):
            match self._round():
                case "never":
                    return None
                case "found":
                    moment = self._clock.resolve(self._reading, self._calendar.dst)
                    return None if moment is None or moment < 0 else moment * MICROSECONDS + self._fraction
        return None

    def _round(self) -> Literal["found", "again", "never"]:
        """Move each unit to its first match, until one had to be carried, or the wall clock skipped something."""
        for unit in range(6):
            matched = self._match(unit)
            fit = self._fit() if matched else "stuck"
            if fit == "exact":
                if unit == _DAY and not self._on_weekday():
                    self._carry(_DAY)
                    return "again"
                continue
            if unit == _YEAR:
                return "never"
            if fit == "stuck":
                self._carry(unit - 1)
            return "again"
        return "found"

    def _match(self, unit: int) -> bool:
        """Move one unit to its first match, and everything below to its start if it moved. False: there is none."""
        calendar = self._calendar
        reading = self._reading
        if unit == _SECOND:
            value = reading[_SECOND] * MICROSECONDS + self._fraction
            found = _first_match(((span.first, span.last, span.step) for span in calendar.microseconds), value)
            if found is not None:
                reading[_SECOND], self._fraction = divmod(found, MICROSECONDS)
            return found is not None
        spans = (calendar.years, calendar.months, calendar.days, calendar.hours, calendar.minutes)[unit]
        if not spans:
            return True
        if unit == _DAY and calendar.from_month_end:
            ranges = [self._from_month_end(span.first, span.last, span.step) for span in spans]
        else:
            ranges = [(span.first, span.last, span.step) for span in spans]
        found = _first_match(ranges, reading[unit])
        if found is None:
            return False
        if found != reading[unit]:
            reading[unit] = found
            self._reset_below(unit)
        return True

    def _from_month_end(self, first: int, last: int | None, step: int) -> _Range:
        """``first`` and ``last`` count back from the month's last day, which is 1; as dates they swap places."""
        begin = self._date_from_month_end(first)
        end = self._date_from_month_end(-1 if last is None else last)
        return (end, begin, step) if end > 0 else (begin, None, step)

    def _date_from_month_end(self, day: int) -> int:
        """-1 when the month has no such day."""
        year, month, _, *clock = self._reading
        moment = self._clock.resolve((year, month + 1, 1 - day, *clock), self._calendar.dst)
        if moment is None or moment < 0:
            return -1
        there = self._clock.read(moment)
        return there[_DAY] if there[_MONTH] == month else -1

    def _fit(self) -> Literal["exact", "moved", "stuck"]:
        """Hold the reading against the clock on the wall.

        A 31st of June or an hour skipped by daylight saving is moved on to what the clock shows instead, at the start
        of the unit below the one that moved. A reading the clock would have to be set back for is ``stuck``.
        """
        if self._reading[_YEAR] > LAST_YEAR:
            return "stuck"
        moment = self._clock.resolve(self._reading, self._calendar.dst)
        if moment is None or moment < 0:
            return "stuck"
        actual = self._clock.read(moment)
        for unit, (shown, wanted) in enumerate(zip(actual, self._reading, strict=True)):
            if shown < wanted:
                return "stuck"
            if shown > wanted:
                if unit < _SECOND:
                    actual[unit + 1] = _LOWEST[unit + 1]
                # The fraction stays, as in systemd: *:*:0/7.3 goes from 58.4 to 07.3 of the next minute.
                self._reading = actual
                return "moved"
        return "exact"

    def _on_weekday(self) -> bool:
        if not self._calendar.weekdays:
            return True
        moment = self._clock.resolve(self._reading, self._calendar.dst)
        return moment is not None and moment >= 0 and self._clock.weekday(moment) in self._calendar.weekdays

    def _carry(self, unit: int) -> None:
        """One more of ``unit``, which may take it out of its range: the clock on the wall sorts that out."""
        self._reading[unit] += 1
        self._reset_below(unit)
        moment = self._clock.resolve(self._reading, self._calendar.dst)
        if moment is not None:
            self._reading = self._clock.read(moment)

    def _reset_below(self, unit: int) -> None:
        self._reading[unit + 1 :] = _LOWEST[unit + 1 :]
        self._fraction = 0


def _first_match(ranges: Iterable[_Range], value: int) -> int | None:
    """The smallest number of any range that is at least ``value``. An open range goes on without bound."""
    best: int | None = None
    for first, last, step in ranges:
        if first < value and step:
            match = first - (first - value) // step * step
            if last is not None and match > last:
                continue
        elif first < value:
            continue
        else:
            match = first
        if best is None or match < best:
            best = match
    return best
