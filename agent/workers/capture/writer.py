"""Where the packets of one interface go: segment after segment, and nowhere while the store takes none.

A disk that is full or broken does not end the capture. Packets go on being read and are counted as not written, and a
new segment is tried again and again, less and less often. Nothing is lost silently.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from agent.workers.capture import rotation
from agent.workers.capture.counters import Counters
from agent.workers.capture.dumper import Dumper, Stream, sink
from agent.workers.capture.handle import Handle
from agent.workers.capture.store import Report, Store


@dataclass(frozen=True, slots=True)
class Cut:
    """How segments are cut: closed at ``limit`` bytes, and when a window of ``every`` nanoseconds ends.

    ``record`` is the most bytes one packet can take, ``headroom`` how many are kept free for the next reads.
    """

    limit: int
    every: int
    record: int
    headroom: int


class Writer:
    """``delivered`` counts packets taken from handles; each is then counted in ``counters`` as written or not."""

    def __init__(self, interface: str, cut: Cut, store: Store, report: Report, counters: Counters) -> None:
        self.delivered = 0
        self._interface = interface
        self._cut = cut
        self._store = store
        self._report = report
        self._counters = counters
        self._dumper: Dumper | None = None
        self._sink: Stream | None = None
        self._failures = 0
        self._retry_at = 0.0
        self._not_written_before = 0
        self._room = 0  # what may be written in this turn, as far as it was asked for

    @property
    def storing(self) -> bool:
        """Whether packets are written, as far as is known."""
        return self._failures == 0

    def attach(self, handle: Handle) -> None:
        """Prepare for packets of this handle. Raises ``OSError``, ``CaptureFailure``."""
        self._sink = sink(handle)

    def detach(self) -> None:
        """Complete what is open: the handle is about to be closed."""
        self._end()
        if self._sink is not None:
            self._sink.close()
            self._sink = None

    def take(self, handle: Handle, until: float) -> bool:
        """Take the packets that are ready until the monotonic clock says ``until``; returns whether there may be more.

        Raises ``InterfaceLost``; what was taken before is safe then.
        """
        self.rotate(time.time_ns())
        self._room = 0
        try:
            while True:
                asked, done = self._batch(handle)
                if done < asked:
                    return False
                if time.monotonic() >= until:
                    return True
        finally:
            self._flush()

    def _batch(self, handle: Handle) -> tuple[int, int]:
        """One call into libpcap: how many packets were asked for and how many came."""
        dumper = self._dumper or self._begin(handle)
        if dumper is None:
            return self._waste(handle)
        before = dumper.position()
        if self._room < self._cut.headroom:
            self._room = self._store.make_room(self._cut.headroom, before - dumper.size)
        asked = rotation.batch(
            room=self._room, left=self._cut.limit - before, record=self._cut.record, mean=dumper.mean_record()
        )
        if asked == 0:
            self._no_room(dumper)
            return 0, 0
        done = handle.dispatch(dumper.user, asked)
        self.delivered += done
        dumper.note(done)
        position = dumper.position()
        self._room -= position - before
        self._store.grow(dumper.path, position)
        if position >= self._cut.limit:
            self._end()
        return asked, done

    def _waste(self, handle: Handle) -> tuple[int, int]:
        if self._sink is None:
            raise RuntimeError("take() before attach()")
        done = handle.dispatch(self._sink.user, rotation.MAX_BATCH)
        self.delivered += done
        self._counters.not_written += done
        return rotation.MAX_BATCH, done

    def rotate(self, now: int) -> None:
        """Close the segment if its window is over at ``now``, nanoseconds since the epoch."""
        dumper = self._dumper
        if dumper is not None and rotation.due(
            size=dumper.size, limit=self._cut.limit, opened=dumper.opened, now=now, every=self._cut.every
        ):
            self._end()

    def _begin(self, handle: Handle) -> Dumper | None:
        """Open a new segment, unless it is not yet time to try again."""
        if self._failures and time.monotonic() < self._retry_at:
            return None
        if self._store.make_room(self._cut.headroom) < self._cut.record:
            self._failed(self._store.obstacle(), 0, promised=False)
            return None
        try:
            opened = time.time_ns()
            self._dumper = Dumper(handle, self._store.part(self._interface, opened), opened)
        except OSError as error:
            self._failed(error, 0)
            return None
        self._store.grow(self._dumper.path, self._dumper.size)
        return self._dumper

    def _no_room(self, dumper: Dumper) -> None:
        """Not one packet fits any more, and nothing old is left to remove: let this segment be the next to go."""
        full = dumper.packets + dumper.uncertain == 0
        self._end()
        if full:
            self._failed(self._store.obstacle(), 0, promised=False)

    def _flush(self) -> None:
        dumper = self._dumper
        if dumper is None or not dumper.uncertain:
            return
        try:
            self._count(dumper)
        except OSError:
            self._end()

    def _count(self, dumper: Dumper) -> None:
        """Flush, and count what is thereby written. Raises ``OSError``."""
        first, before = dumper.packets == 0, dumper.size
        gained = dumper.flush()
        if not gained:
            return
        self._counters.written += gained
        self._counters.bytes += dumper.size if first else dumper.size - before
        self._counters.segments += first
        if self._failures:
            self._failures = 0
            missed = self._counters.not_written - self._not_written_before
            self._report("storage_resumed", f"{self._interface}: packets are written again; {missed} were not")

    def _end(self) -> None:
        """Close the open segment: whole under its name, or gone when no packet is in it. Failures are reported."""
        dumper, self._dumper = self._dumper, None
        if dumper is None:
            return
        failure: OSError | None = None
        begin: int | None = None
        try:
            self._count(dumper)
        except OSError as error:
            failure = error
        lost = dumper.uncertain
        try:
            begin = dumper.first_instant()
        except OSError as error:
            failure = failure or error
            begin = dumper.opened
        try:
            dumper.close()
        except OSError as error:
            failure = failure or error
        try:
            if begin is None:
                self._store.discard(dumper.path)
            else:
                self._store.keep(dumper.path, begin, dumper.size)
        except OSError as error:
            failure = failure or error
        if failure is not None:
            self._failed(failure, lost)

    def _failed(self, error: OSError, lost: int, *, promised: bool = True) -> None:
        """The store would not take packets, ``lost`` of which had been read already: try again later.

        ``promised``: there should have been room. Then it is made once more, and tried again at once.
        """
        self._failures += 1
        squeezed = promised and self._store.squeeze(error, self._cut.headroom) and self._failures == 1
        self._retry_at = 0.0 if squeezed else time.monotonic() + rotation.retry_delay(self._failures)
        if self._failures == 1:
            self._not_written_before = self._counters.not_written
            self._report(
                "storage_error",
                f"{self._interface}: {lost} packets not written: {error.strerror}; counting, and trying again",
            )
        self._counters.not_written += lost
