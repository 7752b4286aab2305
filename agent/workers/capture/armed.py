"""An armed capture: where its packets wait, and what on its own part makes it keep them.

What is declared for a capture that is always on is turned into what the engine needs here: packets that nothing has
triggered are too old after ``before`` seconds. ``SLACK`` more, because a trigger is noticed a moment after it was
pulled.
"""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from agent.declaration.model import Capture, Reserve, Rotate, Trigger
from agent.declaration.triggers import Watcher
from agent.errors import StorageFailure
from agent.workers.capture import pins
from agent.workers.capture.adoption import Report
from agent.workers.capture.counters import Counters
from agent.workers.capture.handed import Mailbox
from agent.workers.capture.memory import Memory
from agent.workers.capture.store import Store
from agent.workers.capture.trigger import pull

SLACK = 5.0
"""Seconds."""

_PARTS = 8
"""Segments in memory at least: what is closed is what can be let go, or moved."""

EXPIRE = 60.0
"""Seconds between two looks for pins that keep nothing any more."""

_TOLD = 3
_SHORTEST = 1.0
"""Seconds: no segment in memory is cut shorter."""


def effective(service: Capture) -> Capture:
    """What an armed capture declares, as of one that is always on and writes to where packets wait. Pure."""
    trigger = service.trigger
    if trigger is None:
        return service
    kept = trigger.before + SLACK
    if trigger.keep == "disk":
        return msgspec.structs.replace(service, max_age=kept if service.max_age is None else min(kept, service.max_age))
    every = max(_SHORTEST, min(service.rotate.every, trigger.before / _PARTS))
    rotate = Rotate(size=min(service.rotate.size, trigger.memory // _PARTS), every=every)
    return msgspec.structs.replace(service, max_age=kept, budget=trigger.memory, min_free=Reserve(), rotate=rotate)


class Armed:
    """The trigger of the capture whose store on disk is ``disk``, at ``data``.

    ``store`` is where segments are written, ``handed`` where the agent leaves triggers for us. Raises
    ``StorageFailure`` when there is no memory to keep them in.
    """

    def __init__(self, trigger: Trigger, data: Path, disk: Store, report: Report, handed: Path | None = None) -> None:
        self._trigger = trigger
        self._disk = disk
        self._mailbox = None if handed is None else Mailbox(handed, self._pull)
        self._expire_at = 0.0
        self._data = data
        self._report = report
        self._watcher = Watcher(trigger.when)
        self._memory: Memory | None = None
        if trigger.keep == "memory":
            kept = round((trigger.before + SLACK) * 1e9)
            self._memory = Memory(disk, data, kept, trigger.memory, report)
        self.store: Store = self._memory or disk

    def take_over(self) -> None:
        """Save what a killed capture left in memory; call it before the store on disk is adopted."""
        if self._memory is not None:
            self._memory.take_over()

    def adopt(self) -> None:
        """Begin to keep packets."""
        if self._memory is not None:
            self._memory.adopt()

    def tend(self, total: Counters, lag: int) -> None:
        """What is due once a second, with the figures of all interfaces; ``lag`` in nanoseconds."""
        figures = {
            "received": float(total.received),
            "bytes": float(total.bytes),
            "dropped_kernel": float(total.dropped_kernel),
            "dropped_interface": float(total.dropped_interface),
            "not_written": float(total.not_written),
            "lag": lag / 1e9,
        }
        for reason in self._watcher.look(figures, time.monotonic()):
            self._pull(reason, time.time_ns())
        if self._mailbox is not None:
            self._mailbox.look(time.time_ns() - round((self._trigger.before + SLACK) * 1e9))
        if time.monotonic() >= self._expire_at:
            self._expire_at = time.monotonic() + EXPIRE
            self._expire()
        if self._memory is not None:
            self._memory.tend()

    def close(self, within: float) -> None:
        """Keep what is pinned, as far as that goes within so many seconds; the rest goes."""
        if self._memory is not None:
            self._memory.close(within)

    def _pull(self, reason: str, at: int) -> None:
        try:
            pulled = pull(self._data, self._trigger, reason, at)
        except StorageFailure as error:
            self._report("trigger_failed", str(error))
            return
        if pulled is not None:
            self._report("triggered", pulled.told(reason))

    def _expire(self) -> None:
        """Remove pins of triggers that keep nothing, or there would be too many one day."""
        if not any(pin.by == pins.TRIGGER for pin in self._disk.pins):
            return
        since = time.time_ns() - round(SLACK * 1e9)
        since = min(since, self._disk.since or since, self.store.since or since)
        try:
            gone = pins.expire(self._data, self._disk.pins, since)
        except StorageFailure as error:
            self._report("storage_error", str(error))
            return
        if gone:
            some = ", ".join(gone[:_TOLD]) + (f" and {len(gone) - _TOLD} more" * (len(gone) > _TOLD))
            self._report("pin_expired", f"nothing of what triggers kept is left: {some}")
