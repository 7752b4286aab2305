"""When a job runs: calendar events in the grammar of systemd.time(7), as plain frozen data.

``parse_calendar`` (systemd's grammar) and ``parse_cron`` (the five fields of cron) build it; nothing here reads a
clock. The behaviour is that of systemd 252, and the tests hold both against each other.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import msgspec

from agent.declaration.calendar_search import MICROSECONDS, find_next

_END = 7_258_204_800
"""2200-01-02 00:00 UTC: behind the last elapse in every time zone."""

_WEEKDAY_NAMES = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


class Span(msgspec.Struct, frozen=True):
    """One item of a field's list: a single value, ``first..last/step`` or ``first/step``.

    ``step`` 0 is a single value. ``last`` is ``None`` where none was given: with a step, up to the field's end.
    """

    first: int
    last: int | None = None
    step: int = 0


class Calendar(msgspec.Struct, frozen=True):
    """A calendar event. An empty tuple in a field means "any" (``*``); lists are sorted and without duplicates.

    ``weekdays`` holds 0 (Monday) to 6 (Sunday). ``days`` counts from the month's last day backwards (1 is the last)
    when ``from_month_end``. ``microseconds`` are those since the full minute, 0 to 59,999,999, and never empty.
    ``zone`` is ``UTC``, an IANA name, or ``None`` for the local time zone of the process. ``dst`` tells which of the
    local zone's two clocks was named (in Helsinki ``EET`` is ``False`` and ``EEST`` is ``True``). ``also`` are further
    events: it elapses whenever any of them does. systemd's grammar has no such union; day and weekday of cron need it.
    """

    weekdays: tuple[int, ...] = ()
    years: tuple[Span, ...] = ()
    months: tuple[Span, ...] = ()
    days: tuple[Span, ...] = ()
    from_month_end: bool = False
    hours: tuple[Span, ...] = ()
    minutes: tuple[Span, ...] = ()
    microseconds: tuple[Span, ...] = (Span(0),)
    zone: str | None = None
    dst: bool | None = None
    also: tuple[Calendar, ...] = ()

    def normalized(self) -> str:
        """The text systemd prints as "Normalized form"; ``parse_calendar`` reads it back, unless it is a union.

        The members of a union are joined by ``"; "``.
        """
        date = "-".join((_fields(self.years, 4), _fields(self.months, 2)))
        date += ("~" if self.from_month_end else "-") + _fields(self.days, 2)
        clock = ":".join((_fields(self.hours, 2), _fields(self.minutes, 2), _seconds(self.microseconds)))
        zone = self.zone if self.zone is not None or self.dst is None else local_zone_names()[self.dst]
        parts = (_weekdays(self.weekdays), date, clock, zone)
        return "; ".join([" ".join(part for part in parts if part), *(other.normalized() for other in self.also)])

    def next_elapse(self, after: float) -> float | None:
        """The first elapse strictly after ``after``; ``None`` when there is none until the end of the year 2199.

        Both are unix times in seconds; elapses are exact to the microsecond. Where clocks are set forward, an event in
        the hour that does not exist is passed over. Where they are set back, an hour that comes twice is used once,
        unless ``after`` lies in its second half. Takes well under a millisecond, and some tens of them at worst.
        """
        if after >= _END:
            return None
        # The last microsecond whose float is not after `after`. Floats are too coarse for a plain product, but until
        # 2199 each microsecond is a float of its own, so that an elapse given out leads back to the one it stands for.
        last = max(math.floor(after * MICROSECONDS) - 2, -1)
        while (last + 1) / MICROSECONDS <= after:
            last += 1
        found = (find_next(member, last) for member in (self, *self.also))
        first = min((moment for moment in found if moment is not None), default=None)
        return None if first is None else first / MICROSECONDS


def local_zone_names() -> tuple[str, str]:
    """What the local zone's standard and daylight-saving clocks are called (equal where there is but one).

    Read off the zone's standing rules in one fixed year, so that no clock is involved. ``time.tzname`` would mix up the
    two in zones whose winter time is the exception (Europe/Dublin).
    """
    fortnight = 14 * 86_400
    year_2030 = 1_893_456_000
    names = {}
    for number in range(27):
        moment = time.localtime(year_2030 + number * fortnight)
        names[moment.tm_isdst > 0] = moment.tm_zone
    standard = names.get(False) or names[True]
    return standard, names.get(True) or standard


def _weekdays(days: tuple[int, ...]) -> str:
    """``Mon``, ``Mon,Tue``, ``Mon..Wed``: runs of three or more are written as ranges."""
    return ",".join(
        _WEEKDAY_NAMES[first]
        if first == last
        else _WEEKDAY_NAMES[first] + (".." if last > first + 1 else ",") + _WEEKDAY_NAMES[last]
        for first, last in _runs(days)
    )


def _runs(days: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    for first in days:
        if first - 1 not in days:
            last = first
            while last + 1 in days:
                last += 1
            yield first, last


def _fields(spans: tuple[Span, ...], width: int) -> str:
    return ",".join(_field(span, width) for span in spans) or "*"


def _field(span: Span, width: int) -> str:
    text = f"{span.first:0{width}}"
    if span.last is not None:
        text += f"..{span.last:0{width}}"
    return text + (f"/{span.step}" if span.step and not (span.last is not None and span.step == 1) else "")


def _seconds(spans: tuple[Span, ...]) -> str:
    if Span(0, None, MICROSECONDS) in spans:
        return "*"
    return ",".join(_second(span) for span in spans)


def _second(span: Span) -> str:
    text = _decimal(span.first, 2)
    if span.last is not None:
        text += f"..{_decimal(span.last, 2)}"
    if span.step and not (span.last is not None and span.step == MICROSECONDS):
        text += f"/{_decimal(span.step, 1)}"
    return text


def _decimal(microseconds: int, width: int) -> str:
    whole, fraction = divmod(microseconds, MICROSECONDS)
    return f"{whole:0{width}}" + (f".{fraction:06}" if fraction else "")
