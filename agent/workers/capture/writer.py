"""Where the packets of one interface go: segment after segment, and nowhere while the store takes none.

A disk that is full or broken does not end the capture. Packets go on being read and are counted as not written, and a
new segment is tried again and again, less and less often. Nothing is lost silently.

A segment that is to be closed is not closed there and then. The kernel is asked how many packets it has stored up to
that instant, and reading goes on until exactly these are in the segment; what came later is the next one's. So at each
close both sides of the account are complete, and are held against each other.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Literal

from agent.workers.capture import rotation
from agent.workers.capture.account import Account
from agent.workers.capture.counters import Counters
from agent.workers.capture.dumper import Dumper, Stream, sink
from agent.workers.capture.store import Report, Store
from agent.workers.capture.tap import Tap

#: Seconds within which the kernel must have handed over what it had counted when a segment was to be closed. It does
#: so within ``BLOCK_TIMEOUT_MS``; whatever comes later than this counts as unaccounted for.
CLOSE_WITHIN = 1.0

#: The same for ``any``, where the number to wait for may be too high.
CLOSE_ANY_WITHIN = 0.3

Reason = Literal["size", "time", "request", "stop", "lost", "full"]


@dataclass(frozen=True, slots=True)
class Cut:
    """How segments are cut: closed at ``limit`` bytes, and when a window of ``every`` nanoseconds ends.

    What the ring holds by then goes into the segment too, unless that would make it longer than ``most``. ``record`` is
    the most bytes one packet can take, ``headroom`` how many are kept free for the next reads.
    """

    limit: int
    every: int
    record: int
    headroom: int
    most: int


@dataclass(frozen=True, slots=True)
class _Boundary:
    """The end of a segment that is being closed: when ``target`` packets were delivered by this handle.

    ``counts`` is what had been counted by then. After ``deadline``, of the monotonic clock, it is waited for no longer.
    """

    reason: Reason
    target: int
    counts: Counters
    deadline: float


class Writer:
    """Each packet that is taken is counted in ``counters`` as written or as not written."""

    def __init__(self, interface: str, cut: Cut, store: Store, report: Report, counters: Counters) -> None:
        self.cut = cut
        #: The most nanoseconds from a packet to its being certain: since the start, and since this was last set to 0.
        self.lag_max = self.lag = 0
        self._interface = interface
        self._store = store
        self._report = report
        self._counters = counters
        self._settled = replace(counters)  # what is in the accounts so far
        self._tap: Tap | None = None
        self._sink: Stream | None = None
        self._dumper: Dumper | None = None
        self._boundary: _Boundary | None = None
        self._window_at = 0  # an instant of the window that is being written
        self._lag = 0  # the most of the open segment
        self._failures = 0
        self._retry_at = 0.0
        self._not_written_before = 0
        self._room = 0  # what may be written in this turn, as far as it was asked for

    @property
    def storing(self) -> bool:
        """Whether packets are written, as far as is known."""
        return self._failures == 0

    @property
    def deadline(self) -> float | None:
        """When, by the monotonic clock, ``expire`` is due; ``None`` unless a segment is being closed."""
        return self._boundary.deadline if self._boundary is not None else None

    def attach(self, tap: Tap) -> None:
        """Prepare for packets of this handle. Raises ``OSError``, ``CaptureFailure``."""
        self._sink = sink(tap.handle)
        self._tap = tap
        self._window_at = time.time_ns()

    def detach(self, reason: Reason) -> None:
        """Complete what is open: the handle is about to be closed, and what it did not deliver by now never comes."""
        tap = self._attached()
        tap.measure()
        if self._boundary is not None:
            self._end(tap, self._boundary)
        self._end(tap, self._reached(tap, reason))
        if self._sink is not None:
            self._sink.close()
        self._sink = self._tap = None

    def take(self, until: float) -> bool:
        """Take the packets that are ready until the monotonic clock says ``until``; returns whether there may be more.

        Raises ``InterfaceLost``; what was taken before is safe then.
        """
        self.rotate(time.time_ns())
        self._room = 0
        try:
            while True:
                asked, done = self._batch(self._attached())
                if done < asked:
                    return False
                if time.monotonic() >= until:
                    return True
        finally:
            self._flush()

    def rotate(self, now: int) -> None:
        """Begin to close the segment if its window is over at ``now``, nanoseconds since the epoch."""
        size = self._dumper.size if self._dumper is not None else 0
        if rotation.due(size=size, limit=self.cut.limit, opened=self._window_at, now=now, every=self.cut.every):
            if self._boundary is None:
                self._window_at = now
            self.close("size" if size >= self.cut.limit else "time")

    def close(self, reason: Reason) -> None:
        """Begin to close the segment: it gets what the kernel has stored by now. Nothing if it is being closed."""
        tap = self._attached()
        if self._boundary is not None:
            return
        tap.measure()
        boundary = self._reached(tap, reason)
        if tap.unread:
            self._boundary = boundary
        elif self._dumper is not None:
            self._end(tap, boundary)

    def expire(self) -> None:
        """The deadline has passed: close the segment without what has not come."""
        if self._boundary is not None and time.monotonic() >= self._boundary.deadline:
            self._end(self._attached(), self._boundary)

    def _attached(self) -> Tap:
        if self._tap is None:
            raise RuntimeError("no handle is attached")
        return self._tap

    def _reached(self, tap: Tap, reason: Reason) -> _Boundary:
        """The boundary that lies where the kernel was measured last."""
        within = CLOSE_WITHIN if tap.exact else CLOSE_ANY_WITHIN
        return _Boundary(reason, tap.stored, replace(self._counters), time.monotonic() + within)

    def _here(self, tap: Tap, reason: Reason) -> _Boundary:
        """A boundary at the packet that was delivered last, for a segment that can take no more.

        How many were received up to there only the deliveries tell, so such an account balances by itself; what it
        leaves to the next is held against the kernel there.
        """
        tap.measure()
        ahead = tap.stored - tap.delivered
        counts = replace(self._counters, received=self._counters.received - ahead)
        return _Boundary(reason, tap.delivered, counts, 0.0)

    def _batch(self, tap: Tap) -> tuple[int, int]:
        """One call into libpcap: how many packets were asked for and how many came."""
        if tap.doubtful:
            return self._pass_over(tap)
        dumper = self._dumper or self._begin(tap)
        if dumper is None:
            return self._waste(tap, rotation.MAX_BATCH)
        before = dumper.position()
        if self._room < self.cut.headroom:
            self._room = self._store.make_room(self.cut.headroom, before - dumper.size)
        end = self.cut.limit if self._boundary is None else self.cut.most
        asked = rotation.batch(room=self._room, left=end - before, record=self.cut.record, mean=dumper.mean_record())
        if asked == 0:
            self._no_room(tap, dumper)
            return 0, 0
        asked = self._bounded(tap, asked)
        done = tap.take(dumper.user, asked)
        dumper.note(done)
        position = dumper.position()
        self._room -= position - before
        self._store.grow(dumper.path, position)
        if self._arrived(tap):
            return asked, done
        if position >= self.cut.most:
            self._end(tap, self._here(tap, "size"))
        elif position >= self.cut.limit:
            self.close("size")
        return asked, done

    def _pass_over(self, tap: Tap) -> tuple[int, int]:
        """Read what others may have as well: rather one that is counted as missing than one that is there twice."""
        asked, done = self._waste(tap, tap.doubtful)
        tap.doubtful -= done
        return asked, done

    def _waste(self, tap: Tap, most: int) -> tuple[int, int]:
        """Read packets that no segment takes, so many at most."""
        if self._sink is None:
            raise RuntimeError("no handle is attached")
        asked = self._bounded(tap, most)
        done = tap.take(self._sink.user, asked)
        self._counters.not_written += done
        self._arrived(tap)
        return asked, done

    def _bounded(self, tap: Tap, count: int) -> int:
        """``count``, or as many packets as are missing to the boundary."""
        return count if self._boundary is None else min(count, self._boundary.target - tap.delivered)

    def _arrived(self, tap: Tap) -> bool:
        """Close the segment if its boundary is reached; whether it was."""
        if self._boundary is None or tap.delivered < self._boundary.target:
            return False
        self._end(tap, self._boundary)
        return True

    def _begin(self, tap: Tap) -> Dumper | None:
        """Open a new segment, unless it is not yet time to try again."""
        if self._failures and time.monotonic() < self._retry_at:
            return None
        if self._store.make_room(self.cut.headroom) < self.cut.record:
            self._failed(self._store.obstacle(), 0, promised=False)
            return None
        try:
            self._dumper = self._opened(tap)
        except OSError as error:
            self._failed(error, 0)
            return None
        self._store.grow(self._dumper.path, self._dumper.size)
        return self._dumper

    def _opened(self, tap: Tap) -> Dumper:
        """A new segment, named by the instant. Raises ``OSError``."""
        for last in (False, True):
            opened = time.time_ns()
            part = self._store.part(self._interface, opened)
            try:
                return Dumper(tap.handle, part, opened)
            except OSError as error:
                self._store.unopened(part)
                if last or not isinstance(error, FileExistsError):  # by another process, in the same microsecond
                    raise
        raise AssertionError("unreachable")

    def _no_room(self, tap: Tap, dumper: Dumper) -> None:
        """Not one packet fits any more, and nothing old is left to remove: let this segment be the next to go."""
        full = dumper.packets + dumper.uncertain == 0
        self._end(tap, self._here(tap, "full"))
        if full:
            self._failed(self._store.obstacle(), 0, promised=False)

    def _flush(self) -> None:
        dumper = self._dumper
        if dumper is None or not dumper.uncertain:
            return
        try:
            self._count(dumper)
        except OSError:
            tap = self._attached()
            self._end(tap, self._here(tap, "full"))

    def _count(self, dumper: Dumper) -> None:
        """Flush, and count what is thereby written. Raises ``OSError``."""
        first, before = dumper.packets == 0, dumper.size
        gained = dumper.flush()
        if not gained:
            return
        self._lag = max(self._lag, dumper.lag)
        self.lag = max(self.lag, dumper.lag)
        self.lag_max = max(self.lag_max, dumper.lag)
        self._counters.written += gained
        self._counters.bytes += dumper.size if first else dumper.size - before
        self._counters.segments += first
        if self._failures:
            self._failures = 0
            missed = self._counters.not_written - self._not_written_before
            self._report("storage_resumed", f"{self._interface}: packets are written again; {missed} were not")

    def _end(self, tap: Tap, boundary: _Boundary) -> None:
        """Close the open segment, if there is one: whole under its name, or gone when no packet is in it.

        Failures are reported. What is missing to the boundary never comes.
        """
        self._boundary = None
        missing = boundary.target - tap.delivered
        tap.write_off(missing)
        if not tap.exact:
            boundary.counts.received -= missing
            missing = 0
        dumper, self._dumper = self._dumper, None
        if dumper is not None:
            missing = self._complete(dumper, tap, boundary)
        else:
            self._settled.received += missing  # told now, and in no account
        if missing:
            self._counters.unaccounted += missing
            self._report("packets_unaccounted", f"{self._interface}: {_unaccounted(missing)}")

    def _complete(self, dumper: Dumper, tap: Tap, boundary: _Boundary) -> int:
        """Close a segment, and store it with its account; returns how many packets are unaccounted for."""
        failure: OSError | None = None
        begin: int | None = None
        try:
            self._count(dumper)
        except OSError as error:
            failure = error
        lost = dumper.uncertain
        self._counters.not_written += lost
        try:
            begin = dumper.first_instant()
        except OSError as error:
            failure = failure or error
            begin = dumper.opened
        try:
            dumper.close()
        except OSError as error:
            failure = failure or error
        unaccounted = 0
        try:
            if begin is None:
                try:
                    self._store.discard(dumper.path)
                finally:  # also of what will not go: whoever finds it then may remove it
                    dumper.hold.release()
            else:
                account = self._account(dumper, tap, boundary, failed=failure is not None)
                unaccounted = account.unaccounted
                self._store.keep(dumper.path, begin, dumper.size, account, dumper.hold)
        except OSError as error:
            failure = failure or error
        if failure is not None:
            self._failed(failure, lost)
        return unaccounted

    def _account(self, dumper: Dumper, tap: Tap, boundary: _Boundary, *, failed: bool) -> Account:
        """What became of the packets since the last account."""
        before, counts = self._settled, boundary.counts
        received = counts.received - before.received
        dropped = counts.dropped_kernel - before.dropped_kernel
        not_written = self._counters.not_written - before.not_written
        self._settled = replace(counts, not_written=self._counters.not_written)
        lag, self._lag = self._lag, 0
        return Account(
            interface=self._interface,
            opened=dumper.opened,
            closed=time.time_ns(),
            written=dumper.packets,
            bytes=dumper.size,
            reason="full" if failed else boundary.reason,
            received=received,
            dropped_kernel=dropped,
            dropped_interface=counts.dropped_interface - before.dropped_interface,
            not_written=not_written,
            unaccounted=received - dropped - not_written - dumper.packets,
            lag=lag,
            snaplen=tap.handle.options.snaplen,
            ring=tap.handle.ring,
            filter=tap.handle.options.filter,
        )

    def _failed(self, error: OSError, lost: int, *, promised: bool = True) -> None:
        """The store would not take packets, ``lost`` of which had been read already: try again later.

        ``promised``: there should have been room. Then it is made once more, and tried again at once.
        """
        self._failures += 1
        squeezed = promised and self._store.squeeze(error, self.cut.headroom) and self._failures == 1
        self._retry_at = 0.0 if squeezed else time.monotonic() + rotation.retry_delay(self._failures)
        if self._failures == 1:
            self._not_written_before = self._counters.not_written - lost
            self._report(
                "storage_error",
                f"{self._interface}: {lost} packets not written: {error.strerror}; counting, and trying again",
            )


def _unaccounted(missing: int) -> str:
    if missing > 0:
        return f"{missing} packets were received but never delivered"
    return f"{-missing} packets were delivered that had not been counted"
