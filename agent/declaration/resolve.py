"""The keys of one service become its place in the model: defaults that depend on the kind, and rules across keys.

A rule is only looked at when all keys that it concerns could be read, since one mistake makes one problem; but a rule
about one item of a list or one key of a table does not wait for the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from agent.declaration.capture_limits import least_budget, record_limit
from agent.declaration.check import LEAST_MEMORY, Share
from agent.declaration.model import (
    AnyService,
    Capture,
    Command,
    Heartbeat,
    Limits,
    LogPolicy,
    Rotate,
    Scan,
    Scanning,
    Trigger,
)
from agent.declaration.reader import Fail, Values
from agent.declaration.resolve_scan import TargetFile, check_scan, ports_of, scan_settings
from agent.declaration.schema import Kind
from agent.declaration.timing import OF_TIMES, TIMER_KEYS, Elapses, timer
from agent.declaration.units import format_duration, format_size
from agent.declaration.wording import shown

_NOT_IN_MODEL = {*TIMER_KEYS, *OF_TIMES, "kind", "env_file", "timeout"}
_CAPTURE = Capture(name="", interfaces=())
_KIND: dict[Kind, type[Capture | Scan | Command]] = {"capture": Capture, "scan": Scan, "command": Command}
_NEEDED: dict[Kind, tuple[str, str]] = {
    "capture": ("interfaces", 'interfaces = ["eth0"]'),
    "scan": ("targets", 'targets = ["10.20.0.0/24"]'),
    "command": ("command", 'command = ["/usr/bin/program", "--option"]'),
}


class Host(NamedTuple):
    """What the meaning of a service depends on besides its own text.

    ``memory`` is in bytes, ``elapses`` tells which calendars are over, ``target_file`` reads one, ``server`` is the
    name of this server, ``sets`` are those of ``[ports]``, ``scanning`` is what all scans share.
    """

    memory: int
    elapses: Elapses
    target_file: TargetFile
    server: str = ""
    sets: Mapping[str, str] = {}
    scanning: Scanning = Scanning()


def resolve(
    name: str,
    kind: Kind | None,
    values: Values,
    environment: dict[str, str],
    project: str | None,
    host: Host,
    fail: Fail,
) -> AnyService | None:
    """The service, or ``None`` when its kind or the key that its kind cannot do without is missing or wrong.

    ``environment`` are the variables of its ``env_file``. What is wrong goes to ``fail``; only when nothing did does
    the result mean what was written.
    """
    good = values.good
    job = values.given(*TIMER_KEYS)
    settings = {key: value for key, value in good.items() if key not in _NOT_IN_MODEL}
    settings["timer"] = timer(values, host.elapses, fail)
    settings["heartbeat"] = _heartbeat(kind, values, fail)
    settings["log"] = LogPolicy(**values.part("log"))
    settings["limits"] = _limits(values.part("limits"), host.memory, fail)
    settings["environment"] = _environment(environment, values, fail)
    settings.setdefault("restart", "no" if job or kind == "scan" else "always")
    settings.setdefault("ready", "immediate" if kind == "command" else "notify")
    _check_job(kind, job, values, fail)
    if kind in ("capture", None):
        _check_capture(values, fail)
        _check_trigger(values, fail)
    if kind in ("scan", None):
        check_scan(values, host.target_file, fail)
    for key in ("ports", "listens"):
        if key in good:
            settings[key] = ports_of(good[key], (key,), host.sets, fail, top=key == "ports")
    if kind is None:
        return None
    needed, example = _NEEDED[kind]
    if needed not in good:
        if not values.given(needed):
            fail((), f"{needed} is missing; write {example}")
        return None
    if kind == "capture":
        settings["rotate"] = Rotate(**values.part("rotate"))
        settings["trigger"] = Trigger(**values.part("trigger")) if values.given("trigger") else None
    if kind == "scan":
        settings |= scan_settings(values, host.server, host.scanning)
        if not job:
            settings["timeout"] = good.get("timeout")
    return _KIND[kind](name=name, project=project, **settings)


def _check_job(kind: Kind | None, job: bool, values: Values, fail: Fail) -> None:
    """What a job cannot have, and what nothing else can."""
    restart = values.good.get("restart")
    if job and restart in ("always", "unless-stopped"):
        rule = "keeps a service up; a job runs at its times, write no or on-failure"
        fail(("restart",), f"{restart} {rule}", rule)
    if job and kind == "capture" and not values.given("timeout"):
        fail(("timeout",), 'missing; a capture never ends by itself, so a job needs one, such as timeout = "10m"')
    if not job and kind in ("capture", "command") and values.written("timeout"):
        fail(("timeout",), "bounds jobs and scans, and this runs on; say when it runs (oncalendar) or leave it out")


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
            "is too short a timeout or too long an interval; a timeout is at least two intervals",
        )
    return Heartbeat(interval, timeout)


def _heartbeat(kind: Kind | None, values: Values, fail: Fail) -> Heartbeat | None:
    """Capture and scan workers always beat; a program of somebody else does when it is declared to."""
    declared = values.good.get("heartbeat")
    if declared is None and kind == "command" and values.good.get("ready") != "heartbeat":
        return None
    return _heartbeat_of(declared or {}, fail)


def _limits(values: Mapping[str, Any], total: int, fail: Fail) -> Limits:
    memory = values.get("memory")
    if isinstance(memory, Share):
        memory = int(memory * total)
        if memory < LEAST_MEMORY:
            what = f"of this host's {format_size(total)}; nothing runs in that"
            fail(("limits", "memory"), f"is {memory} bytes {what}", f"is too little {what}")
    return Limits(**{**values, "memory": memory})


def _environment(files: dict[str, str], values: Values, fail: Fail) -> dict[str, str]:
    """The variables of the files, overridden by those of ``environment``. The names of secrets' files are taken."""
    environment: dict[str, str] = files | values.good.get("environment", {})
    for position, secret in values.items("secrets"):
        if (name := f"{secret.upper()}_FILE") in environment:
            rule = "which environment or env_file sets too"
            fail(
                ("secrets", position),
                f"{secret} sets the variable {name}, {rule}",
                f"sets a variable {rule}",
            )
    return environment


