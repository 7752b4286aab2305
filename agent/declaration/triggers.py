"""What makes an armed capture keep what it saw: events of services, and bounds on its own figures. Pure.

An event is written as ``SERVICE.KIND``, with the wildcards of a shell (``*.failed``, ``lan_scan.*``). A bound is
written as a figure, a comparison and a number (``dropped_kernel > 100``); what only ever grows is compared by how much
it grew within a second.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Literal, NamedTuple

from agent.declaration.wording import listed, shown
from agent.errors import UsageError

FIGURES = {
    "received": "packets that passed the filter, per second",
    "bytes": "bytes stored, per second",
    "dropped_kernel": "packets that found the ring full, per second",
    "dropped_interface": "packets that the interface lost, per second",
    "not_written": "packets that the disk did not take, per second",
    "lag": "seconds between a packet and its being written",
}
"""What a bound may be on."""

_GROWING = frozenset(FIGURES) - {"lag"}

_EVENT = re.compile(r"[a-z0-9_*?\[\]!-]{1,128}\.[a-z0-9_*?\[\]!-]{1,128}", re.ASCII)
_BOUND = re.compile(r"\s*([a-z_]+)\s*(>=|>|<=|<)\s*(\d{1,15}(?:\.\d{1,9})?)\s*", re.ASCII)


class Bound(NamedTuple):
    """``figure`` is one of ``FIGURES``."""

    figure: str
    comparison: Literal[">", ">=", "<", "<="]
    number: float

    def __str__(self) -> str:
        return f"{self.figure} {self.comparison} {self.number:.15g}"

    def crossed(self, value: float) -> bool:
        """Whether this value is beyond it."""
        match self.comparison:
            case ">":
                return value > self.number
            case ">=":
                return value >= self.number
            case "<":
                return value < self.number
            case _:
                return value <= self.number


def event(text: str) -> str:
    """An event of ``on``. Raises ``UsageError``."""
    if not _EVENT.fullmatch(text):
        raise UsageError(f'{shown(text)} is not SERVICE.KIND, such as "api.failed" or "*.hung"')
    return text


def bound(text: str) -> str:
    """A bound of ``when``, in one spelling. Raises ``UsageError``."""
    return str(parse(text))


def parse(text: str) -> Bound:
    """As ``bound``, taken apart."""
    match = _BOUND.fullmatch(text)
    if match is None:
        raise UsageError(f'{shown(text)} is not a figure, a comparison and a number, such as "dropped_kernel > 0"')
    figure, comparison, number = match.groups()
    if figure not in FIGURES:
        raise UsageError(f"there is no figure {figure}; there are {listed(FIGURES, 'and')}")
    return Bound(figure, comparison, float(number))  # type: ignore[arg-type]  # the pattern lets nothing else through


def matches(events: Iterable[str], service: str, kind: str) -> bool:
    """Whether something that happened to a service is among the ``events`` of ``on``."""
    return any(fnmatchcase(f"{service}.{kind}", pattern) for pattern in events)


class Watcher:
    """Holds figures against bounds, from one reading to the next. A bound that stays crossed is told once."""

    def __init__(self, bounds: Iterable[str]) -> None:
        self._bounds = [parse(text) for text in bounds]
        self._before: tuple[float, Mapping[str, float]] | None = None
        self._crossed: set[Bound] = set()

    def look(self, figures: Mapping[str, float], now: float) -> list[str]:
        """The bounds that are crossed at ``now`` (monotonic seconds) and were not before, with the value."""
        before, self._before = self._before, (now, figures)
        if before is None or now <= before[0]:
            return []
        found = []
        for each in self._bounds:
            value = figures[each.figure]
            if each.figure in _GROWING:
                value = (value - before[1][each.figure]) / (now - before[0])
            if not each.crossed(value):
                self._crossed.discard(each)
            elif each not in self._crossed:
                self._crossed.add(each)
                found.append(f"{each} (it is {value:.6g})")
        return found
