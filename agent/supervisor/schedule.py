"""When a job runs next. Pure: wall-clock times go in and come out, in unix seconds, and chance is handed in."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from agent.declaration.model import Timer


class Appointment(msgspec.Struct, frozen=True):
    """The next run is ``due`` because of ``elapse``: a time of the calendar, or the end of a period."""

    elapse: float
    due: float


def appoint(
    timer: Timer, since: float | None, now: float, before: Appointment | None, draw: Callable[[], float]
) -> Appointment | None:
    """The next run, or ``None`` when the calendar has no more.

    ``since`` is up to when a calendar has been served; for ``every`` it is the start of the last run, or ``None`` when
    there was none, and then it is due at once. A time that has come by ``now`` is due at once too. ``draw`` gives a
    number from 0 to 1, the part of ``randomized_delay`` by which that is put off: drawn once for each elapse, so that
    ``before``, the appointment so far, stands as long as it is for the same one.
    """
    elapse = _elapse(timer, since)
    if elapse is None:
        return None
    reached = max(elapse, now)
    # Further away than it could be: the clock was set back, or less of a delay is declared than was.
    stands = before is not None and before.elapse == elapse and before.due <= reached + timer.randomized_delay
    return before if stands else Appointment(elapse, reached + draw() * timer.randomized_delay)


def _elapse(timer: Timer, since: float | None) -> float | None:
    if timer.every is not None:
        return 0.0 if since is None else since + timer.every
    return timer.calendar.next_elapse(since or 0.0) if timer.calendar is not None else None
