"""How often silence is asked again. Pure.

A probe that is not answered was lost, or its answer was, or nobody wants to answer. Which of these, the answers tell
that came only to a later attempt: where many do, many are still missing. So loss is measured for each host, and a host
is asked again until no more answers are to be expected from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

AT_LEAST: Final = 2
"""Attempts before silence is believed, where more than one is allowed."""

MISSING: Final = 0.02
"""How many answers of a host may still be expected when it is no longer asked."""

_LOST, _SEEN = 0.5, 10.0  # what is believed of a path before anything is known of it: 1 in 20 is lost

_GAP, _LONGEST = 0.3, 1.5


def loss(answered: Sequence[int]) -> float:
    """Which part of the attempts is taken to come to nothing, of probes that somebody answers in the end: from 0 to
    below 1. Few answers say little, so it begins with what paths usually lose.

    ``answered[k]`` is how many were answered at attempt ``k + 1``.
    """
    in_vain = sum(before * count for before, count in enumerate(answered))
    return (in_vain + _LOST) / (in_vain + sum(answered) + _SEEN)


def measured(answered: Sequence[int]) -> float | None:
    """Which part did come to nothing, for people; ``None`` when nobody has answered. ``answered``: as in ``loss``."""
    in_vain = sum(before * count for before, count in enumerate(answered))
    total = in_vain + sum(answered)
    return in_vain / total if total else None


def enough(
    answered: Sequence[int], silent: int, attempts: int, retries: int, elsewhere: float, *, patient: bool = False
) -> bool:
    """Whether the ``silent`` probes of a host, each sent ``attempts`` times (1 or more), are to be believed.

    ``answered`` is as in ``loss``, ``elsewhere`` the loss over all hosts of the chunk, which counts where this host
    said too little to tell its own. ``retries`` is how many attempts after the first are allowed. ``patient``: all of
    them are made, for a few probes cannot tell how much is lost.
    """
    if not silent or attempts > retries:
        return True
    if patient or attempts < AT_LEAST:
        return False
    total = sum(answered)
    lost = loss(answered) if total >= 2 * _SEEN else max(loss(answered), elsewhere)
    reached = 1 - lost**attempts  # which part of those that answer has done so by now
    return max(1, total) / reached * lost**attempts < MISSING


def gap(attempts: int) -> float:
    """Seconds between the end of a round and the next, when each silent probe was sent ``attempts`` times: growing, so
    that a disturbance of a moment does not swallow every attempt."""
    return min(_LONGEST, _GAP * attempts)
