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
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path

from agent.errors import StorageFailure
from agent.workers.capture import account, adoption, version
from agent.workers.capture.account import Account
from agent.workers.capture.adoption import Report
from agent.workers.capture.catalogue import ACCOUNT, INDEX, TAIL
from agent.workers.capture.finish import finish
from agent.workers.capture.hold import Hold
from agent.workers.capture.naming import CLOSED, OPEN, parse_name, segment_name, valid_interface
from agent.workers.capture.pins import Watch
from agent.workers.capture.retention import Disk, Limits, Plan, Room, Stored, owed, plan, reserve, room

__all__ = ["Report", "Store"]

INDEX_SHARE = 16
"""An index is taken to be one part in so many of its segment, until it is there."""

LOOKS = 64
"""Segments whose index is looked for at one time: an index that is long in coming must not cost packets."""

RESPITE = 0.1
"""Seconds for which room is not looked for again where there was none."""

RESIST = 5.0
"""Seconds for which nothing is removed after several segments in a row would not be."""

STUCK = 60.0
"""Seconds after which it is tried again to remove what would not be."""

LEARNED = 600.0
"""Seconds for which a disk that took less than it promised, for a quota say, is not asked for more."""

MARGIN = 1024 * 1024
"""Bytes by which the disk must leave more than the budget to count as no longer low: sizes on disk are rounded."""

FULL = (errno.ENOSPC, errno.EDQUOT)
"""What a disk says that takes no more."""

