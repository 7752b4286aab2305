"""What is told of drift that came and went: events, so many at the most, and the rest by their numbers. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from agent.telemetry.kinds import DRIFT_SEVERITIES
from agent.workers.watch.row import Row
from agent.workers.watch.standing import Fold, Stands

FOUND: Final = "drift_found"
GONE: Final = "drift_gone"

MOST_TOLD: Final = 20
"""Of what came, and of what went, in one judgement; the rest is told together in one event."""

_LONGEST = 200  # characters of a value, as the agent keeps it
_MESSAGE = 1200
_FIELD = 3800
"""Bytes of JSON, the first of a message and the second of all of an event: less than what a worker may tell at once."""

_SHED: Final = ("seen", "scanned", "listening", "declared", "expectations")
"""What an event can do without, the first before the others."""


class Told(NamedTuple):
    """One event. ``data`` holds no lists: of those the agent keeps nothing."""

    kind: str
    message: str
    data: dict[str, Any]


def events(fold: Fold) -> list[Told]:
    """What to tell of it: what came first, the gravest first."""
    found = [_fitting(_found(row)) for row in fold.found[:MOST_TOLD]]
    gone = [_fitting(_gone(one)) for one in fold.gone[:MOST_TOLD]]
    if rest := fold.found[MOST_TOLD:]:
        found.append(_many(FOUND, "more differences", [(row.severity, row.host) for row in rest]))
    if left := fold.gone[MOST_TOLD:]:
        gone.append(_many(GONE, "more differences are gone", [(one.severity, one.host) for one in left]))
    return found + gone


def _found(row: Row) -> Told:
    subject = f"{row.host} {row.service}".rstrip()
    message = f"{row.severity}: {subject} {row.what}"
    data: dict[str, Any] = {
        "key": row.key,
        "drift": row.kind,
        "severity": row.severity,
        "site": row.site or None,
        "host": row.host,
        "port": row.service or None,
        "since": row.since,
        "expectations": _listed(row.expectations),
    }
    for one in row.evidence:  # the first of each source
        data.setdefault(one.source, one.text[:_LONGEST])
    return Told(FOUND, message, data)


def _gone(one: Stands) -> Told:
    subject = f"{one.host} {one.service}".rstrip()
    data = {
        "key": one.key,
        "drift": one.kind,
        "severity": one.severity,
        "site": one.site or None,
        "host": one.host,
        "port": one.service or None,
        "since": one.since,
        "found": one.found,
        "expectations": _listed(one.expectations),
    }
    return Told(GONE, f"no more: {subject} {one.what}", data)


def _fitting(told: Told) -> Told:
    """The same in so many bytes: strangers choose what their banners say, and an event that is too long loses all."""
    message, data = told.message, {**told.data}
    while len(json.dumps(message)) > _MESSAGE:
        message = message[: len(message) * 3 // 4]
    for key in _SHED:
        if len(json.dumps([told.kind, message, data])) > _FIELD:
            data.pop(key, None)
    return Told(told.kind, message, data)


def _many(kind: str, words: str, rest: Iterable[tuple[str, str]]) -> Told:
    severities: Counter[str] = Counter()
    hosts = set()
    for severity, host in rest:
        severities[severity] += 1
        hosts.add(host)
    worst = next(severity for severity in reversed(DRIFT_SEVERITIES) if severity in severities)
    listed = ", ".join(f"{severities[one]} {one}" for one in reversed(DRIFT_SEVERITIES) if one in severities)
    count = severities.total()
    message = f"{worst}: {count} {words} on {len(hosts)} hosts ({listed}); see `agentctl drift`"
    data = {"more": count, "hosts": len(hosts), "severity": worst}
    return Told(kind, message, {**data, **severities})


def _listed(names: Iterable[str]) -> str | None:
    return ", ".join(names)[:_LONGEST] or None
