"""Figures of a worker by interface, as one field of a notification, and back. Pure.

::

    {"figures": ["received", "lag"], "interfaces": {"eth0": [12, 0.1], "eth1": [0, null]}}

The names are said once: 64 interfaces with 16 figures of 20 digits each fit into ``LIMIT``. What is read is not
believed: who sends it may be any program.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import islice
from typing import Any

import msgspec

FIELD = "X_INTERFACES"
"""The field of the notification, beside ``X_FIGURES``."""

LIMIT = 28_000
"""Bytes of the field."""

MOST = 64
"""Interfaces that are told of."""

MOST_FIGURES = 16
LONGEST_NAME = 15
"""Characters of an interface's name (IFNAMSIZ of linux/if.h, less the NUL)."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")

Figures = Mapping[str, int | float | None]


class _Wire(msgspec.Struct, frozen=True):
    figures: list[str]
    interfaces: dict[str, list[bool | int | float | None]]


def encode(told: Mapping[str, Figures]) -> str:
    """The first ``MOST`` of these as ASCII. All have the figures of the first one.

    Raises ``ValueError`` when that is longer than ``LIMIT``.
    """
    few = dict(islice(told.items(), MOST))
    names = list(next(iter(few.values()), {}))
    rows = {
        interface.encode(errors="replace").decode(): [figures.get(name) for name in names]
        for interface, figures in few.items()
    }
    text = json.dumps({"figures": names, "interfaces": rows}, separators=(",", ":"))
    if len(text) > LIMIT:
        raise ValueError(f"{len(text)} bytes, at most {LIMIT} fit")
    return text


def decode(text: str | None) -> dict[str, dict[str, Any]] | None:
    """What was encoded; ``None`` when it is not that. Interfaces and figures beyond what may be told are left out."""
    if text is None or len(text) > LIMIT:
        return None
    try:
        wire = msgspec.json.decode(text, type=_Wire)
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        return None
    kept = [(at, name) for at, name in enumerate(wire.figures[:MOST_FIGURES]) if _NAME.fullmatch(name)]
    return {
        _printable(interface): {name: values[at] for at, name in kept}
        for interface, values in islice(wire.interfaces.items(), MOST)
        if len(values) == len(wire.figures)
    }


def _printable(name: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in name[:LONGEST_NAME])
