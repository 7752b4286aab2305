"""Events of services that make armed captures keep what they saw."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from agent.declaration.model import AnyService, Capture, Trigger
from agent.declaration.triggers import matches
from agent.errors import StorageFailure
from agent.paths import Paths
from agent.telemetry.events import Event

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
    """Pulls triggers as events come. ``services`` gives those that are declared now; ``record`` takes an event."""

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

    def event(self, event: Event) -> None:
        """Something happened."""
        for name, trigger in armed(self._services(), event):
            self._pull(name, trigger, f"{event.service}.{event.kind}: {event.message}")

    def _pull(self, name: str, trigger: Trigger, reason: str) -> None:
        from agent.workers.capture.trigger import pull  # only an agent with an armed capture has use for it

        try:
            pin = pull(self._paths.data(name), trigger, reason, self._clock())
        except StorageFailure as error:
            self._record(name, "trigger_failed", str(error))
            return
        if pin is not None:
            self._record(name, "triggered", f"{reason}; kept as pin {pin.id}")