def _check_capture(values: Values, fail: Fail) -> None:
    """The budget holds two segments of each interface, and a few of the longest packets in each of them."""
    if values.unclear("budget"):
        return
    budget: int = values.good.get("budget", _CAPTURE.budget)
    size: int | None = values.part("rotate").get("size", None if values.unclear("rotate") else _CAPTURE.rotate.size)
    snaplen: int | None = None if values.unclear("snaplen") else values.good.get("snaplen", _CAPTURE.snaplen)
    # A pattern counts for one: the worker captures no more of what it matches than the budget is enough for.
    interfaces = max(1, sum(not str(name).startswith("!") for _, name in values.items("interfaces")))
    processes: int = 1 if values.unclear("fanout") else values.good.get("fanout", _CAPTURE.fanout)
    interfaces *= processes
    segments = 0 if size is None else 2 * size * interfaces
    packets = 0 if snaplen is None else least_budget(record_limit(snaplen), interfaces)
    if budget >= max(segments, packets):
        return
    if segments >= packets:
        why, way_out = f"two segments of {format_size(size or 0)}", "a smaller rotate.size"
        if budget < packets:
            way_out += " and a smaller snaplen"
    else:
        why, way_out = f"what packets of up to {snaplen} bytes need", "a smaller snaplen"
    least = format_size(-(-max(segments, packets) // 1024) * 1024)
    fail(
        ("budget",),
        f"{format_size(budget)} is less than {why} for each interface; write at least {least} or {way_out}",
        "is too small for these interfaces, rotate.size and snaplen; write a larger one",
        (("budget",), ("rotate",), ("snaplen",)),
    )


def _check_trigger(values: Values, fail: Fail) -> None:
    """A bound on memory is one where something is kept there."""
    trigger = values.part("trigger")
    if values.given("trigger") and values.good.get("fanout", 1) > 1:
        fail(("fanout",), "an armed capture is one process; leave out fanout or trigger")
    if "memory" in trigger and trigger.get("keep", "disk") != "memory" and not values.unclear("trigger"):
        fail(("trigger", "memory"), 'bounds what is kept in memory; write keep = "memory", or leave it out')