_PATIENT = 3
_TOLD = 64  # characters of a reason, in the message of an event
_MOST_TOLD = 1000


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
        self._limits = limits
        self._report = report
        self._clock = clock
        self._told_closed = closed
        self._pins = Watch(directory, report)
        self._closed: list[Stored] = []  # oldest first
        self._closed_bytes = 0
        self._waiting: dict[tuple[int, str], Stored] = {}  # those without an index
        self._waiting_bytes = 0
        self._open: dict[Path, int] = {}
        self._tails: dict[Path, tuple[Path, int]] = {}  # by segment: the index of its open form
        self._unnamed: list[tuple[Path, int, int, Account | None, Hold | None]] = []  # complete, but not renamed
        self._looking: Iterator[Stored | None] | None = None
        self._told_unreadable: set[str] = set()
        self._disk_low = False
        self._broken: set[str] = set()
        self._barren_until = 0.0
        self._stuck: list[Stored] = []  # would not be removed: counted, and left alone for a while
        self._told_stuck: set[Path] = set()
        self._unstick_at = 0.0
        self._refusals = 0
        self._resting_until = 0.0
        self._doubted = False  # the disk said it was full when it was not
        self._learned: int | None = None
        self._forget_at = 0.0
        #: Bytes of the budget that are others' to write, and how many of these they have on the disk by now.
        self.lent = self.lent_used = 0

    @property
    def bytes(self) -> int:
        """Bytes of all segments, open ones included."""
        return (
            self._closed_bytes
            + sum(self._open.values())
            + sum(size for _, size in self._tails.values())
            + sum(size for _, _, size, _, _ in self._unnamed)
        )

    @property
    def _claimed(self) -> int:
        """Bytes of all segments, and what the indexes that are to come may take: somebody else writes them."""
        return self.bytes + self.lent + (self._waiting_bytes + sum(self._open.values())) // INDEX_SHARE

    @property
    def state(self) -> str:
        """``ok``, or ``pruning`` while the file system leaves less room than the budget."""
        return "pruning" if self._disk_low else "ok"

    @property
    def oldest(self) -> int | None:
        """When the oldest closed segment begins, in nanoseconds since the epoch."""
        return self._closed[0].begin if self._closed else None

    @property
    def unindexed(self) -> int:
        """How many closed segments have no index yet."""
        return len(self._waiting)

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
            for segment in adoption.adopt(self._directory, self._report_once):
                self._add(segment)
                self._closed_bytes += segment.size
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
        if self._looking is None or anew:
            self._looking = adoption.discover(self._directory, self._knows, self._report_once)
        for segment in self._looking:
            if segment is not None and not self._knows(segment.begin, segment.interface):
                self._welcome(segment)
            if time.monotonic() >= until:
                return False
        self._looking = None
        return True

    def _knows(self, begin: int, interface: str) -> bool:
        """Whether this closed segment is counted."""
        place = bisect_left(self._closed, (begin, interface), key=lambda segment: (segment.begin, segment.interface))
        found = self._closed[place : place + 1] + self._stuck
        return any((segment.begin, segment.interface) == (begin, interface) for segment in found)

    def _report_once(self, kind: str, message: str) -> None:
        """Report what is looked at again and again, and stays as it is."""
        if kind == "segment_unreadable":
            if message in self._told_unreadable or len(self._told_unreadable) >= _MOST_TOLD:
                return
            self._told_unreadable.add(message)
        self._report(kind, message)

    def welcome(self, name: str) -> None:
        """Take over one segment that another process has closed: ``INTERFACE/NAME``."""
        interface, _, file = name.partition("/")
        parsed = parse_name(file)
        size = _size(self._directory / interface / file) if parsed and valid_interface(interface) else None
        if parsed is None or size is None:
            return
        beside = _size((self._directory / interface / file).with_suffix(ACCOUNT)) or 0
        end = max(parsed[0], self._clock())
        segment = Stored(parsed[0], interface, end, size + beside, indexed=False)
        if not self._knows(parsed[0], interface):
            self._welcome(segment)

    def _welcome(self, segment: Stored) -> None:
        self._add(segment)
        self._closed_bytes += segment.size
        self._told_closed()

    def part(self, interface: str, now: int) -> Path:
        """Where a new segment is to be written; its directory exists. Raises ``OSError``."""
        directory = self._directory / interface
        directory.mkdir(mode=0o750, exist_ok=True)
        return directory / segment_name(now, OPEN)

    def grow(self, part: Path, size: int) -> None:
        """An open segment has this size now."""
        self._open[part] = size

    def keep(self, part: Path, begin: int, size: int, record: Account | None = None, hold: Hold | None = None) -> Path:
        """An open segment is complete: store its account, and give it its name, which tells others that it is.

        It is held by ``hold`` until it has it.
        Raises ``OSError`` when that fails; it is tried again until it succeeds. An account that the disk does not take
        is reported, and missing.
        """
        self._open.pop(part, None)
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
        if (tail := self._tails.pop(part, None)) is not None:
            self._tails[done.path] = tail
        end = max(done.begin, self._clock())
        self._add(Stored(done.begin, part.parent.name, end, size + beside, indexed=False))
        self._closed_bytes += size + beside
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
        part.unlink(missing_ok=True)
        self._drop_tail(part)

    def tend(self) -> None:
        """What is due once a second: pins, indexes, segments that have become too old, and the room on the disk."""
        now = self._clock()
        if self._pins.look(now):
            self._barren_until = 0.0
        self._finish()
        for part in self._open:
            self._tails[part] = (tail := part.with_suffix(TAIL)), _size(tail) or 0
        self._look_for_indexes()
        clock = time.monotonic()
        if self._learned is not None and clock >= self._forget_at:
            self._learned = None
        if self._stuck and clock >= self._unstick_at:
            stuck, self._stuck = self._stuck, []
            for segment in stuck:
                self._add(segment)
        self._free(0, 0)
        current = self._room(0)
        if self._disk_low and self._learned is None and current.disk > current.budget + MARGIN:
            self._disk_low = False
            self._report("storage_enough", f"{current.disk} more bytes fit on the disk: the budget is the limit again")

    def make_room(self, want: int, unflushed: int = 0) -> int:
        """Remove segments until ``want`` bytes may be written; returns how many may, which can be fewer.

        What may be written is what is left of the budget, and no more than the disk may be filled by once it took the
        ``unflushed`` bytes that open segments have grown by and not handed over yet.
        """
        if self._room(unflushed).bytes < want and time.monotonic() >= self._barren_until:
            self._free(want, unflushed)
        return max(0, self._room(unflushed).bytes)

    def _free(self, want: int, unflushed: int) -> None:
        """Remove what has to go for ``want`` bytes."""
        for _ in range(_PATIENT):  # others go instead of those that will not be removed
            if time.monotonic() < self._resting_until:
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
        before = self._closed_bytes
        self._free(self._room(0).bytes + need, 0)
        return self._closed_bytes < before

    def squeeze(self, error: OSError, want: int) -> bool:
        """The disk would not take what it promised. Make room, and do not rely on that promise for a while.

        Returns whether any went, so that it makes sense to try again at once.
        """
        if error.errno not in FULL:
            return False
        promised = self._room(0).bytes >= want
        if promised and (self._doubted or error.errno == errno.EDQUOT):  # a quota, or no more inodes
            # What is lent was made room for when this was learned, and need not be again.
            known = self.bytes if self._learned is None or not self.lent else self._learned
            self._learned = max(0, known - want)
            self._forget_at = time.monotonic() + LEARNED
            self._low(f"{error.strerror}: for a while no more than {self._learned} bytes are stored")
        self._doubted = promised
        return self.prune(want)

    def obstacle(self) -> OSError:
        """Why there is no room for a packet, as an error."""
        disk = self._disk()
        current = self._room(0)
        if current.disk < current.budget:
            floor = reserve(self._limits, disk)
            text = f"No space left on device: {disk.free} bytes are free" + (
                f", and {floor} are to stay so" if floor else ""
            )
        else:
            text = f"the budget of {self._limits.budget} bytes is used up"
        waiting = len(self._waiting)
        if waiting:
            text += f"; {waiting} segment{' waits for its' if waiting == 1 else 's wait for their'} index"
        elif self._stuck:
            text += f"; {len(self._stuck)} segment{'' if len(self._stuck) == 1 else 's'} cannot be removed"
        return OSError(errno.ENOSPC, text)

    def _plan(self, want: int, unflushed: int) -> Plan:
        disk = self._disk()
        return plan(
            self._closed,
            self._effective(),
            self._left(disk, unflushed),
            self._claimed,
            want,
            self._clock(),
            lambda segment: self._pins.ranges.touch(segment.begin, segment.end),
        )

    def _room(self, unflushed: int) -> Room:
        disk = self._disk()
        return room(self._effective(), self._left(disk, unflushed), self._claimed)

    def _left(self, disk: Disk, unflushed: int) -> Disk:
        """The disk once it took what open segments have not handed over yet, and what is lent and not used."""
        free = disk.free - unflushed
        return disk._replace(
            free=free - owed(self._limits, disk._replace(free=free), self.bytes, self.lent, self.lent_used)
        )

    def _effective(self) -> Limits:
        if self._learned is None:
            return self._limits
        return self._limits._replace(budget=min(self._limits.budget, self._learned))

    def _execute(self, found: Plan) -> bool:
        """Remove what is to go; returns whether all of it did."""
        disk, current = self._disk(), self._room(0)
        if found.going and current.disk < current.budget:
            self._low(
                f"{disk.free} of {disk.total} bytes are free on disk, {reserve(self._limits, disk)} are to stay so: "
                "the oldest segments go before the budget is used"
            )
        for segment in found.broken:
            self._tell_broken(segment)
        return all(self._remove(segment) for segment in [*found.aged, *found.going, *found.broken])

    def _low(self, message: str) -> None:
        if not self._disk_low:
            self._disk_low = True
            self._report("storage_low", message)

    def _tell_broken(self, segment: Stored) -> None:
        for pin in self._pins.ranges.touching(segment.begin, segment.end):
            if pin.id not in self._broken:
                self._broken.add(pin.id)
                reason = f" ({pin.reason[:_TOLD]})" if pin.reason else ""
                self._report("pin_broken", f"pin {pin.id}{reason}: its oldest packets go, for nothing else is left to")

    def _remove(self, segment: Stored) -> bool:
        """The packets go first: what is left behind by a kill in between is no segment, and cleared away at the start.

        (The other way round it would be one without an index, and stay for ever.)
        """
        if time.monotonic() < self._resting_until:
            return False
        path = self._path(segment)
        refusal: OSError | None = None
        try:
            path.unlink(missing_ok=True)
            for suffix in (INDEX, ACCOUNT):
                path.with_suffix(suffix).unlink(missing_ok=True)
        except OSError as error:
            refusal = error
        del self._closed[bisect_left(self._closed, segment)]
        if refusal is not None:
            self._refuse(segment, path, refusal)
            return False
        self._refusals = 0
        self._closed_bytes -= segment.size
        return True

    def _refuse(self, segment: Stored, path: Path, error: OSError) -> None:
        """It goes on counting. Others may go yet; but where several will not, it is the disk, and not they."""
        if not self._stuck:
            self._unstick_at = time.monotonic() + STUCK
        self._stuck.append(segment)
        self._refusals += 1
        if path not in self._told_stuck and len(self._told_stuck) < _MOST_TOLD:
            self._told_stuck.add(path)
            self._report("segment_stuck", f"{path}: cannot be removed: {error.strerror}")
        if self._refusals >= _PATIENT:
            self._refusals = 0
            self._resting_until = time.monotonic() + RESIST

    def _finish(self) -> None:
        """Name what would not be named."""
        for entry in self._unnamed[:LOOKS]:
            part, begin, size, record, hold = entry
            try:
                self._name(part, begin, size, record)
            except FileNotFoundError:  # somebody has removed it
                pass
            except OSError:
                return
            if hold is not None:
                hold.release()
            self._unnamed.remove(entry)

    def _look_for_indexes(self) -> bool:
        """Take note of indexes that have appeared, of some segments at a time; returns whether there were any."""
        found = False
        for key, segment in list(islice(self._waiting.items(), LOOKS)):
            path = self._path(segment)
            del self._waiting[key]  # the others come first, next time
            size = _size(path.with_suffix(INDEX))  # an empty one says that none could be made
            if size is None:
                self._waiting[key] = segment
                continue
            found = True
            self._waiting_bytes -= segment.size
            self._drop_tail(path)
            self._closed[bisect_left(self._closed, segment)] = replace(segment, size=segment.size + size, indexed=True)
            self._closed_bytes += size
        if found:
            self._barren_until = 0.0
        return found

    def _drop_tail(self, path: Path) -> None:
        """What was the index of an open segment is of no use to anybody any more."""
        tail, _ = self._tails.pop(path, (None, 0))
        if tail is not None:
            with suppress(OSError):
                tail.unlink()

    def _add(self, segment: Stored) -> None:
        insort(self._closed, segment)
        if not segment.indexed:
            self._waiting[segment.begin, segment.interface] = segment
            self._waiting_bytes += segment.size

    def _path(self, segment: Stored) -> Path:
        return self._directory / segment.interface / segment_name(segment.begin, CLOSED)

    def _disk(self) -> Disk:
        """What an ordinary user may still write; without a limit when the file system does not say."""
        try:
            state = os.statvfs(self._directory)
        except OSError:
            return Disk(self._limits.budget, self._limits.budget)
        return Disk(state.f_bavail * state.f_frsize, state.f_blocks * state.f_frsize)


def _size(path: Path) -> int | None:
    """Bytes of a file; ``None`` when it is not there."""
    try:
        return path.stat().st_size
    except OSError:
        return None
