"""One interface of a capture service: its handle, opened again whenever it was lost, and its counters."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from agent.errors import AgentError, CaptureFailure
from agent.workers.capture import rotation
from agent.workers.capture.counters import Counters
from agent.workers.capture.handle import BLOCK_TIMEOUT_MS, Handle, InterfaceLost, NoSuchInterface, Options
from agent.workers.capture.report import Flow
from agent.workers.capture.store import Report, Store
from agent.workers.capture.tap import Tap
from agent.workers.capture.writer import Cut, Reason, Writer

#: How long one turn of reading may take, in seconds, before the loop looks after its other duties.
TURN = 0.01

#: How long to wait, in seconds, for the last ring block when closing: the kernel hands it over after
#: ``BLOCK_TIMEOUT_MS``, later on a busy machine.
DRAIN = 3 * BLOCK_TIMEOUT_MS / 1000

#: How long the ring of an interface that is gone is left alone, in seconds, before it is read for the last time.
SETTLE = 1.5 * BLOCK_TIMEOUT_MS / 1000

_DRAIN_STEP = 0.01

#: Longest time that a ring is left alone after packets were read from it, in seconds. Under load they then come by many
#: blocks at a time, which costs a fraction of being woken for each of them.
REST = 0.05

#: Bytes a second that a ring must not be full of before it is looked at again: 8 Gbit/s.
_RUSH = 2**30

#: That part of the ring, read in one turn, is so much that the next turn follows at once.
_HASTE = 8


class Source:
    """``readable`` is called with the source when its ring has packets, or may have: ``read`` is due.

    ``counters`` go on from what they are.
    """

    def __init__(
        self,
        interface: str,
        options: Options,
        cut: Cut,
        store: Store,
        report: Report,
        readable: Callable[[Source], None],
        counters: Counters,
    ) -> None:
        self.interface = interface
        self.counters = counters
        self.writer = Writer(interface, cut, store, report, self.counters)
        self._options = options
        self._report = report
        self._readable = readable
        self._tap: Tap | None = None
        self._close_at: float | None = None  # set when the interface of an open handle went away
        self._timer: asyncio.TimerHandle | None = None
        self._failures = 0
        self._failed_otherwise = False  # to be said once
        self._open_at = 0.0
        self._stopped = False

    @property
    def waiting(self) -> bool:
        """Whether the interface is not there and would be captured if it were."""
        return (self._tap is None or self._close_at is not None) and not self._stopped

    @property
    def idle(self) -> bool:
        """Whether nothing of it is open."""
        return self._tap is None

    def flow(self) -> Flow:
        """How packets got through since this was asked last; packets in the ring as of the last ``measure``."""
        lag, self.writer.lag = self.writer.lag, 0
        tap = self._tap
        ring, unread = (tap.handle.ring, tap.unread) if tap is not None else (0, 0)
        return Flow(lag, self.writer.lag_max, ring, unread)

    def start(self) -> None:
        """Open the interface. Raises what ``Handle`` raises, but only waits for one that is merely down."""
        try:
            self._open()
        except InterfaceLost as error:
            self._report("interface_down", f"{error}; waiting for it")
            self._open_later()
        except OSError as error:
            raise CaptureFailure(f"{self.interface}: cannot be opened: {error.strerror}") from error

    def start_later(self, error: AgentError) -> None:
        """It could not be started: try again and again."""
        self._report("interface_down", f"{error}; trying again")
        self._failed_otherwise = True
        self._open_later()

    def wake(self) -> None:
        """An interface has come or changed: open this one now, if it is waited for, and notice if it is gone."""
        if self._tap is None:
            self._open_at = 0.0
        else:
            self.measure()

    def next_duty(self, now: int) -> float:
        """Seconds from ``now``, nanoseconds since the epoch, until ``tend`` has something to do."""
        due = self._open_at if self._tap is None else self._close_at
        if due is not None:
            return max(0.0, due - time.monotonic())
        boundary = rotation.until_boundary(now, self.writer.cut.every) / 1e9
        deadline = self.writer.deadline
        return boundary if deadline is None else max(0.0, min(boundary, deadline - time.monotonic()))

    def tend(self, now: int) -> None:
        """Do what is due at ``now``, nanoseconds since the epoch: close a segment, open the interface again."""
        if self._tap is None:
            if time.monotonic() >= self._open_at:
                self._open_again()
            return
        if self._close_at is None:
            self.writer.rotate(now)
        elif time.monotonic() >= self._close_at:
            self._give_up(self._tap)
        deadline = self.writer.deadline
        if deadline is not None and time.monotonic() >= deadline:
            self._take(self._tap)  # it is us who may be late
            self.writer.expire()

    def read(self) -> None:
        """Write the packets that are ready, for one turn at most, and see to it that the next turn comes."""
        self._timer = None
        tap = self._tap
        if tap is None or self._close_at is not None or self._stopped:
            return
        packets, size = tap.delivered, self.counters.bytes
        more = self._take(tap)
        if more is None:
            return
        loop = asyncio.get_running_loop()
        if tap.delivered == packets:
            loop.add_reader(tap.handle.fd, self._readable, self)
            return
        hurry = more or (self.counters.bytes - size) * _HASTE > tap.handle.ring
        loop.remove_reader(tap.handle.fd)
        self._timer = loop.call_later(0.0 if hurry else min(REST, tap.handle.ring / _RUSH), self._readable, self)

    def _take(self, tap: Tap) -> bool | None:
        """Write what is ready; returns whether there may be more, and ``None`` when the interface went away."""
        try:
            return self.writer.take(time.monotonic() + TURN)
        except InterfaceLost as error:
            self._lose(tap, str(error))
            return None

    def _let_be(self, tap: Tap) -> None:
        """Read no more by turns."""
        asyncio.get_running_loop().remove_reader(tap.handle.fd)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def measure(self) -> None:
        """Read the counters of the kernel, and notice an interface that was replaced by another of its name."""
        tap = self._tap
        if tap is None or self._close_at is not None:
            return
        tap.measure()
        if not tap.handle.present():
            self._lose(tap, f"{self.interface}: the interface is gone")

    def close_segment(self) -> None:
        """Begin to close the open segment, because somebody asked for that."""
        if self._tap is not None and self._close_at is None:
            self.writer.close("request")

    async def stop(self) -> None:
        """Take no more packets, write all that were taken, close the segment and check the account."""
        self._stopped = True
        tap = self._tap
        if tap is None:
            return
        self._let_be(tap)
        with suppress(OSError):
            tap.handle.seal()
        deadline = time.monotonic() + DRAIN
        try:
            while self._unfinished(tap) and time.monotonic() < deadline:
                # An interface that went away a moment ago says so once, and then gives what its ring holds.
                with suppress(InterfaceLost):
                    self.writer.take(deadline)
                if self._unfinished(tap):
                    await asyncio.sleep(_DRAIN_STEP)
        finally:
            self._close(tap, "stop")

    def _unfinished(self, tap: Tap) -> bool:
        """Whether packets are left to be read, now that no more are coming; they go into the segment that is open."""
        self.writer.close("stop")
        return tap.unread > 0

    def _open(self) -> None:
        handle = Handle(self.interface, self._options)
        try:
            tap = Tap(handle, self.counters)
            self.writer.attach(tap)
        except BaseException:
            handle.close()
            raise
        self._tap = tap
        self._failures = 0
        self._failed_otherwise = False
        asyncio.get_running_loop().add_reader(handle.fd, self._readable, self)
        if handle.ring < self._options.ring:
            self._report(
                "ring_shrunk",
                f"{self.interface}: the kernel granted {handle.ring} bytes for its ring, not {self._options.ring}",
            )

    def _open_again(self) -> None:
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

    def _open_later(self) -> None:
        self._failures += 1
        self._open_at = time.monotonic() + rotation.retry_delay(self._failures)

    def _lose(self, tap: Tap, reason: str) -> None:
        """The interface went away: the last block of its ring is handed over in a moment, then it can be closed."""
        self._let_be(tap)
        with suppress(OSError):
            tap.handle.seal()
        self._close_at = time.monotonic() + SETTLE
        self._report("interface_lost", f"{reason}; waiting for it to come back")

    def _give_up(self, tap: Tap) -> None:
        """Save what the ring of a lost interface still held, and begin to wait for its return."""
        for _ in range(2):  # the first read may do no more than say once again that the interface is gone
            with suppress(InterfaceLost):
                self.writer.close("lost")
                self.writer.take(time.monotonic() + DRAIN)
        self._close(tap, "lost")
        self._open_at = 0.0  # another of its name may be there already

    def _close(self, tap: Tap, reason: Reason) -> None:
        self._tap = self._close_at = None
        self.writer.detach(reason)
        tap.close()
