"""When a job runs: ``oncalendar``, ``every`` or the fields of cron become a ``Timer``. Pure.

A declaration is as valid at night as by day, in summer as in winter, and after a date as before it: what a calendar is
asked here does not depend on when it is read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from agent.declaration.calendar import Calendar, local_zone_names
from agent.declaration.calendar_parse import parse_calendar
from agent.declaration.cron import parse_cron
from agent.declaration.model import Timer
from agent.declaration.reader import Fail, Values
from agent.declaration.units import format_duration
from agent.declaration.wording import listed, shown
from agent.errors import UsageError

CRON_FIELDS = ("minute", "hour", "day", "month", "weekday")
TIMER_KEYS = (*CRON_FIELDS, "oncalendar", "every")
OF_TIMES = {"randomized_delay": "puts off the times", "persistent": "makes up for missed times"}
"""Keys that say more about the times of a job, and what each does to them."""

Elapses = Callable[[Calendar], bool]
"""Whether a calendar elapses at any time at all."""

_NO_EVENT = 'is not a calendar event such as "Mon..Fri 02:30"'
_NEVER = "never elapses: there is no such day; write one that there is, or leave it out"


def timer(values: Values, elapses: Elapses, fail: Fail) -> Timer | None:
    """The timer of a service; ``None`` when it has none, or when what is wrong with it went to ``fail``.

    Each way to say when is looked at, also where more than one is used.
    """
    cron = [field for field in CRON_FIELDS if values.written(field)]
    ways = [listed(cron, "and")] if cron else []
    ways += [key for key in ("oncalendar", "every") if values.written(key)]
    found = _of_calendars(values, elapses, fail), _of_cron(values, elapses, fail), _of_period(values)
    _check_keys_of_times(values, fail)
    if len(ways) > 1:
        fail((cron[0] if cron else ways[0],), f"{listed(ways, 'and')} are different ways to say when; keep one of them")
        return None
    return next((one for one in found if one is not None), None)


def _check_keys_of_times(values: Values, fail: Fail) -> None:
    for key, does in OF_TIMES.items():
        if values.written(key) and not values.given(*TIMER_KEYS):
            fail((key,), f"{does} of a job, and this has none; say when it runs (oncalendar) or leave it out")
    if values.written("persistent") and values.given("every"):
        fail(("persistent",), "is about calendar times; a period (every) that was missed is always made up for")


def _timer(source: str, values: Values, *, calendar: Calendar | None = None, every: float | None = None) -> Timer:
    more = {key: values.good[key] for key in ("timeout", *OF_TIMES) if key in values.good}
    return Timer(source, calendar=calendar, every=every, **more)


def _of_period(values: Values) -> Timer | None:
    every = values.good.get("every")
    return None if every is None else _timer(f"every {format_duration(every)}", values, every=every)


def _of_calendars(values: Values, elapses: Elapses, fail: Fail) -> Timer | None:
    events: list[Calendar] = []
    texts = values.items("oncalendar")
    for number, text in texts:
        try:
            events.append(_event(text))
        except UsageError as error:
            fail(("oncalendar", number), str(error), _NO_EVENT)
    if not texts or len(events) < len(texts) or values.unclear("oncalendar"):
        return None
    first, *rest = events
    calendar = msgspec.structs.replace(first, also=(*first.also, *rest))
    source = "; ".join(text for _, text in texts)
    if not elapses(calendar):
        fail(("oncalendar",), f"{shown(source)} {_NEVER}", _NEVER)
        return None
    return _timer(source, values, calendar=calendar)


def _event(text: str) -> Calendar:
    """One calendar event. Raises ``UsageError`` also for one that names one of the local zone's two clocks.

    ``12:00 EEST`` is right for systemd, and never elapses while that clock is not in force.
    """
    event = parse_calendar(text)
    if event.dst is not None and len(names := set(local_zone_names())) > 1:
        raise UsageError(
            f"{shown(text)} is for a part of the year only, as the local clock is {listed(sorted(names))}; "
            "write a zone such as Europe/Helsinki, or none for local time"
        )
    return event


def _of_cron(values: Values, elapses: Elapses, fail: Fail) -> Timer | None:
    fields: dict[str, Any] = {field: values.good[field] for field in CRON_FIELDS if field in values.good}
    right = bool(fields) and not values.unclear(*CRON_FIELDS)
    for field, text in fields.items():
        try:
            parse_cron(**{field: text})
        except UsageError as error:
            fail((field,), str(error), f"is not a value of {field}")
            right = False
    if not right:
        return None
    calendar = parse_cron(**fields)
    if not elapses(calendar):
        written = listed([f"{field} {text}" for field, text in fields.items()], "and")
        fail((next(iter(fields)),), f"{written} {_NEVER}", _NEVER, [(field,) for field in fields])
        return None
    source = " ".join(["cron", *(fields.get(field, "*") for field in CRON_FIELDS)])
    return _timer(source, values, calendar=calendar)
