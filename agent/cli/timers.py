"""``agentctl timers``: when jobs run next, and how they ended last."""

from __future__ import annotations

import time
from typing import Any

from agent.cli import output, table, text
from agent.cli.base import Session, command

HEADS = ("NAME", "STATE", "NEXT RUN", "LEFT", "LAST RUN", "LAST EXIT", "SCHEDULE")


@command("timers", examples=("agentctl timers",))
def timers(session: Session) -> None:
    """Show every job: its schedule, when it runs next, when it ran last and how that ended."""
    answer = session.client().request("GET", "/v1/timers")
    if session.json:
        output.document(answer)
    elif answer["timers"]:
        now = time.time()
        table.show(HEADS, [row(timer, now) for timer in answer["timers"]], right=("LEFT",))
    else:
        print("no jobs are declared")


def row(timer: dict[str, Any], now: float) -> tuple[str, ...]:
    """One job as the cells of ``HEADS``."""
    next_run = timer["next_run"]
    return (
        timer["name"],
        timer["state"],
        text.moment(next_run),
        text.ABSENT if next_run is None else text.duration(next_run - now),
        text.moment(timer["last_run"]),
        text.optional(timer["last_exit"]),
        timer["schedule"],
    )
