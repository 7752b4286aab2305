"""Instants and spans of time as a person types them.

An instant is one of

* ``2026-11-20T14:00:05.25Z``, ISO 8601: a blank may stand for the T, seconds may be left out, and so may the zone
  (``Z``, ``+01:00``, ``+0100``): then it is this host's. A date alone is its midnight.
* ``14:00`` or ``14:00:05``: today
* ``-10m`` or ``+90s``: that long before or after now, as durations are written in the declaration
* ``@1795183205.25``: unix time
* ``now``

All are nanoseconds since the epoch from here on, as in the names of segments. Everything raises ``UsageError``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, NamedTuple

import click

from agent.declaration.units import parse_duration
from agent.declaration.wording import shown
from agent.errors import UsageError

SECOND = 1_000_000_000
HOUR = 3600 * SECOND

LATEST = 7_258_118_400 * SECOND
"""The year 2200: nanoseconds fit into 63 bits until 2262, and nobody means a later time."""

_LONGEST = 64
_FRACTION = r"(?:[.,](?P<fraction>\d{1,9}))?"
_TIME = rf"(?P<hour>\d\d):(?P<minute>\d\d)(?::(?P<second>\d\d){_FRACTION})?"
_DATED = re.compile(
    rf"(?P<year>\d{{4}})-(?P<month>\d\d)-(?P<day>\d\d)(?:[T ]{_TIME}(?P<zone>Z|[+-]\d\d(?::?\d\d)?)?)?",
    re.ASCII | re.IGNORECASE,
)
_TODAY = re.compile(_TIME, re.ASCII)
_UNIX = re.compile(rf"@(?P<seconds>\d{{1,12}}){_FRACTION}", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HINT = 'write one such as "2026-11-20T14:00", "14:00:05", "-10m" or "now"'


class Span(NamedTuple):
    """From ``begin`` to ``end``, both included; nanoseconds since the epoch."""

    begin: int
    end: int


def instant(text: str, now: int, *, closing: bool = False) -> int:
    """The instant that ``text`` says at ``now``.

    A local time that comes twice, because the clocks are set back, is the first of both, or with ``closing`` the
    second; one that the clocks skip is taken by the offset of before.
    """
    word = text.strip()
    if len(text) > _LONGEST or not word:
        raise _wrong(text)
    if word == "now":
        found = now
    elif word[0] in "+-":
        distance = round(parse_duration(word[1:].lstrip()) * 1_000_000) * 1000
        found = max(0, now + distance if word[0] == "+" else now - distance)
    elif match := _UNIX.fullmatch(word):
        found = int(match["seconds"]) * SECOND + _nanoseconds(match)
    elif match := _DATED.fullmatch(word):
        found = _dated(
            text, match, (int(match["year"]), int(match["month"]), int(match["day"])), match["zone"], closing
        )
    elif match := _TODAY.fullmatch(word):
        today = datetime.fromtimestamp(now // SECOND, UTC).astimezone()
        found = _dated(text, match, (today.year, today.month, today.day), None, closing)
    else:
        raise _wrong(text)
    if not 0 <= found <= LATEST:
        raise UsageError(f"{shown(text)} is out of range; times go from 1970 to 2200")
    return found


def _dated(text: str, match: re.Match[str], day: tuple[int, int, int], zone: str | None, closing: bool) -> int:
    hour, minute, second = (int(match[part] or 0) for part in ("hour", "minute", "second"))
    try:
        reading = datetime(*day, hour, minute, second, fold=int(closing))
        if zone is not None:
            reading = reading.replace(tzinfo=_zone(zone))
        since = reading.astimezone(UTC) - _EPOCH
    except (ValueError, OverflowError) as error:  # the 31st of February, 25 o'clock, a year the C library cannot hold
        raise _wrong(text) from error
    return (since.days * 86_400 + since.seconds) * SECOND + _nanoseconds(match)


def _zone(text: str) -> timezone:
    if text in "Zz":
        return UTC
    digits = text[1:].replace(":", "").ljust(4, "0")
    if int(digits[2:]) > 59:
        raise ValueError("minutes of an offset go to 59")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return timezone(-offset if text[0] == "-" else offset)


def _nanoseconds(match: re.Match[str]) -> int:
    return int((match["fraction"] or "").ljust(9, "0"))


def _wrong(text: str) -> UsageError:
    return UsageError(f"{shown(text)} is not a time; {_HINT}")


def span(
    now: int, last: str | None = None, begin: str | None = None, end: str | None = None, ahead: str | None = None
) -> Span | None:
    """What the options ``--last``, ``--from``, ``--to`` and ``--for`` say together; ``None`` when none is given.

    ``last`` goes back from now; ``begin`` alone goes on until now, ``end`` alone back to the epoch. ``ahead`` is how
    long it goes on after ``begin``, or without that after now.
    """
    if last is None and begin is None and end is None and ahead is None:
        return None
    if last is not None and (begin is not None or end is not None):
        raise UsageError("--last goes back from now and cannot stand with --from or --to; write one or the other")
    if ahead is not None and end is not None:
        raise UsageError("--for and --to both say when it ends; write one of them")
    if last is not None:
        first = instant(f"-{last}", now)
    elif begin is not None:
        first = instant(begin, now)
    else:
        first = now if ahead is not None else 0
    if ahead is not None:
        length = round(parse_duration(ahead) * 1_000_000) * 1000
        until = (now if begin is None else first) + length
    else:
        until = now if end is None else instant(end, now, closing=True)
    if until < first:
        raise UsageError(f"the time ends ({_told(until)}) before it begins ({_told(first)})")
    return Span(first, until)


def or_last_hour(now: int, chosen: Span | None) -> Span:
    """What was chosen, or the last hour: for what would otherwise read everything."""
    return chosen or Span(max(0, now - HOUR), now)


def _told(when: int) -> str:
    return datetime.fromtimestamp(when // SECOND, UTC).astimezone().isoformat(timespec="seconds")


class Duration(click.ParamType[float]):
    """An option that is a duration between two others; seconds."""

    name = "duration"

    def __init__(self, least: str, most: str) -> None:
        self._bounds = least, most

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from agent.declaration.check import duration

        return duration(*self._bounds)(str(value))


def spanned(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options ``--last``, ``--from`` and ``--to``: arguments ``last``, ``begin`` and ``end``."""
    for option in (
        click.option("--to", "end", metavar="TIME", help="Until then.  [default: now]"),
        click.option("--from", "begin", metavar="TIME", help="From then on: 2026-11-20T14:00, 14:00:05 or -10m."),
        click.option("--last", metavar="DURATION", help="Of the last 90s, 10m, 2h or 1d."),
    ):
        function = option(function)
    return function
