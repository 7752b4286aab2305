"""When a job runs: calendar events in the grammar of systemd.time(7), as plain frozen data.

``parse_calendar`` (systemd's grammar) and ``parse_cron`` (the five fields of cron) build it; nothing here reads a clock.
The behaviour is that of systemd 252, and the tests hold both against each other.
"""

from __future__ import annotations

import msgspec

MICROSECONDS = 1_000_000
"""Microseconds in a second: the unit of ``Calendar.microseconds``."""

FIRST_YEAR, LAST_YEAR = 1970, 2199
"""The years in which anything elapses, both inclusive (systemd 252's bounds)."""

_WEEKDAY_NAMES = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


class Span(msgspec.Struct, frozen=True, order=True):
    """One item of a list: ``first``, ``first..last`` or either with ``/step``.

    ``last`` is ``None`` for a single value; with ``step`` greater than 0 that means "up to the field's end". ``step`` 0 is a
    single value.
    """

    first: int
    last: int | None = None
    step: int = 0


class Calendar(msgspec.Struct, frozen=True):
    """A calendar event. An empty tuple in a field means "any" (``*``).

    ``weekdays`` holds 0 (Monday) to 6 (Sunday). ``days`` counts from the month's last day backwards (1 is the last) when
    ``from_month_end``. ``microseconds`` are those since the full minute, 0 to 59,999,999. ``zone`` is ``UTC``, an IANA name,
    or ``None`` for the local time zone of the process. ``dst`` tells which of the local zone's two clocks was named
    (``EET`` is ``False``, ``EEST`` is ``True``, in Helsinki). The event elapses also whenever one of ``also`` does.
    """

    weekdays: tuple[int, ...] = ()
    years: tuple[Span, ...] = ()
    months: tuple[Span, ...] = ()
    days: tuple[Span, ...] = ()
    from_month_end: bool = False
    hours: tuple[Span, ...] = ()
    minutes: tuple[Span, ...] = ()
    microseconds: tuple[Span, ...] = ()
    zone: str | None = None
    dst: bool | None = None
    also: tuple[Calendar, ...] = ()
