"""The keys of one service become its place in the model: defaults that depend on the kind, and rules across keys.

A rule is only looked at when all keys that it concerns could be read: one mistake makes one problem.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from agent.declaration import targets
from agent.declaration.calendar import Calendar
from agent.declaration.calendar_parse import parse_calendar
from agent.declaration.check import LEAST_MEMORY, Share
from agent.declaration.cron import parse_cron
from agent.declaration.locate import Path
from agent.declaration.model import (
    AnyService,
    Capture,
    Command,
    Heartbeat,
    Limits,
    LogPolicy,
    Rotate,
    Scan,
    Timer,
)
from agent.declaration.reader import Values
from agent.declaration.schema import Kind
from agent.declaration.units import format_duration, format_size
from agent.declaration.wording import listed, shown
from agent.errors import UsageError

CRON_FIELDS = ("minute", "hour", "day", "month", "weekday")
TIMER_KEYS = frozenset({*CRON_FIELDS, "oncalendar", "every"})

Fail = Callable[[Path, str], None]
"""Notes a problem with a key, given below the service's own table."""

_NOT_IN_MODEL = TIMER_KEYS | {"kind", "env_file", "timeout"}
_KIND: dict[Kind, type[AnyService]] = {"capture": Capture, "scan": Scan, "command": Command}
_NEEDED: dict[Kind, tuple[str, str]] = {
    "capture": ("interfaces", 'interfaces = ["eth0"]'),
    "scan": ("targets", 'targets = ["10.20.0.0/24"]'),
    "command": ("command", 'command = ["/usr/bin/program", "--option"]'),
}


def resolve(
    name: str, kind: Kind, values: Values, environment: dict[str, str], project: str | None, memory: int, fail: Fail
) -> AnyService | None:
    """The service, or ``None`` when the key that its kind cannot do without is missing or wrong.

    ``environment`` are the variables of its ``env_file``, ``memory`` the bytes of memory that percentages refer to.
    What is wrong goes to ``fail``; only when nothing did does the result mean what was written.
    """
    settings = {key: value for key, value in values.good.items() if key not in _NOT_IN_MODEL}
    job = not TIMER_KEYS.isdisjoint(values.good.keys() | values.bad)
    settings["timer"] = _timer(kind, values, fail)
    settings["heartbeat"] = _heartbeat(kind, values, fail)
    settings["log"] = LogPolicy(**settings.get("log", {}))
    settings["limits"] = _limits(settings.get("limits", {}), memory, fail)
    settings["environment"] = _environment(environment, settings, fail)
    settings.setdefault("restart", "no" if job or kind == "scan" else "always")
    settings.setdefault("ready", "immediate" if kind == "command" else "notify")
    if job and settings["restart"] in ("always", "unless-stopped"):
        fail(("restart",), f"{settings['restart']} keeps a service up; a job runs at its times, write no or on-failure")
    if "timeout" in values.good and not job:
        if kind == "scan":
            settings["timeout"] = values.good["timeout"]
        else:
            fail(("timeout",), "bounds jobs and scans, and this runs on; say when it runs (oncalendar) or leave it out")
    if "rotate" in settings:
        settings["rotate"] = Rotate(**settings["rotate"])
    needed, example = _NEEDED[kind]
    if needed not in settings:
        if needed not in values.bad:
            fail((), f"{needed} is missing; write {example}")
        return None
    service = _KIND[kind](name=name, project=project, **settings)
    if isinstance(service, Capture):
        _check_capture(service, values, fail)
    elif isinstance(service, Scan):
        _check_scan(service, values, fail)
    return service


def _heartbeat_of(values: dict[str, float], fail: Fail) -> Heartbeat:
    """A heartbeat of which one half may be left out: a worker is given three intervals until it counts as hung."""
    standard = Heartbeat()
    if "interval" in values:
        interval = values["interval"]
        timeout = values.get("timeout", round(3 * interval, 6))
    else:
        timeout = values.get("timeout", standard.timeout)
        interval = min(standard.interval, round(timeout / 3, 6))
    if timeout < 2 * interval:
        fail(
            ("heartbeat",),
            f"timeout {format_duration(timeout)} is less than two intervals of {format_duration(interval)}; "
            f"write timeout = {shown(format_duration(3 * interval))}",
        )
    return Heartbeat(interval, timeout)


