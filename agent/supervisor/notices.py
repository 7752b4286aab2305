"""What children say on their notify socket, made safe. Pure.

sd_notify(3) fields are understood as systemd does: ``READY``, ``STATUS``, ``WATCHDOG``, ``EXTEND_TIMEOUT_USEC``. Three
fields of our own, allowed there by the ``X_`` rule, carry a worker's figures, those of each of its interfaces
(``agent.telemetry.breakdown``), and its events as JSON. A child is not trusted: everything is bounded, and what does
not fit is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from agent.telemetry import breakdown

STATUS_LIMIT = 200
MESSAGE_LIMIT = 500
FIGURES_LIMIT = 32
_KIND = re.compile(r"[a-z][a-z0-9_]{0,39}")
_NAME = re.compile(r"[a-z][a-z0-9_.:-]{0,63}")
_LONGEST_EXTENSION = 3600.0


class ChildEvent(msgspec.Struct, frozen=True):
    kind: str
    message: str
    data: dict[str, Any]


class Notice(msgspec.Struct, frozen=True):
    """One notification, understood. ``None`` stands for "said nothing about it"."""

    ready: bool = False
    beat: bool = False
    status: str | None = None
    extend: float | None = None
    figures: dict[str, Any] | None = None
    interfaces: dict[str, dict[str, Any]] | None = None
    event: ChildEvent | None = None


def understand(fields: Mapping[str, str]) -> Notice:
    """Turn the fields of one message into a ``Notice``. Never raises."""
    return Notice(
        ready=fields.get("READY") == "1",
        beat=fields.get("WATCHDOG") == "1",
        status=_printable(fields["STATUS"], STATUS_LIMIT) if "STATUS" in fields else None,
        extend=_seconds(fields.get("EXTEND_TIMEOUT_USEC")),
        figures=_figures(fields.get("X_FIGURES")),
        interfaces=breakdown.decode(fields.get(breakdown.FIELD)),
        event=_event(fields.get("X_EVENT")),
    )


def _printable(text: str, limit: int) -> str:
    return "".join(char if char.isprintable() else " " for char in text[:limit])


def _seconds(text: str | None) -> float | None:
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 18:
        return None
    return min(int(text) / 1_000_000, _LONGEST_EXTENSION)


def _decoded(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _scalars(found: Mapping[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, value in found.items():
        if len(kept) < FIGURES_LIMIT and _NAME.fullmatch(name) and isinstance(value, str | int | float | bool | None):
            kept[name] = _printable(value, STATUS_LIMIT) if isinstance(value, str) else value
    return kept


def _figures(text: str | None) -> dict[str, Any] | None:
    found = _decoded(text)
    return None if found is None else _scalars(found)


def _event(text: str | None) -> ChildEvent | None:
    found = _decoded(text)
    if found is None:
        return None
    kind, message, data = found.get("kind"), found.get("message"), found.get("data", {})
    if not isinstance(kind, str) or not _KIND.fullmatch(kind) or not isinstance(message, str):
        return None
    return ChildEvent(kind, _printable(message, MESSAGE_LIMIT), _scalars(data) if isinstance(data, dict) else {})
