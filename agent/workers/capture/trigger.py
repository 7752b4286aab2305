"""What a trigger does: it pins what an armed capture has seen before and will see after.

Anybody may pull it: the agent when a service fails, the capture itself when a figure crosses a bound, a person. All of
them do it by a pin in the store, so none needs another to be there, and the capture acts on the pin alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from agent.declaration.model import Trigger
from agent.workers.capture import pins
from agent.workers.capture.pins import Pin

BY = "trigger"
"""Who set such a pin."""

_LOOKED_AT = 32
_NANOSECONDS = 1_000_000_000


def pull(directory: Path, trigger: Trigger, reason: str, now: int, *, durable: bool = False) -> Pin | None:
    """Pin what is around ``now``, nanoseconds since the epoch, in the store at ``directory``.

    ``None`` when a trigger has pinned this very instant already, and nothing more would be kept but a little longer:
    what fails again and again within ``after`` is one event, and thousands of pins would help nobody. Raises
    ``StorageFailure``.
    """
    if any(pin.by == BY and pin.created <= now <= pin.end for pin in _latest(directory)):
        return None
    begin, end = now - round(trigger.before * _NANOSECONDS), now + round(trigger.after * _NANOSECONDS)
    return pins.add(directory, begin, end, created=now, reason=reason[: pins.LONGEST_REASON], by=BY, durable=durable)


def _latest(directory: Path) -> Iterator[Pin]:
    """The pins set last, the newest first."""
    try:
        found = pins.names(directory)
    except OSError:  # told by who sets the next one
        return
    for name in reversed(found[-_LOOKED_AT:]):
        if (pin := pins.read(directory, name)) is not None:
            yield pin
