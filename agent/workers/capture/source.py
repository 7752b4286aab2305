"""One interface of a capture service: its handle, opened again whenever it was lost, and its counters."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from agent.errors import AgentError, CaptureFailure
from agent.workers.capture import rotation
from agent.workers.capture.counters import Counters, Device, Wrapping
from agent.workers.capture.handle import (
    ANY,
    BLOCK_TIMEOUT_MS,
    Handle,
    InterfaceLost,
    NoSuchInterface,
    Options,
    device_drops,
)
from agent.workers.capture.store import Report, Store
from agent.workers.capture.writer import Cut, Writer

#: How long one turn of reading may take, in seconds, before the loop looks after its other duties.
TURN = 0.01

#: How long to wait, in seconds, for the last ring block when closing: the kernel hands it over after
#: ``BLOCK_TIMEOUT_MS``, later on a busy machine.
DRAIN = 3 * BLOCK_TIMEOUT_MS / 1000

#: How long the ring of an interface that is gone is left alone, in seconds, before it is read for the last time.
SETTLE = 1.5 * BLOCK_TIMEOUT_MS / 1000

_DRAIN_STEP = 0.01


class _Opened:
    """A handle and what the kernel counted for it alone."""

    def __init__(self, handle: Handle, delivered: int) -> None:
        self.handle = handle
        self.received = Wrapping()
        self.dropped = Wrapping()
        self.delivered_before = delivered
        drops = device_drops(handle.interface)
        self.device = None if drops is None else Device(drops)


class Source:
    """``readable`` is called with the source at each turn of the loop while its ring has packets: ``read`` is due."""

    def __init__(
        self,
        interface: str,
        options: Options,
        cut: Cut,
        store: Store,
        report: Report,
        readable: Callable[[Source], None],
    ) -> None:
        self.interface = interface
        self.counters = Counters()
        self.writer = Writer(interface, cut, store, report, self.counters)
        self._options = options
        self._every = cut.every
        self._report = report
        self._readable = readable
        self._opened: _Opened | None = None
        self._close_at: float | None = None  # set when the interface of an open handle went away
        self._failures = 0
        self._failed_otherwise = False  # to be said once
        self._open_at = 0.0
        self._stopped = False

    @property
    def waiting(self) -> bool:
        """Whether the interface is not there and would be captured if it were."""
        return (self._opened is None or self._close_at is not None) and not self._stopped

    def start(self) -> None:
        """Open the interface. Raises what ``Handle`` raises, but only waits for one that is merely down."""
        try:
            self._open()
        except InterfaceLost as error:
            self._report("interface_down", f"{error}; waiting for it")
            self._open_later()
        except OSError as error:
            raise CaptureFailure(f"{self.interface}: cannot be opened: {error.strerror}") from error

    def next_duty(self, now: int) -> float:
        """Seconds from ``now``, nanoseconds since the epoch, until ``tend`` has something to do."""
        due = self._open_at if self._opened is None else self._close_at
        if due is not None:
            return max(0.0, due - time.monotonic())
        return rotation.until_boundary(now, self._every) / 1e9

    def tend(self, now: int) -> None:
        """Do what is due at ``now``, nanoseconds since the epoch: close a segment, open the interface again."""
        self.writer.rotate(now)
        if self._opened is not None:
            if self._close_at is not None and time.monotonic() >= self._close_at:
                self._give_up(self._opened)
        elif time.monotonic() >= self._open_at:
            try:
                self._open()
            except (NoSuchInterface, InterfaceLost):
                self._open_later()
            except (AgentError, OSError) as error:
                if not self._failed_otherwise:
                    self._report("interface_down", f"{error}; trying again")
                self._failed_otherwise = True
                self._open_later()
            else:
                self._report("interface_back", f"{self.interface}: captured again")

    def read(self) -> None:
        """Write the packets that are ready, for one turn at most."""
        if self._opened is None or self._close_at is not None:
            return
        try:
            self.writer.take(self._opened.handle, time.monotonic() + TURN)
        except InterfaceLost as error:
            self._lose(self._opened, str(error))

    def measure(self) -> None:
        """Read the counters of the kernel, and notice an interface that was replaced by another of its name."""
        opened = self._opened
        if opened is None or self._close_at is not None:
            return
        self._count(opened)
        if not opened.handle.present():
            self._lose(opened, f"{self.interface}: the interface is gone")

    async def stop(self) -> None:
        """Take no more packets, write all that were taken, close the segment and check the account."""
        self._stopped = True
        opened = self._opened
        if opened is None:
            return
        asyncio.get_running_loop().remove_reader(opened.handle.fd)
        with suppress(OSError):
            opened.handle.seal()
        deadline = time.monotonic() + DRAIN
        try:
            while self._unread(opened) and time.monotonic() < deadline:
                # An interface that went away a moment ago says so once, and then gives what its ring holds.
                with suppress(InterfaceLost):
                    self.writer.take(opened.handle, deadline)
                if self._unread(opened):
                    await asyncio.sleep(_DRAIN_STEP)
        finally:
            self._close(opened)

    def _open(self) -> None:
        handle = Handle(self.interface, self._options)
        try:
            self.writer.attach(handle)
        except BaseException:
            handle.close()
            raise
        self._opened = _Opened(handle, self.writer.delivered)
        self._failures = 0
        self._failed_otherwise = False
        asyncio.get_running_loop().add_reader(handle.fd, self._readable, self)

    def _open_later(self) -> None:
        self._failures += 1
        self._open_at = time.monotonic() + rotation.retry_delay(self._failures)

    def _lose(self, opened: _Opened, reason: str) -> None:
        """The interface went away: the last block of its ring is handed over in a moment, then it can be closed."""
        asyncio.get_running_loop().remove_reader(opened.handle.fd)
        with suppress(OSError):
            opened.handle.seal()
        self._close_at = time.monotonic() + SETTLE
        self._report("interface_lost", f"{reason}; waiting for it to come back")

    def _give_up(self, opened: _Opened) -> None:
        """Save what the ring of a lost interface still held, and begin to wait for its return."""
        for _ in range(2):  # the first read may do no more than say once again that the interface is gone
            with suppress(InterfaceLost):
                self.writer.take(opened.handle, time.monotonic() + DRAIN)
        self._close(opened)
        self._open_later()

    def _close(self, opened: _Opened) -> None:
        self._opened = self._close_at = None
        self.writer.detach()
        self._count(opened)
        self._settle(opened)
        opened.handle.close()

    def _count(self, opened: _Opened) -> None:
        try:
            received, dropped = opened.handle.statistics()
        except InterfaceLost:
            return
        counters = self.counters
        counters.received += opened.received.advance(received)
        counters.dropped_kernel += opened.dropped.advance(dropped)
        drops = device_drops(self.interface)
        if opened.device is not None and drops is not None:
            counters.dropped_interface += opened.device.advance(drops)

    def _unread(self, opened: _Opened) -> int:
        """Packets that the kernel stored for us and that were not delivered yet."""
        self._count(opened)
        delivered = self.writer.delivered - opened.delivered_before
        return opened.received.total - opened.dropped.total - delivered

    def _settle(self, opened: _Opened) -> None:
        """Hold the kernel's account against ours, now that the ring was read to its end."""
        missing = self._unread(opened)
        if 0 <= missing <= opened.handle.early:
            # Counted before the filter was in force, and refused by it: these never passed.
            self.counters.received -= missing
        elif self.interface != ANY:  # there the kernel counts loopback twice, and libpcap skips one of the two
            self._report(
                "packets_unaccounted", f"{self.interface}: {missing} packets were received but never delivered"
            )
