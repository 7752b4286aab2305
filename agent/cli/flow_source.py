"""Which flows a command of ``agentctl flows`` is about: its options, and the rows of all stores in question."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.cli.base import Session, no_such
from agent.cli.guard import complain
from agent.cli.instants import Span, span, spanned
from agent.cli.names import SERVICE
from agent.errors import StorageFailure, UsageError

if TYPE_CHECKING:
    from agent.workers.flows.choice import Choice as Expression
    from agent.workers.flows.records import Batch, Effort, Origins

DEFAULT = "1h"
"""``--last``, when no time is given."""

MOST_TOLD = 5
"""Segments that cannot be read are named up to so many."""


def chosen(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command EXPR and the options that say which flows: they arrive as one ``Choice`` in ``choice``."""

    def gathered(
        session: Session,
        /,
        *,
        expression: tuple[str, ...],
        services: tuple[str, ...],
        interfaces: tuple[str, ...],
        last: str | None,
        begin: str | None,
        end: str | None,
        **others: Any,
    ) -> None:
        now = time.time_ns()
        within = span(now, last, begin, end) or span(now, DEFAULT) or Span(0, now)
        function(session, choice=Choice(" ".join(expression), services, interfaces, within), **others)

    gathered.__doc__ = function.__doc__
    gathered.__dict__.update(function.__dict__)  # options that were given to it before
    made: Callable[..., Any] = spanned(gathered)
    for add in (
        click.option("--interface", "interfaces", multiple=True, metavar="NAME", help="Of this interface only."),
        click.option(
            "--service", "services", multiple=True, type=SERVICE, metavar="NAME", help="Of this capture only."
        ),
        click.argument("expression", metavar="[EXPR]", nargs=-1),
    ):
        made = add(made)
    return made


@dataclass(frozen=True, slots=True)
class Choice:
    """What was asked for. Empty tuples are everything."""

    expression: str
    services: tuple[str, ...]
    interfaces: tuple[str, ...]
    within: Span

    def stores(self, spool: Path) -> list[Path]:
        """The directories of captures that something is stored of.

        Raises ``UsageError`` for a name that is none, and ``ConfigurationError`` for the store of a newer program.
        """
        from agent.workers.capture import version
        from agent.workers.capture.catalogue import interfaces

        known: dict[str, list[str]] = {}
        for path in sorted(spool.glob("*")):
            try:
                found = interfaces(path) if path.is_dir() else []
            except StorageFailure:  # somebody else's; it matters if it was asked for
                if path.name in self.services:
                    raise
                continue
            if found:
                known[path.name] = found
        for name in self.services:
            if name not in known:
                raise UsageError(f"{no_such('capture', name, known)}; `agentctl capture list` shows what is")
        chosen = {name: found for name, found in known.items() if not self.services or name in self.services}
        stored = {interface for found in chosen.values() for interface in found}
        for name in self.interfaces:
            if name not in stored:
                raise UsageError(f"nothing of an interface {name!r} is stored; `agentctl capture list` shows what is")
        for name in chosen:
            version.check(spool / name)
        return [spool / name for name in chosen]

    def batches(
        self, stores: Sequence[Path], origins: Origins, effort: Effort, gap: int | None = None
    ) -> Iterator[Batch]:
        """The rows, store by store."""
        from agent.workers.flows.records import Within, collect

        within, choice = Within(*self.within), self._compiled()
        for store in stores:
            yield from collect(
                store, store.name, within, origins, effort, interfaces=self.interfaces, gap=gap, choice=choice
            )
        if not effort.segments and choice is not None:
            choice.check()

    def _compiled(self) -> Expression | None:
        """The expression, read; ``None`` when there is none: then libpcap is not loaded."""
        if not self.expression.strip():
            return None
        from agent.workers.flows.choice import Choice as Expression

        return Expression(self.expression)

    def told(self) -> str:
        """The span, for a person."""
        return f"{_moment(self.within.begin)} to {_moment(self.within.end)}"


def _moment(instant: int) -> str:
    return datetime.fromtimestamp(instant // 1_000_000_000, UTC).astimezone().isoformat(sep=" ", timespec="seconds")


def warn(effort: Effort) -> None:
    """Name on stderr what could not be read."""
    for line in effort.unreadable[:MOST_TOLD]:
        complain(line)
    if (more := len(effort.unreadable) - MOST_TOLD) > 0:
        complain(f"and {more} segments more cannot be read")
