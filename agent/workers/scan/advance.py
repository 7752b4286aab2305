"""How far the sweep of a chunk is, and how long what is left of it takes. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a sweep is. ``rate`` is what was sent in the last second, ``lost`` from 0 to 1, ``None`` while
    that is not measured, ``left`` seconds.

    ``sent`` counts every probe, canaries and repetitions included, since this process took it up.
    """

    fraction: float
    answered: int
    open: int
    rate: float
    lost: float | None
    left: float
    sent: int


def ahead(size: int, position: int, unanswered: int, *, first: bool, again: bool) -> int:
    """Probes that are still to be sent, of ``size``, when this round has come to ``position`` of its order.

    ``first``: it is the first round. ``again``: another one follows it, for what has been silent so far.
    """
    if not first:
        return int((size - position) * unanswered / size)
    return size - position + (int(unanswered * position / size) if again else 0)


def fraction(passed: float, left: float) -> float:
    """Which part of the time is over after ``passed`` seconds when ``left`` remain; never all of it."""
    return min(0.99, passed / (passed + left))
