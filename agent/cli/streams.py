"""Showing a stream of the control socket line by line, as it comes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agent.cli import output
from agent.cli.base import Session
from agent.cli.guard import complain

MOST = 10_000
"""Records to begin with, at most: as many as the agent gives."""


def show(session: Session, path: str, query: dict[str, str], line: Callable[[dict[str, Any]], str]) -> None:
    """Print each record of the stream at once: as JSON, or as ``line`` puts it.

    A gap, where the agent no longer has what came in between, is told on stderr. When another version of the agent
    follows, so does the stream.
    """
    again = True
    while again:
        again = False
        for record in session.client().stream(path, query):
            if again := bool(record.get("again")):  # the agent becomes another version of itself
                query = {**query, "after": str(record["cursor"])}
            elif session.json:
                output.line(record)
            elif record.get("gap"):
                complain(f"-- {record['message']}")
            else:
                print(line(record), flush=True)
