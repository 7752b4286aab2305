"""When a job runs next. Pure: wall-clock times go in and come out, in unix seconds."""

from __future__ import annotations

from agent.declaration.model import Timer


def next_run(timer: Timer, now: float, last_run: float | None) -> float | None:
    """The next time after ``now``, or ``None`` when the calendar has no more.

    ``every`` counts from the start of the last run, and is due at once when the job never ran or a whole period has
    passed; a last run in the future (the clock was set back) counts as now.
    """
    if timer.calendar is not None:
        return timer.calendar.next_elapse(now)
    if timer.every is None:
        return None
    if last_run is None:
        return now
    return max(now, min(last_run, now) + timer.every)
