"""Which flows a command of ``agentctl flows`` is about: its options, and the rows of all stores in question."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.cli import text
from agent.cli.base import Session
from agent.cli.instants import Span, or_last_hour, span, spanned
from agent.cli.stores import Found, Store, check_interfaces, find
from agent.cli.which import matching, of_interfaces, of_services
from agent.paths import Paths

if TYPE_CHECKING:
    from agent.workers.flows.choice import Choice as Expression
    from agent.workers.flows.records import Batch, Effort, Origins


def chosen(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command EXPR and the options that say which flows: they arrive as one ``Choice`` in ``choice``."""

    def gathered(
        session: Session,
        /,
        *,
        expression: str,
        services: tuple[str, ...],
        interfaces: tuple[str, ...],
        last: str | None,
        begin: str | None,
        end: str | None,
        **others: Any,
    ) -> None:
        now = time.time_ns()
        within = or_last_hour(now, span(now, last, begin, end))
        function(session, choice=Choice(expression, services, interfaces, within), **others)

    gathered.__doc__ = function.__doc__
    gathered.__dict__.update(function.__dict__)  # options that were given to it before
    return matching("[EXPR]...")(of_services(of_interfaces(spanned(gathered))))


@dataclass(frozen=True, slots=True)
class Choice:
    """What was asked for. Empty tuples are everything."""

    expression: str
    services: tuple[str, ...]
    interfaces: tuple[str, ...]
    within: Span

    def stores(self, paths: Paths) -> Found:
        """The stores in question. Raises as ``stores.find`` and ``check_interfaces``."""
        found = find(paths, self.services)
        check_interfaces(found.stores, self.interfaces)
        return found

    def batches(
        self, stores: Sequence[Store], origins: Origins, effort: Effort, gap: int | None = None
    ) -> Iterator[Batch]:
        """The rows, store by store, each read as the user whose it is."""
        from agent.workers.flows.records import Within, collect

        within, choice = Within(*self.within), self._compiled()
        for store in stores:
            rows = collect(
                store.path, store.name, within, origins, effort, interfaces=self.interfaces, gap=gap, choice=choice
            )
            while True:
                with store.seen():
                    batch = next(rows, None)
                if batch is None:
                    break
                yield batch
        if not effort.segments and choice is not None:
            choice.check()

    def _compiled(self) -> Expression | None:
        """The expression, read; ``None`` when there is none: then libpcap is not loaded."""
        if not self.expression:
            return None
        from agent.workers.flows.choice import Choice as Expression

        return Expression(self.expression)

    def told(self) -> str:
        """The span, for a person."""
        return f"{text.instant(self.within.begin)} to {text.instant(self.within.end)}"
