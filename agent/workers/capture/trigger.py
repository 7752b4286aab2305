"""What a trigger does: it pins what an armed capture has seen before and will see after.

Anybody may pull it: the agent when a service fails, the capture itself when a figure crosses a bound, a person. All of
them do it by a pin in the store, so none needs another to be there, and the capture acts on the pin alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from agent.declaration.model import Trigger
from agent.workers.capture import pins
from agent.workers.capture.pins import Pin

_LOOKED_AT = 32
_NANOSECONDS = 1_000_000_000


class Pulled(NamedTuple):
    """A trigger that was pulled: ``instead`` is the id of the oldest such pin, if that had to make way."""

    pin: Pin
    instead: str | None

    def told(self, reason: str) -> str:
        """What happened, for an event."""
        return f"{reason}; kept as pin {self.pin.id}" + (f" in place of {self.instead}" if self.instead else "")


def pull(directory: Path, trigger: Trigger, reason: str, now: int, *, durable: bool = False) -> Pulled | None:
    """Pin what is around ``now``, nanoseconds since the epoch, in the store at ``directory``.

    ``None`` when a trigger has pinned this very instant already, and nothing more would be kept but a little longer:
    what fails again and again within ``after`` is one event, and thousands of pins would help nobody. When there are as
    many pins as may be, the oldest that a trigger set makes way. Raises ``StorageFailure``.
    """
    if any(pin.by == pins.TRIGGER and pin.created <= now <= pin.end for pin in _latest(directory)):
        return None
    begin, end = now - round(trigger.before * _NANOSECONDS), now + round(trigger.after * _NANOSECONDS)
    reason = reason[: pins.LONGEST_REASON]
    instead = None
    while True:
        try:
            pin = pins.add(directory, begin, end, created=now, reason=reason, by=pins.TRIGGER, durable=durable)
        except pins.TooMany:
            instead = next((pin.id for pin in pins.read_all(directory) if pin.by == pins.TRIGGER), None)
            if instead is None:  # all of them a person's
                raise
            pins.remove(directory, instead)
        else:
            return Pulled(pin, instead)


def _latest(directory: Path) -> Iterator[Pin]:
    """The pins set last, the newest first."""
    try:
        found = pins.names(directory)
    except OSError:  # told by who sets the next one
        return
    for name in reversed(found[-_LOOKED_AT:]):
        if (pin := pins.read(directory, name)) is not None:
            yield pin
