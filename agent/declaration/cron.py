"""The five fields of cron (crontab(5)), compiled to the type of systemd's calendar events."""

from __future__ import annotations

from typing import NamedTuple

from agent.declaration.calendar import Calendar, Span
from agent.errors import UsageError

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_SHOWN = 80
_LONGEST = 512


class _Unit(NamedTuple):
    name: str
    low: int
    high: int
    words: tuple[str, ...] = ()


_MINUTE = _Unit("minute", 0, 59)
_HOUR = _Unit("hour", 0, 23)
_DAY = _Unit("day", 1, 31)
_MONTH = _Unit("month", 1, 12, _MONTHS)
_WEEKDAY = _Unit("weekday", 0, 7, _WEEKDAYS)


def parse_cron(
    minute: str | int = "*",
    hour: str | int = "*",
    day: str | int = "*",
    month: str | int = "*",
    weekday: str | int = "*",
) -> Calendar:
    """Compile cron's fields, in local time. A weekday is 0 to 7, both ends being Sunday.

    Each field is ``*``, a number, a range ``1-5``, ``*`` or a range with a step (``*/15``, ``9-17/2``), or a list of
    these; months and weekdays also take the first three letters of their English names. As in cron, a day and a weekday
    that are both restricted (neither begins with ``*``) are two ways to match, not one: the result is then a union.

    Raises ``UsageError`` with the field that is wrong and what would be right.
    """
    hours, minutes = _spans(_HOUR, hour), _spans(_MINUTE, minute)
    months, days = _spans(_MONTH, month), _spans(_DAY, day)
    weekdays = tuple(sorted({(number - 1) % 7 for number in _values(_WEEKDAY, weekday)}))
    if len(weekdays) == 7:
        weekdays = ()
    by_day = Calendar(months=months, days=days, hours=hours, minutes=minutes)
    by_weekday = Calendar(weekdays=weekdays, months=months, hours=hours, minutes=minutes)
    if _restricted(day) and _restricted(weekday):
        # One that lists everything, such as 1-31, leaves nothing for the other to add.
        if not days or not weekdays:
            return Calendar(months=months, hours=hours, minutes=minutes)
        return Calendar(months=months, days=days, hours=hours, minutes=minutes, also=(by_weekday,))
    if not weekdays:
        return by_day
    return Calendar(weekdays=weekdays, months=months, days=days, hours=hours, minutes=minutes)


def _restricted(field: str | int) -> bool:
    return not str(field).strip().startswith("*")


def _spans(unit: _Unit, field: str | int) -> tuple[Span, ...]:
    """The field's values in the shortest form: all, one stepped range, or single values and runs of three and more."""
    values = sorted(_values(unit, field))
    if len(values) == unit.high - unit.low + 1:
        return ()
    step = values[1] - values[0] if len(values) > 2 else 0
    if step and values == list(range(values[0], values[-1] + 1, step)):
        return (Span(values[0], values[-1], step),)
    spans: list[Span] = []
    for value in values:
        if value - 1 not in values:
            spans.append(Span(value))
        elif value + 1 not in values:
            first = spans[-1].first
            spans[-1:] = [Span(first, value, 1)] if value - first > 1 else [Span(first), Span(value)]
    return tuple(spans)


def _values(unit: _Unit, field: str | int) -> set[int]:
    text = str(field).strip().lower()
    if len(text) > _LONGEST:
        raise _error(unit, field, f"is longer than {_LONGEST} characters")
    values: set[int] = set()
    for item in text.split(","):
        values.update(_item(unit, field, item))
    return values


def _item(unit: _Unit, field: str | int, item: str) -> range:
    body, stepped, step_text = item.partition("/")
    step = _number(step_text) if stepped else 1
    if not step:
        raise _error(unit, field, f"{step_text!r} is no step; write for example */15")
    first_text, ranged, last_text = body.partition("-")
    if body == "*":
        first, last = unit.low, 6 if unit is _WEEKDAY else unit.high
    elif ranged:
        first, last = _value(unit, field, first_text), _value(unit, field, last_text)
        if unit is _WEEKDAY and last_text == "sun" and first > 0:
            last = 7
    elif stepped:
        raise _error(unit, field, f"a step goes with * or a range: {body}-{unit.high}/{step_text}")
    else:
        first = last = _value(unit, field, body)
    if last < first:
        raise _error(unit, field, f"{body} runs backwards; write {first_text}-{unit.high},{unit.low}-{last_text}")
    return range(first, last + 1, step)


def _value(unit: _Unit, field: str | int, text: str) -> int:
    number = unit.words.index(text) + unit.low if text in unit.words else _number(text)
    if number is None or not unit.low <= number <= unit.high:
        names = f" or {unit.words[0]} to {unit.words[-1]}" if unit.words else ""
        raise _error(unit, field, f"{text!r} is not within {unit.low} to {unit.high}{names}")
    return number


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 5 else None


def _error(unit: _Unit, field: str | int, what: str) -> UsageError:
    return UsageError(f"cron {unit.name} {str(field)[:_SHOWN]!r}: {what[: 2 * _SHOWN]}")
