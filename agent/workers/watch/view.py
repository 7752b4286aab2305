"""All that is known of one port, side by side, and what is newer. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from agent.workers.watch import evidence
from agent.workers.watch.expectation import answers
from agent.workers.watch.listening import Listener
from agent.workers.watch.row import Evidence
from agent.workers.watch.sources import Key, Look, Sight


class View(NamedTuple):
    """All that is known of one port."""

    host: str
    key: Key
    look: Look | None
    listeners: tuple[Listener, ...]
    sights: tuple[Sight, ...]

    @property
    def sights_after(self) -> list[Sight]:
        """Those that no scan has contradicted since."""
        look = self.look
        return [sight for sight in self.sights if look is None or not look.closed or sight.last > look.began]

    @property
    def sights_around(self) -> list[Sight]:
        """Those from before a scan found it closed until after."""
        look = self.look
        if look is None or not look.closed:
            return []
        return [sight for sight in self.sights if sight.first < look.began and look.at < sight.last]

    @property
    def answer(self) -> str:
        """What answers there, or else which program listens."""
        found = self.look.known.port(*self.key) if self.look is not None and self.look.open else None
        told = answers(found) if found is not None else ""
        return told or next((one.processes[0].name for one in self.listeners if one.processes), "")

    def listening(self) -> Iterator[Evidence]:
        """Who listens there."""
        return map(evidence.listens, self.listeners)
