"""Which segments go when room is needed. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Stored:
    """One closed segment. Orders by age: ``begin`` is the instant in its name (nanoseconds), ``size`` is in bytes."""

    begin: int
    interface: str
    size: int


def prune_plan(oldest_first: Iterable[Stored], need: int) -> list[Stored]:
    """The fewest of the oldest segments whose removal frees ``need`` bytes; all of them when that is not enough."""
    plan: list[Stored] = []
    for segment in oldest_first:
        if need <= 0:
            break
        plan.append(segment)
        need -= segment.size
    return plan
