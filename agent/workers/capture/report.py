"""What a capture worker says about itself: one line for people, figures for programs. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from agent.declaration.amounts import count, size
from agent.telemetry import breakdown
from agent.workers.capture.counters import Counters

COUNTED = tuple(field.name for field in fields(Counters))
"""The names of the counters."""

#: More interfaces than this are counted instead of named.
_NAMED = 3


STEPS = {"pruning": "short of disk, the oldest segments go", "full": "the disk takes no more"}
"""By the state of a store that is not ``ok``: what happens."""


def summary(interfaces: Sequence[str], waiting: Sequence[str], total: Counters, *, store: str) -> str:
    """Such as ``lo: 12,345 packets, 0 dropped, 1.20 MiB in 3 segments``, and what is wrong after it.

    ``store`` is the state of the store (``STEPS``).
    """
    parts = [
        f"{_names(interfaces)}: {count(total.written, 'packet')}",
        f"{total.dropped_kernel + total.dropped_interface:,} dropped",
        f"{size(total.bytes)} in {count(total.segments, 'segment')}",
    ]
    if total.not_written:
        parts.append(f"{total.not_written:,} not written")
    if store in STEPS:
        parts.append(STEPS[store])
    if waiting:
        parts.append(f"waiting for {_names(waiting)}")
    return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Flow:
    """How packets get through, of one interface or of several together.

    ``lag`` and ``lag_max`` are the most nanoseconds from a packet to its being written, since the last report and since
    the start. ``ring`` is the kernel memory that was granted, in bytes; ``unread`` packets are in it.
    """

    lag: int = 0
    lag_max: int = 0
    ring: int = 0
    unread: int = 0

    def __add__(self, other: Flow) -> Flow:
        return Flow(
            max(self.lag, other.lag),
            max(self.lag_max, other.lag_max),
            self.ring + other.ring,
            self.unread + other.unread,
        )


def figures(
    total: Counters, flow: Flow, *, store: Mapping[str, int | float | str | None], rate: float
) -> dict[str, int | float | str | None]:
    """The counters by name, with the figures of the whole store and packets per second since the last report.

    ``lag`` and ``lag_max`` are in seconds here.
    """
    return {**_counted(total), **store, **_passing(flow, rate)}


@dataclass(frozen=True, slots=True)
class Part:
    """One interface: its counters and how packets get through. ``waiting``: it is not there, and would be captured."""

    counters: Counters
    flow: Flow
    waiting: bool = False

    def __add__(self, other: Part) -> Part:
        return Part(self.counters + other.counters, self.flow + other.flow, self.waiting or other.waiting)


def by_interface(
    parts: Mapping[str, Part], *, rates: Mapping[str, float], cut: Mapping[str, int]
) -> dict[str, breakdown.Figures]:
    """The same figures of each interface. ``cut`` is what the index process counted: packets cut to the snaplen."""
    return {
        name: {
            **_counted(part.counters),
            "cut": cut.get(name, 0),
            **_passing(part.flow, rates.get(name, 0.0)),
            "waiting": part.waiting,
        }
        for name, part in parts.items()
    }


def _counted(counters: Counters) -> dict[str, int]:
    return {name: getattr(counters, name) for name in COUNTED}


def _passing(flow: Flow, rate: float) -> dict[str, int | float]:
    return {
        "rate": round(rate, 1),
        "lag": round(flow.lag / 1e9, 3),
        "lag_max": round(flow.lag_max / 1e9, 3),
        "ring": flow.ring,
        "ring_packets": flow.unread,
    }


def _names(interfaces: Sequence[str]) -> str:
    return ", ".join(interfaces) if len(interfaces) <= _NAMED else f"{len(interfaces)} interfaces"
