"""Which events a notification is about, and how grave each of them is. Pure."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Final, get_args

from agent.declaration.model import Notify, Severity
from agent.telemetry.events import Event
from agent.telemetry.kinds import ERR, INFO, KINDS, NOTICE, WARNING

SEVERITIES: Final[tuple[Severity, ...]] = get_args(Severity)
"""The least grave first."""

AGENT: Final = "agent"
"""The service that an event of the agent itself counts as."""

OWN: Final = ("notify_failed", "notify_resumed", "notify_dropped")
"""What is told of notifications themselves; each says of which in its data."""

_OF_PRIORITY: Final[dict[int, Severity]] = {ERR: "err", WARNING: "warning", NOTICE: "notice", INFO: "info"}
_OF_DRIFT: Final[dict[str, Severity]] = {
    **{word: word for word in SEVERITIES},
    "low": "notice",
    "medium": "warning",
    "high": "err",
    "critical": "err",
}
"""How the watch says in the data of an event how grave a difference is."""


def severity_of(event: Event) -> Severity:
    """That of its kind; of drift, and of what changed, that of the difference itself. What nobody knows is ``info``."""
    kind = KINDS.get(event.kind)
    said = event.data.get("severity")
    if isinstance(said, str) and said in _OF_DRIFT and (event.kind.startswith("drift_") or kind is None):
        return _OF_DRIFT[said]
    return _OF_PRIORITY.get(INFO if kind is None else kind.priority, "info")


def concerns(notify: Notify, event: Event) -> bool:
    """Whether somebody is to be told of an event: it is of the right kind and service, and grave enough.

    Nobody is told by a way that it does not work: that is told by the others.
    """
    if event.kind in OWN and event.data.get("notify") == notify.name:
        return False
    if SEVERITIES.index(severity_of(event)) < SEVERITIES.index(notify.severity):
        return False
    service = event.service or AGENT
    return _any(notify.kinds, event.kind) and _any(notify.services, service)


def _any(patterns: tuple[str, ...], word: str) -> bool:
    return any(fnmatchcase(word, pattern) for pattern in patterns)
