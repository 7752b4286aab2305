"""Many events become one message: when it is complete, and what is in it. Pure.

A message goes out when nothing more came for as long as ``group`` says, and at the latest ``STRETCH`` times that long
after its first event: a switch that falls is one message, and one that never stops falling is told of all the same.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from agent.declaration.model import Severity
from agent.declaration.wording import printable
from agent.telemetry.events import Event
from agent.workers.watch.notify_choice import AGENT, SEVERITIES, severity_of

VERSION: Final = 1
"""Of the form of a message, which grows by keys alone."""

STRETCH: Final = 4

MOST_EVENTS: Final = 50
"""Events of which a message tells one by one."""

MOST_DATA: Final = 64 * 1024
"""Bytes of the data of events in one message; what would be more is left out."""

MOST_KINDS: Final = 20
_LONGEST = 300  # characters of one event's message


def complete(arrivals: Sequence[float], group: float, now: float) -> int:
    """How many of the first of these (unix seconds, in order) make a message at ``now``; 0: none yet.

    A clock that was set back makes one of what it finds.
    """
    if not arrivals:
        return 0
    if arrivals[0] > now + STRETCH * group:
        return len(arrivals)
    first = last = arrivals[0]
    for number, arrival in enumerate(arrivals):
        if arrival >= ending(first, last, group) and number:
            return number
        last = max(last, arrival)
    return len(arrivals) if now >= ending(first, last, group) else 0


def ending(first: float, last: float, group: float) -> float:
    """When a message is complete whose first and last events came then."""
    return min(last + group, first + STRETCH * group)


def compose(server: str, notify: str, events: Sequence[Event], missed: int, now: float) -> dict[str, Any]:
    """The message about ``events`` (1 or more) and ``missed`` others, as JSON has it.

    Its ``id`` follows from what it is about: made twice it is the same.
    """
    severities = [severity_of(event) for event in events]
    by = Counter(
        (event.service or AGENT, event.kind, severity) for event, severity in zip(events, severities, strict=True)
    )
    worst = max(severities, key=SEVERITIES.index)
    ranked = sorted(by.items(), key=lambda one: (-SEVERITIES.index(one[0][2]), -one[1], one[0]))
    told, room = [], MOST_DATA
    chosen = sorted(range(len(events)), key=lambda number: (-SEVERITIES.index(severities[number]), number))[
        :MOST_EVENTS
    ]
    for number in sorted(chosen):
        told.append(_told(events[number], severities[number], room))
        room -= len(msgspec.json.encode(told[-1]["data"]))
    identity = f"{server}\0{notify}\0{events[0].cursor}\0{events[-1].cursor}"
    return {
        "version": VERSION,
        "id": hashlib.sha256(identity.encode()).hexdigest()[:32],
        "server": server,
        "notify": notify,
        "created": now,
        "severity": worst,
        "text": _text(server, worst, ranked, events, missed),
        "count": len(events) + missed,
        "from": min(event.time for event in events),
        "to": max(event.time for event in events),
        "by": [
            {"service": service, "kind": kind, "severity": severity, "count": count}
            for (service, kind, severity), count in ranked[:MOST_KINDS]
        ],
        "events": told,
        "left_out": len(events) - len(told) + missed,
    }


def _told(event: Event, severity: Severity, room: int) -> dict[str, Any]:
    data = event.data if len(msgspec.json.encode(event.data)) <= room else {}
    return {
        "cursor": event.cursor,
        "time": event.time,
        "service": event.service or AGENT,
        "kind": event.kind,
        "severity": severity,
        "message": cut(event.message),
        "data": data,
    }


def _text(
    server: str,
    worst: Severity,
    ranked: Sequence[tuple[tuple[str, str, Severity], int]],
    events: Sequence[Event],
    missed: int,
) -> str:
    """One line: the event itself if it is alone, else how many there are of which."""
    if len(events) == 1 and not missed:
        (event,) = events
        return cut(f"{server}: {event.service or AGENT} {event.kind}: {event.message}")
    parts = [f"{count} × {service} {kind}" for (service, kind, _severity), count in ranked[:3]]
    more = f" and {len(ranked) - 3} other kinds" if len(ranked) > 3 else ""
    return cut(f"{server}: {len(events) + missed} events, {worst} at worst: {', '.join(parts)}{more}")


def cut(text: str) -> str:
    """``text`` in one printable line of so many characters."""
    line = printable(text[: _LONGEST + 1])
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"
