"""Events of services that make armed captures keep what they saw."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from agent.declaration.model import AnyService, Capture, Trigger
from agent.declaration.triggers import matches
from agent.errors import AgentError
from agent.linux.users import resolve_user
from agent.paths import Paths
from agent.telemetry.events import Event

if TYPE_CHECKING:
    from agent.workers.capture.handed import Handed

_OWN = ("triggered", "trigger_failed")


def armed(services: Mapping[str, AnyService], event: Event) -> list[tuple[str, Trigger]]:
    """The captures that this event triggers: never one that it is about, which would trigger itself for ever, and none
    by what a trigger did, or two of them would trigger each other.
    """
    if event.kind in _OWN:
        return []
    return [
        (service.name, service.trigger)
        for service in services.values()
        if isinstance(service, Capture)
        and service.trigger is not None
        and event.service not in (None, service.name)
        and matches(service.trigger.on, event.service or "", event.kind)
    ]


class Triggers:
    """Pulls triggers as events come. ``services`` gives those that are declared now; ``record`` takes an event.

    A capture that runs as another user is told what happened, and pulls its own.
    """

    def __init__(
        self,
        paths: Paths,
        services: Callable[[], Mapping[str, AnyService]],
        record: Callable[[str, str, str], object],
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._paths = paths
        self._services = services
        self._record = record
        self._clock = clock
        self._handed: dict[str, list[Handed]] = {}

    def event(self, event: Event) -> None:
        """Something happened."""
        services = self._services()
        for name, trigger in armed(services, event):
            self._pull(services[name], trigger, f"{event.service}.{event.kind}: {event.message}")

    def _pull(self, service: AnyService, trigger: Trigger, reason: str) -> None:
        from agent.workers.capture.trigger import pull  # only an agent with an armed capture has use for it

        try:
            if (owner := _another(service)) is not None:
                self._hand(service.name, trigger, reason, owner)
                return
            pulled = pull(self._paths.data(service.name), trigger, reason, self._clock())
        except AgentError as error:
            self._record(service.name, "trigger_failed", str(error))
            return
        if pulled is not None:
            self._record(service.name, "triggered", pulled.told(reason))

    def _hand(self, name: str, trigger: Trigger, reason: str, owner: tuple[int, int]) -> None:
        """Let the capture pull it, and tell. Raises ``StorageFailure``."""
        from agent.workers.capture import handed

        now, before = self._clock(), self._handed.setdefault(name, [])
        if before and 0 <= now - before[-1].at < trigger.after * 1e9:  # one event, and it is told already
            return
        before.append(handed.Handed(now, reason))
        del before[: -handed.MOST]
        handed.write(self._paths.triggers(name), before, owner)


def _another(service: AnyService) -> tuple[int, int] | None:
    """The user and group id of a service that runs as another user than we do. Raises ``SpawnFailed``."""
    if service.user is None:
        return None
    found = resolve_user(service.user, service.group)
    return None if found.uid == os.geteuid() else (found.uid, found.gid)
