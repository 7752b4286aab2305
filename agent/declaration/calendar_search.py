"""The next elapse of a calendar event, found field by field as systemd 252 finds it.

From the largest unit down, each field is moved on to its first match, and everything smaller starts anew; a field
without a match left moves the next larger one. No walk over minutes: at most some hundred rounds cover two centuries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal

from agent.declaration.wall_clock import Offset, WallClock, offsets_of

if TYPE_CHECKING:
    from agent.declaration.calendar import Calendar

MICROSECONDS = 1_000_000
"""Microseconds in a second."""

LAST_YEAR = 2199
"""The last year in which anything elapses: systemd 252's bound."""

_YEAR, _MONTH, _DAY, _HOUR, _MINUTE, _SECOND = range(6)
_LOWEST = (0, 1, 1, 0, 0, 0)
_HIGHEST = (LAST_YEAR, 12, 31, 23, 59, 60 * MICROSECONDS - 1)

_MOST_ROUNDS = 1000
"""systemd's bound, after which it gives up. An impossible date takes some 500 rounds to reach the last year."""

_MOST_RESTARTS = 4

_Range = tuple[int, int | None, int]
"""First, last, step: a ``Span`` with the days from the month's end already turned into dates."""


def find_next(calendar: Calendar, after: int) -> int | None:
    """The first elapse strictly after ``after`` (microseconds since the epoch, at least -1), ``also`` left aside.

    ``None``: none until the end of ``LAST_YEAR``. Raises ``UsageError`` when the zone is gone from this host.
    """
    offset_at = offsets_of(calendar.zone)
    second, fraction = divmod(after + 1, MICROSECONDS)
    try:
        found = _Search(calendar, WallClock(offset_at, second), second, fraction).run()
    except _GoingInCirclesError:
        found = _find_otherwise(calendar, offset_at, second, fraction)
    if found is not None and found <= after:
        # Within an hour that comes twice, its second coming was taken for the first, which is past.
        found += (offset_at(found // MICROSECONDS)[0] - offset_at(second)[0]) * MICROSECONDS
    return found


def _find_otherwise(calendar: Calendar, offset_at: Callable[[int], Offset], second: int, fraction: int) -> int | None:
    """Where systemd 252 goes in circles, it gives up, and never runs its timer again. A job shall run all the same.

    That happens to ``05/8:12`` on the evening before clocks are set forward, which a strict search finds, and around
    changes of the clock at no full hour (Pacific/Chatham), where the search is taken up again an hour further on.
    ``None`` where a clock was named that is not in force, such as ``EEST`` in winter: systemd mostly says "never" then.
    """
    for _ in range(_MOST_RESTARTS):
        search = _Search(calendar, WallClock(offset_at, second), second, fraction, strict=True)
        try:
            return search.run()
        except _GoingInCirclesError:
            second, fraction = search.second() + 3600, 0
    return None


class _GoingInCirclesError(Exception):
    """More rounds than any search needs that gets anywhere."""


class _Search:
    """A reading of the wall clock on its way to the next match. ``fraction`` is in microseconds.

    A ``strict`` search ends open ranges (``05/8``) at the unit's largest value. Otherwise they run on, as in systemd,
    and the wall clock sorts out the 29th hour, which differs only around changes of the clock.
    """

    def __init__(
        self, calendar: Calendar, clock: WallClock, second: int, fraction: int, *, strict: bool = False
    ) -> None:
        self._calendar = calendar
        self._clock = clock
        self._begin = second
        self._reading = clock.read(second)
        self._fraction = fraction
        # Which of the zone's two clocks the reading is of. None leaves that to the wall clock.
        self._dst: bool | None = clock.is_dst(second)
        self._start = (*self._reading, fraction)
        self._stuck = False
        self._strict = strict

    def run(self) -> int | None:
        """The first match from the reading on, in microseconds since the epoch. Raises ``_GoingInCirclesError``."""
        for _ in range(_MOST_ROUNDS):
            self._tidy()
            match self._round():
                case "never":
                    return None
                case "found" if (*self._reading, self._fraction) >= self._start:
                    moment = self._resolve()
                    return None if moment is None else moment * MICROSECONDS + self._fraction
                case "found":
                    # Where winter time is the exception (Europe/Dublin), an hour that does not exist is read as the one
                    # before it, over and over. Holding on to the clock in force there leads out.
                    self._stuck = True
                    self._reading[_HOUR] += 1
        raise _GoingInCirclesError

    def second(self) -> int:
        """Where the search stands, in unix time."""
        moment = self._resolve()
        return self._begin if moment is None else max(moment, self._begin)

    def _tidy(self) -> None:
        """Let the wall clock sort out what a carry has taken out of range, such as a 13th month."""
        moment = self._clock.resolve(self._reading, self._dst)
        if moment is not None:
            self._reading = self._clock.read(moment)
            self._dst = self._clock.is_dst(moment)
        if not self._stuck:
            self._dst = self._calendar.dst

    def _resolve(self) -> int | None:
        moment = self._clock.resolve(self._reading, self._dst)
        return None if moment is None or moment < 0 else moment

    def _round(self) -> Literal["found", "again", "never"]:
        """Move each unit to its first match, until one had to be carried, or the wall clock skipped something."""
        for unit in range(6):
            fit = self._fit() if self._match(unit) else "stuck"
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
        fields = (
            calendar.years,
            calendar.months,
            calendar.days,
            calendar.hours,
            calendar.minutes,
            calendar.microseconds,
        )
        spans = fields[unit]
        if not spans:
            return True
        ranges: list[_Range] = [(span.first, span.last, span.step) for span in spans]
        if unit == _DAY and calendar.from_month_end:
            ranges = [self._from_month_end(*each) for each in ranges]
        if self._strict:
            ranges = [(first, _HIGHEST[unit] if last is None else last, step) for first, last, step in ranges]
        value = reading[unit] if unit < _SECOND else reading[_SECOND] * MICROSECONDS + self._fraction
        found = _first_match(ranges, value)
        if found is None:
            return False
        if unit == _SECOND:
            reading[_SECOND], self._fraction = divmod(found, MICROSECONDS)
        elif found != value:
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
        moment = self._clock.resolve((year, month + 1, 1 - day, *clock), self._dst)
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
        moment = self._resolve()
        if moment is None:
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
                self._dst = self._clock.is_dst(moment)
                return "moved"
        return "exact"

    def _on_weekday(self) -> bool:
        if not self._calendar.weekdays:
            return True
        moment = self._resolve()
        return moment is not None and self._clock.weekday(moment) in self._calendar.weekdays

    def _carry(self, unit: int) -> None:
        self._reading[unit] += 1
        self._reset_below(unit)

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
