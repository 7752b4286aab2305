"""One open handle, what the kernel counted for it and what was delivered by it: the two sides of the account.

The kernel counts a packet when it gives it a place in the ring, and packets are delivered in that order. So whoever
reads the counters knows how many packets lie before that instant, and can read exactly these.
"""

from __future__ import annotations

from contextlib import suppress

from agent.workers.capture.counters import Counters, Device, Wrapping
from agent.workers.capture.handle import ANY, Handle, InterfaceLost, device_drops


class Tap:
    """Owns ``handle``. What the kernel counts is added to ``counters``, which outlive this handle.

    ``exact`` is false for ``any`` alone: there the kernel counts what goes through the loopback interface twice, going
    out and coming in, and libpcap skips one of the two. So nobody can tell how many are to be delivered, but that there
    are no more than ``stored``.
    """

    def __init__(self, handle: Handle, counters: Counters) -> None:
        self.handle = handle
        self.exact = handle.interface != ANY
        self.delivered = 0
        #: So many of the packets that are delivered next may be in the hands of another process as well.
        self.doubtful = handle.doubtful
        self._counters = counters
        self._received = Wrapping()
        self._dropped = Wrapping()
        self._written_off = 0
        groups = handle.options.groups
        drops = device_drops(handle.interface) if groups is None or groups.owner else None  # one of us counts them
        self._device = None if drops is None else Device(drops)

    @property
    def stored(self) -> int:
        """How many packets will have been delivered when all is read that was in the ring at the last ``measure``."""
        return self._received.total - self._dropped.total - self._written_off

    @property
    def unread(self) -> int:
        """Packets in the ring, as last measured."""
        return max(0, self.stored - self.delivered)

    def measure(self) -> None:
        """Read the counters of the kernel and of the device. At most one wrap apart: seconds, not minutes."""
        with suppress(InterfaceLost):
            received, dropped = self.handle.statistics()
            self._counters.received += self._received.advance(received)
            self._counters.dropped_kernel += self._dropped.advance(dropped)
        if self._device is not None and (drops := device_drops(self.handle.interface)) is not None:
            self._counters.dropped_interface += self._device.advance(drops)

    def take(self, user: object, count: int) -> int:
        """Write up to ``count`` packets that are ready to a dumper. Raises ``InterfaceLost``."""
        done = self.handle.dispatch(user, count)
        self.delivered += done
        return done

    def write_off(self, missing: int) -> None:
        """So many packets of those that are ``stored`` will never come, or came and were never counted (below zero)."""
        self._written_off += missing
        if not self.exact:
            self._counters.received -= missing

    def close(self) -> None:
        """Release the ring and the socket."""
        self.handle.close()