def _heartbeat(kind: Kind, values: Values, fail: Fail) -> Heartbeat | None:
    """Capture and scan workers always beat; a program of somebody else does when it is declared to."""
    declared = values.good.get("heartbeat")
    if declared is None and kind == "command" and values.good.get("ready") != "heartbeat":
        return None
    return _heartbeat_of(declared or {}, fail)


def _limits(values: dict[str, Any], total: int, fail: Fail) -> Limits:
    memory = values.get("memory")
    if isinstance(memory, Share):
        memory = int(memory * total)
        if memory < LEAST_MEMORY:
            fail(("limits", "memory"), f"is {memory} bytes of this host's {format_size(total)}; nothing runs in that")
    return Limits(**values | {"memory": memory})


def _environment(files: dict[str, str], settings: dict[str, Any], fail: Fail) -> dict[str, str]:
    """The variables of the files, overridden by those of ``environment``. The names of secrets' files are taken."""
    environment: dict[str, str] = files | settings.get("environment", {})
    for secret in settings.get("secrets", ()):
        if (name := f"{secret.upper()}_FILE") in environment:
            fail(("secrets",), f"{secret} sets the variable {name}, which environment or env_file sets too")
    return environment


def _timer(kind: Kind, values: Values, fail: Fail) -> Timer | None:
    good = values.good
    cron = [key for key in CRON_FIELDS if key in good or key in values.bad]
    ways = [listed(cron, "and")] if cron else []
    ways += [key for key in ("oncalendar", "every") if key in good or key in values.bad]
    if len(ways) > 1:
        fail((cron[0] if cron else ways[0],), f"{listed(ways, 'and')} are different ways to say when; keep one of them")
        return None
    if not TIMER_KEYS.isdisjoint(values.bad) or not ways:
        return None
    timeout = good.get("timeout")
    if kind == "capture" and timeout is None and "timeout" not in values.bad:
        fail(("timeout",), 'missing; a capture never ends by itself, so a job needs one, such as timeout = "10m"')
    if "every" in good:
        return Timer(f"every {format_duration(good['every'])}", every=good["every"], timeout=timeout)
    if "oncalendar" in good:
        calendar = _calendar(good["oncalendar"], fail)
        source = "; ".join(good["oncalendar"])
    else:
        calendar = _cron(good, fail)
        source = " ".join(["cron", *(good.get(field, "*") for field in CRON_FIELDS)])
    return Timer(source, calendar=calendar, timeout=timeout) if calendar else None


def _calendar(texts: tuple[str, ...], fail: Fail) -> Calendar | None:
    events: list[Calendar] = []
    for number, text in enumerate(texts):
        try:
            events.append(parse_calendar(text))
        except UsageError as error:
            fail(("oncalendar", number), str(error))
    if len(events) < len(texts):
        return None
    first, *rest = events
    return msgspec.structs.replace(first, also=(*first.also, *rest))


def _cron(values: dict[str, Any], fail: Fail) -> Calendar | None:
    fields = {field: values.get(field, "*") for field in CRON_FIELDS}
    faulty = False
    for field, text in fields.items():
        try:
            parse_cron(**{**dict.fromkeys(CRON_FIELDS, "*"), field: text})
        except UsageError as error:
            fail((field,), str(error))
            faulty = True
    if faulty:
        return None
    try:
        return parse_cron(**fields)
    except UsageError as error:
        fail((next(field for field in CRON_FIELDS if field in values),), str(error))
        return None


def _check_capture(service: Capture, values: Values, fail: Fail) -> None:
    if not values.bad.isdisjoint(("budget", "rotate")):
        return
    least = 2 * service.rotate.size * len(service.interfaces)
    if service.budget < least:
        fail(
            ("budget",),
            f"{format_size(service.budget)} is less than two segments of {format_size(service.rotate.size)} for each "
            f"interface; write at least {format_size(least)} or a smaller rotate.size",
        )


def _check_scan(service: Scan, values: Values, fail: Fail) -> None:
    if service.profile == "discovery" and "ports" in values.good:
        fail(("ports",), 'the profile discovery looks at no ports; leave them out or write profile = "ports"')
    if "allow_public" not in values.bad:
        for position, objection in targets.objections(service.targets, service.allow_public):
            fail(("targets", position), objection)
    number = targets.count(service.targets)
    if number > targets.MOST_ADDRESSES:
        fail(("targets",), f"{number} addresses are too many; one scan takes at most {targets.MOST_ADDRESSES}")
    if targets.all_excluded(service.targets, service.exclude):
        fail(("exclude",), "leaves nothing to scan")
