"""The directory of segments of one service: adopted at start, kept within its limits, oldest first.

All files of a segment count: packets, account, index, and the index of what is open; also those of interfaces that are
no longer declared. Any other file is somebody else's and left alone. Which segments go is ``retention``'s to say, and
here it is done and told:

* ``ok``: segments go when the budget or their age says so, as declared.
* ``pruning``: the file system leaves less than the budget, and so more of them go.
* ``full``: nothing may go any more, or the disk refuses; ``Writer`` then counts what it cannot write, and resumes.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import chain
from pathlib import Path

from agent.errors import StorageFailure
from agent.workers.capture import account, version
from agent.workers.capture.account import Account
from agent.workers.capture.adoption import Report
from agent.workers.capture.catalogue import ACCOUNT
from agent.workers.capture.finder import Finder
from agent.workers.capture.finish import finish
from agent.workers.capture.hold import Hold
from agent.workers.capture.naming import OPEN, parse_name, segment_name
from agent.workers.capture.pins import Ranges, Watch
from agent.workers.capture.removal import PATIENT, Removal
from agent.workers.capture.retention import Limits, Plan, Room, Stored, owed, plan
from agent.workers.capture.shelf import LOOKS, Shelf
from agent.workers.capture.space import Space
from agent.workers.capture.steps import SLACK, Steps
from agent.workers.capture.tails import Tails

__all__ = ["Report", "Store"]

INDEX_SHARE = 16
"""An index is taken to be one part in so many of its segment, until it is there."""

RESPITE = 0.1
"""Seconds for which room is not looked for again where there was none."""

FULL = (errno.ENOSPC, errno.EDQUOT)
"""What a disk says that takes no more."""


class Store:
    """Closed segments by age, and the bytes that open ones have taken so far. Sizes are bytes.

    ``closed`` is called when one has been completed.
    """

    def __init__(
        self,
        directory: Path,
        limits: Limits,
        report: Report,
        clock: Callable[[], int] = time.time_ns,
        closed: Callable[[], None] = lambda: None,
    ) -> None:
        self._directory = directory
        self._space = Space(directory, limits, report)
        self._report = report
        self._clock = clock
        self._told_closed = closed
        self._pins = Watch(directory, report)
        self._shelf = self._made_shelf(directory)
        self._removal = Removal(self._shelf, report)
        self._finder = Finder(directory, self._now, self._knows, report)
        self._steps = Steps(self._now, self._steady)
        self._ends: dict[Path, int] = {}  # of what is complete: no packet is later
        self._open: dict[Path, int] = {}
        self._tails = Tails()
        self._unnamed: list[tuple[Path, int, int, Account | None, Hold | None]] = []  # complete, but not renamed
        self._barren_until = 0.0
        self._doubted = False  # the disk said it was full when it was not
        #: Bytes of the budget that are others' to write, and how many of these they have on the disk by now.
        self.lent = self.lent_used = 0

    @property
    def bytes(self) -> int:
        """Bytes of all segments, open ones included."""
        return (
            self._shelf.bytes
            + self._removal.bytes
            + sum(self._open.values())
            + self._tails.bytes
            + sum(size for _, _, size, _, _ in self._unnamed)
        )

    @property
    def _claimed(self) -> int:
        """Bytes of all segments, and what the indexes that are to come may take: somebody else writes them."""
        return self.bytes + self.lent + (self._shelf.waiting_bytes + sum(self._open.values())) // INDEX_SHARE

    @property
    def state(self) -> str:
        """``ok``, or ``pruning`` while the file system leaves less room than the budget."""
        return "pruning" if self._space.low else "ok"

    @property
    def oldest(self) -> int | None:
        """When the oldest closed segment begins, in nanoseconds since the epoch."""
        return self._shelf.oldest(self._clock())

    @property
    def unindexed(self) -> int:
        """How many closed segments have no index yet."""
        return self._shelf.waiting

    @property
    def since(self) -> int | None:
        """No packet is from before this instant. Takes as long as there are segments."""
        stuck = (segment.begin for segment in self._removal.stuck)
        opened = (parsed[0] for part in self._open if (parsed := parse_name(part.name)))
        unnamed = (begin for _, begin, _, _, _ in self._unnamed)
        return min(chain((segment.begin for segment in self._shelf), stuck, opened, unnamed), default=None)

    @property
    def pins(self) -> Ranges:
        """The pins, as they were when they were last looked at."""
        return self._pins.ranges

    @property
    def pinned(self) -> int:
        """How many pins there are."""
        return len(self._pins.ranges)

    def adopt(self) -> None:
        """Take over what is in the directory, completing segments that a worker left open when it was killed.

        Call once, before anything else. Raises ``ConfigurationError`` when the store is one of a newer version, and
        ``StorageFailure`` when the directory cannot be made or read.
        """
        try:
            self._directory.mkdir(mode=0o750, parents=True, exist_ok=True)
            marked = version.check(self._directory)
            self._shelf.find(self._finder.adopt(), self._clock())
        except OSError as error:
            raise StorageFailure(f"segments in {self._directory} cannot be read: {error.strerror}") from error
        if not marked:
            try:
                version.mark(self._directory)
            except StorageFailure as error:  # a full disk; the next start tries again
                self._report("storage_error", str(error))
        self._pins.look(self._clock())

    def discover(self, until: float, *, anew: bool = False) -> bool:
        """Take over what other processes have closed here and not told of, or have left open when they ended.

        As far as that goes until the monotonic clock says ``until``, and then from there on, or from the start when it
        is to be ``anew``. Returns whether all has been seen.
        """
        for segment in self._finder.look(anew=anew):
            if segment is not None:
                self._welcome(segment)
            if time.monotonic() >= until:
                return False
        return True

    def welcome(self, name: str) -> None:
        """Take over one segment that another process has closed: ``INTERFACE/NAME``."""
        if (segment := self._finder.closed(name)) is not None:
            self._welcome(segment)

    def _knows(self, begin: int, interface: str) -> bool:
        """Whether this closed segment is counted."""
        return self._shelf.knows(begin, interface) or any(
            (segment.begin, segment.interface) == (begin, interface) for segment in self._removal.stuck
        )

    def _welcome(self, segment: Stored) -> None:
        now = self._clock()
        self._mind_clock(now)
        self._shelf.add(segment, now)
        self._told_closed()

    def _mind_clock(self, now: int) -> None:
        """See whether it was set back, before anything is closed by the new one: that itself closes what is open."""
        if self._steps.back():
            self._shelf.set_back(now)

    def part(self, interface: str, now: int) -> Path:
        """Where a new segment is to be written; its directory exists. Raises ``OSError``."""
        directory = self._directory / interface
        directory.mkdir(mode=0o750, exist_ok=True)
        part = directory / segment_name(now, OPEN)
        self._steps.opened(part)
        return part

    def unopened(self, part: Path) -> None:
        """Nothing could be written there after all; whatever is there is somebody else's."""
        self._open.pop(part, None)
        self._steps.closed(part)

    def grow(self, part: Path, size: int) -> None:
        """An open segment has this size now."""
        self._open[part] = size
        self._steps.opened(part)

    def keep(self, part: Path, begin: int, size: int, record: Account | None = None, hold: Hold | None = None) -> Path:
        """An open segment is complete: store its account, and give it its name, which tells others that it is.

        It is held by ``hold`` until it has it.
        Raises ``OSError`` when that fails; it is tried again until it succeeds. An account that the disk does not take
        is reported, and missing.
        """
        self._open.pop(part, None)
        self._ends[part] = end = self._steps.closed(part)
        if end > self._clock() + SLACK:
            with suppress(OSError):  # for whoever finds it later: the file's time is all that tells
                os.utime(part, ns=(end, end))
        try:
            path = self._name(part, begin, size, record)
        except OSError:
            if hold is not None and len(self._unnamed) >= LOOKS:
                hold.release()  # descriptors are few: whoever finds it then makes an account of its own
            self._unnamed.append((part, begin, size, record, hold))
            raise
        if hold is not None:
            hold.release()
        return path

    def _name(self, part: Path, begin: int, size: int, record: Account | None) -> Path:
        done = finish(part, begin, record)
        beside = done.beside
        if done.missing is not None and record is not None:
            self.prune(1)  # what an account takes is worth an old segment
            beside = self._store_account(done.path.with_suffix(ACCOUNT), record)
        self._tails.renamed(part, done.path)
        now = self._clock()
        end = max(done.begin, now, self._ends.pop(part, now))
        self._mind_clock(now)
        self._shelf.add(Stored(done.begin, part.parent.name, end, size + beside, indexed=False), now)
        self._told_closed()
        return done.path

    def _store_account(self, path: Path, record: Account) -> int:
        """Bytes of the account on disk."""
        try:
            account.write(path, record)
            return path.stat().st_size
        except (StorageFailure, OSError) as error:
            self._report("storage_error", f"{path.parent.name}: a segment has no account: {error}")
            return 0

    def discard(self, part: Path) -> None:
        """An open segment has no packet in it: remove it. Raises ``OSError``."""
        self._open.pop(part, None)
        self._steps.closed(part)
        part.unlink(missing_ok=True)
        self._tails.drop(part)

    def tend(self) -> None:
        """What is due once a second: pins, indexes, segments that have become too old, and the room on the disk."""
        now = self._clock()
        if self._pins.look(now):
            self._barren_until = 0.0
        self._finish()
        self._tails.look(self._open)
        for part in self._open:
            self._steps.opened(part)
        self._mind_clock(now)
        self._look_for_indexes()
        self._space.forget()
        self._removal.again()
        self._free(0, 0)
        self._space.relax(self._room(0))

    def make_room(self, want: int, unflushed: int = 0) -> int:
        """Remove segments until ``want`` bytes may be written; returns how many may, which can be fewer.

        What may be written is what is left of the budget, and no more than the disk may be filled by once it took the
        ``unflushed`` bytes that open segments have grown by and not handed over yet.
        """
        found = self._room(unflushed).bytes
        if found < want and time.monotonic() >= self._barren_until:
            self._free(want, unflushed)
            found = self._room(unflushed).bytes
        return max(0, found)

    def _free(self, want: int, unflushed: int) -> None:
        """Remove what has to go for ``want`` bytes."""
        for _ in range(PATIENT):  # others go instead of those that will not be removed
            if self._removal.resting:
                return
            found = self._plan(want, unflushed)
            if found.short and found.waiting and self._look_for_indexes():
                found = self._plan(want, unflushed)
            if found.short:
                self._barren_until = time.monotonic() + RESPITE
            if self._execute(found):
                return

    def prune(self, need: int) -> bool:
        """Remove as many segments as it takes to free ``need`` bytes; returns whether any went."""
        before = self.bytes
        self._free(self._room(0).bytes + need, 0)
        return self.bytes < before

    def squeeze(self, error: OSError, want: int) -> bool:
        """The disk would not take what it promised. Make room, and do not rely on that promise for a while.

        Returns whether any went, so that it makes sense to try again at once.
        """
        if error.errno not in FULL:
            return False
        promised = self._room(0).bytes >= want
        if promised and (self._doubted or error.errno == errno.EDQUOT):  # a quota, or no more inodes
            # What is lent was made room for when this was learned, and need not be again.
            known = self._space.limits.budget if self.lent and self._space.learned else self.bytes
            most = self._space.learn(known - want)
            self._space.run_low(f"{error.strerror}: for a while no more than {most} bytes are stored")
        self._doubted = promised
        return self.prune(want)

    def obstacle(self) -> OSError:
        """Why there is no room for a packet, as an error."""
        return self._space.obstacle(self._claimed, self._shelf.waiting, len(self._removal.stuck), self._owed(0))

    def _plan(self, want: int, unflushed: int) -> Plan:
        return plan(
            self._shelf.in_order,
            self._space.limits,
            self._space.disk(unflushed + self._owed(unflushed)),
            self._claimed,
            want,
            self._clock(),
            lambda segment: self._pins.ranges.touch(segment.begin, segment.end),
            time.monotonic_ns(),
        )

    def _room(self, unflushed: int) -> Room:
        return self._space.room(self._claimed, unflushed + self._owed(unflushed))

    def _owed(self, unflushed: int) -> int:
        """Bytes of the disk that are to be left to others."""
        if not self.lent:
            return 0
        return owed(self._space.limits, self._space.disk(unflushed), self.bytes, self.lent, self.lent_used)

    def _execute(self, found: Plan) -> bool:
        """Remove what is to go; returns whether all of it did."""
        disk, current = self._space.disk(), self._room(0)
        if found.going and current.disk < current.budget:
            self._space.run_low(
                f"{disk.free} of {disk.total} bytes are free on disk, {self._space.reserve} are to stay so: "
                "the oldest segments go before the budget is used"
            )
        for segment in found.broken:
            self._pins.broken(segment.begin, segment.end)
        return all(self._removal.remove(segment) for segment in [*found.aged, *found.going, *found.broken])

    def _finish(self) -> None:
        """Name what would not be named."""
        for entry in self._unnamed[:LOOKS]:
            part, begin, size, record, hold = entry
            try:
                self._name(part, begin, size, record)
            except FileNotFoundError:  # somebody has removed it
                self._ends.pop(part, None)
            except OSError:
                return
            if hold is not None:
                hold.release()
            self._unnamed.remove(entry)

    def _look_for_indexes(self) -> bool:
        """Take note of indexes that have appeared, of some segments at a time; returns whether there were any."""
        found = self._shelf.look_for_indexes(_size)
        for path in found:
            self._tails.drop(path)
        if found:
            self._barren_until = 0.0
        return bool(found)

    def _now(self) -> int:
        return self._clock()

    @staticmethod
    def _steady() -> float:
        return time.monotonic()

    def _made_shelf(self, directory: Path) -> Shelf:
        return Shelf(directory, self._report)


def _size(path: Path) -> int | None:
    """Bytes of a file; ``None`` when it is not there."""
    try:
        return path.stat().st_size
    except OSError:
        return None
