"""systemctl(1): what the service manager of this machine is asked to do, and what it tells about its units.

Its output is read as systemd 252 and later print it, in UTC and without locale.
"""

from __future__ import annotations

import os
import re
import time
from calendar import timegm
from collections.abc import Mapping, Sequence

from agent.errors import RuntimeFailure, SpawnFailed
from agent.linux.spawn import Completed, SpawnRequest, base_environment, run

PATIENCE = 90.0
"""Seconds for one call. What is waited for here is a job of the manager, never a run of a service."""

UNITS_AT_ONCE = 100
"""Units asked about in one call: with the properties that we want they stay far below a megabyte of answer."""

_TIMESPAN = {
    "y": 31_557_600,
    "month": 2_629_800,
    "w": 604_800,
    "d": 86_400,
    "h": 3600,
    "min": 60,
    "s": 1,
    "ms": 1e-3,
    "us": 1e-6,
    "μs": 1e-6,
}
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(y|month|w|d|h|min|s|ms|us|μs) ?")
_TIMESTAMP = re.compile(r"(?:[A-Z][a-z]{2} )?(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(\.\d{1,6})? UTC", re.ASCII)

Properties = Mapping[str, str]


def call(*arguments: str) -> None:
    """Have something done. Raises ``RuntimeFailure`` with the manager's own words when it is not."""
    done = _systemctl(arguments)
    if not done.status.success:
        raise RuntimeFailure(f"systemctl {arguments[0]}: {_said(done)}")


def show(units: Sequence[str], properties: Sequence[str]) -> dict[str, Properties]:
    """The properties of each unit, by its name, as ``systemctl show`` prints them; a unit need not exist.

    Raises ``RuntimeFailure`` when nobody answers.
    """
    found: dict[str, Properties] = {}
    for first in range(0, len(units), UNITS_AT_ONCE):
        asked = units[first : first + UNITS_AT_ONCE]
        done = _systemctl(["show", "--timestamp=unix", f"--property={','.join(properties)}", "--", *asked])
        if not done.status.success:
            raise RuntimeFailure(f"systemctl show: {_said(done)}")
        found.update(zip(asked, parse_show(done.stdout.decode("utf-8", "replace"), len(asked)), strict=True))
    return found


def parse_show(text: str, count: int) -> list[Properties]:
    """The properties of ``count`` units, whose blocks have an empty line between them.

    Raises ``RuntimeFailure`` when there are more or fewer blocks.
    """
    blocks: list[dict[str, str]] = [{}]
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals:
            blocks[-1][name] = value
        elif not line:
            blocks.append({})
    if len(blocks) != count:
        raise RuntimeFailure(f"systemctl show: {len(blocks)} units in its answer about {count}")
    return list(blocks)


def parse_timestamp(text: str) -> float | None:
    """Unix seconds of ``@1795726610`` or ``Thu 2026-11-26 20:56:55 UTC``; ``None`` for what has not happened.

    systemd 252 heeds ``--timestamp=unix`` for some properties only, so both are to be expected of it.
    """
    if re.fullmatch(r"@[0-9]{1,12}(\.[0-9]{1,6})?", text, re.ASCII):
        return float(text[1:]) or None
    found = _TIMESTAMP.fullmatch(text)
    if found is None:
        return None
    try:
        return timegm(time.strptime(found[1], "%Y-%m-%d %H:%M:%S")) + float(found[2] or 0.0)
    except ValueError:
        return None


def parse_timespan(text: str) -> float | None:
    """Seconds of ``1h 50min 55.341930s``; ``None`` for ``infinity`` and whatever else is none."""
    if text == "0":
        return 0.0
    total, at = 0.0, 0
    while at < len(text):
        part = _PART.match(text, at)
        if part is None:
            return None
        total += float(part[1]) * _TIMESPAN[part[2]]
        at = part.end()
    return total if text else None


def _systemctl(arguments: Sequence[str]) -> Completed:
    environment = {
        **base_environment(os.environ),
        # Time stamps are then in UTC, and its words those of systemd.
        "TZ": "UTC",
        "LC_ALL": "C.UTF-8",
        "SYSTEMD_COLORS": "0",
        "SYSTEMD_PAGER": "",
    }
    request = SpawnRequest(argv=["systemctl", "--no-ask-password", *arguments], environment=environment)
    try:
        return run(request, PATIENCE)
    except SpawnFailed as error:
        raise RuntimeFailure(str(error)) from error


def _said(done: Completed) -> str:
    if done.timed_out:
        return f"no answer within {PATIENCE:g} s"
    lines = done.stderr.decode("utf-8", "replace").split("\n")
    return next((line for line in lines if line.strip()), str(done.status))
