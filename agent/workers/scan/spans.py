"""Sets of numbers, such as ports, as ranges. Pure.

Every function takes time in proportion to the ranges that it is given: they may be made from a stranger's document.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from agent.declaration.ports import merge

__all__ = ["Ranges", "common", "holds", "merge", "of", "size", "without"]

Ranges = tuple[tuple[int, int], ...]
"""Inclusive ranges: sorted, disjoint, not adjacent, as ``merge`` makes them of any."""


def of(numbers: Iterable[int]) -> Ranges:
    """These numbers, in any order, as ranges."""
    return merge((number, number) for number in numbers)


def size(ranges: Ranges) -> int:
    """How many numbers they hold."""
    return sum(high - low + 1 for low, high in ranges)


def holds(ranges: Ranges, number: int) -> bool:
    """Whether a number is among them."""
    place = bisect_right(ranges, number, key=lambda each: each[0]) - 1
    return place >= 0 and number <= ranges[place][1]


def common(ours: Ranges, theirs: Ranges) -> Ranges:
    """What is in both."""
    found: list[tuple[int, int]] = []
    left, right = 0, 0
    while left < len(ours) and right < len(theirs):
        low = max(ours[left][0], theirs[right][0])
        high = min(ours[left][1], theirs[right][1])
        if low <= high:
            found.append((low, high))
        if ours[left][1] < theirs[right][1]:
            left += 1
        else:
            right += 1
    return tuple(found)


def without(ours: Ranges, theirs: Ranges) -> Ranges:
    """``ours``, and nothing of ``theirs``."""
    found: list[tuple[int, int]] = []
    place = 0
    for low, high in ours:
        while place < len(theirs) and theirs[place][1] < low:
            place += 1
        hole = place
        while hole < len(theirs) and theirs[hole][0] <= high:
            if theirs[hole][0] > low:
                found.append((low, theirs[hole][0] - 1))
            low = theirs[hole][1] + 1
            hole += 1
        if low <= high:
            found.append((low, high))
    return tuple(found)
