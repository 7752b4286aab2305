"""What is done around a run: captures are heard, what changed is told, and at its end what is old is forgotten."""

from __future__ import annotations

from agent.declaration.model import History
from agent.workers.runtime import Context
from agent.workers.scan.memory.passive import sightings
from agent.workers.scan.memory.telling import Event
from agent.workers.scan.store import ScanStore


def beforehand(context: Context, store: ScanStore, now: float) -> None:
    """Take in what happened since the last run, after ``ScanStore.begin``: what captures saw since is later than what
    that run saw, and earlier than what this one will. Raises ``StorageFailure``."""
    store.sighted(sightings(context.data.parent, context.log), now, context.beat)
    tell_changes(context, store)


def afterwards(context: Context, store: ScanStore, history: History, now: float) -> None:
    """Bring the memory in order after ``ScanStore.end``; beats between its steps. Raises ``StorageFailure``."""
    store.sighted(sightings(context.data.parent, context.log), now, context.beat)
    tell_changes(context, store)
    store.prune(history.max_age, history.size, history.raw, now, context.beat)


def tell_changes(context: Context, store: ScanStore) -> None:
    """Make events of the changes that were not told yet: those of a run that was killed meanwhile among them."""

    def event(change: Event) -> None:
        context.event(change.kind, change.message, **change.data)

    store.tell(event, context.beat)
