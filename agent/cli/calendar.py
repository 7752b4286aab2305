"""``agentctl calendar EXPR``: when a calendar expression elapses, as ``systemd-analyze calendar`` shows it."""

from __future__ import annotations

import time

import click

from agent.cli import output
from agent.cli.base import Session, command


@command(
    "calendar",
    examples=(
        "agentctl calendar 'Mon..Fri 02:30'",
        "agentctl calendar --iterations 5 'Sun *-*-1..7 04:00 Europe/Helsinki'",
        "agentctl calendar --base-time 2028-02-28 '*-02~1'",
    ),
)
@click.argument("expression", metavar="EXPR")
@click.option(
    "--iterations",
    type=click.IntRange(1, 10_000),
    default=1,
    show_default=True,
    metavar="N",
    help="Show the next N elapses.",
)
@click.option("--base-time", default="now", show_default=True, metavar="T", help="Show those after the time T.")
def calendar(session: Session, expression: str, iterations: int, base_time: str) -> None:
    """Check the calendar expression EXPR, as `oncalendar` takes it, and show when it elapses.

    EXPR is written as in systemd.time(7): weekdays, then year-month-day, then hour:minute:second, then a time zone,
    each with lists, ranges and steps; or a word such as `daily`. T is `now`, a date, a time of day, both, or @SECONDS.
    """
    from agent.declaration.calendar_parse import parse_calendar
    from agent.declaration.calendar_text import describe, parse_base_time, render

    parsed = parse_calendar(expression)
    base = parse_base_time(base_time)
    elapses = describe(parsed, base, iterations)
    if session.json:
        output.document(
            {
                "expression": expression,
                "normalized": parsed.normalized(),
                "base": base,
                "elapses": [{"number": elapse.number, "time": elapse.time} for elapse in elapses],
            }
        )
    else:
        print(render(expression, parsed, elapses, time.time()))
