"""One budget for all scans of this agent: the slots of ``agent.workers.scan.budget`` in a file that they all map.

The agent opens ``run/scan.budget`` for each scan that it starts, and hands the descriptor on (``SERVICE_BUDGET_FD``):
so the file is the agent's alone, mode 0600, and a scan that runs as another user takes part all the same. Each has an
open file description of its own, on which it holds flock(2) while it looks and pays, for some hundred microseconds, and
never while it waits. The kernel lets go of the lock of a process that dies, and what it had paid for by then is only
time: nobody else has to put anything in order.

Instants are CLOCK_MONOTONIC, which all processes of a boot have in common: a file of another boot is begun anew. So is
one that is damaged or no such file, which is told once. Where there is no file, a scan keeps to its budget alone.

Layout, in the byte order of the host: ``_HEADER`` (magic, version, number of slots, boot id), at ``_MEMBERS_AT`` one
row of numbers for each scan at work, at ``_SLOTS_AT`` the slots.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import re
import secrets
import stat
import struct
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from ipaddress import ip_address
from typing import NamedTuple
from uuid import UUID

from agent.linux.files import flock_holder
from agent.linux.process import boot_id
from agent.paths import BUDGET_VARIABLE
from agent.workers.scan import budget
from agent.workers.scan.budget import SECOND, SLOTS, Claim, Limits, Places, Rules

_HEADER = struct.Struct("=8sII16s")
_MAGIC, _VERSION = b"agtscanb", 1
_MEMBERS_AT, _SLOTS_AT = 64, 4096
_MEMBERS, _FIELDS = 64, 6
_OWNER, _SEEN, _SLOT, _SINCE, _UNTIL, _STEADY = range(_FIELDS)
"""Of a row: whose it is (0: nobody's), when it was seen last, its claim, and the rate of what it has started."""

_ROWS = range(0, _MEMBERS * _FIELDS, _FIELDS)

SIZE = _SLOTS_AT + SLOTS * 8

GONE = 10 * SECOND
"""Whoever has not been seen for so long is gone."""

TRIES, PAUSE = 10, 0.0002
"""How often the lock is tried for, and seconds in between. It is never waited for: its holder may have been stopped."""
BEGINNING = 500
"""How often who begins does that, for a second at most. Whoever does not take part is bound by no common limit."""
BUSY = SECOND // 500
"""After so long somebody comes back who did not get the lock."""
HELD_TOO_LONG = 5 * SECOND


class Granted(NamedTuple):
    """``positions`` of those among the asked that may be sent now, in order. ``again``: when to ask for the others, in
    seconds of the monotonic clock."""

    positions: list[int]
    again: float


class Budget:
    """This process's part in the file. Not for use by several threads at once."""

    def __init__(
        self,
        fd: int | None,
        limits: Limits,
        told: Callable[[str], object],
        *,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """``fd`` is the file, open for reading and writing, and ours from now on; ``None``: there is none.

        ``told`` gets a line for the log when something is amiss. ``clock`` gives nanoseconds.
        """
        self.limits = limits
        self._rules = Rules.of(limits)
        self._told = told
        self._clock = clock
        self._fd = -1 if fd is None else fd
        self._me = secrets.randbits(62) + 1
        self._row = -1
        self._claim: Claim | None = None
        self._steady = 0
        self._busy_since: int | None = None
        self._begun_told = self._busy_told = False
        self._expected = _HEADER.pack(_MAGIC, _VERSION, SLOTS, UUID(boot_id()).bytes)
        if fd is not None:
            try:
                self._adopt()
            except OSError as error:
                self._part(error)
        self._map_it()

    def of(self, addresses: Iterable[str]) -> Share:
        """The budget for probes to these addresses, each known by where it stands in this row; zones are the same."""
        return Share(self, budget.places(ip_address(address.partition("%")[0]) for address in addresses))

    def reserve(self, rate: int, least: int = 1) -> int:
        """Up to ``rate`` probes per second for a program that cannot ask before it sends, such as nmap.

        Returns how many there are: not those of the host's that are reserved already, and 0 where fewer than ``least``
        are left. They are ours until ``release``, as long as this scan asks or charges at least every 10 seconds.
        """
        if not self._lock():
            return 0
        try:
            now = self._look()
            others = sum(
                self._members[row + _STEADY]
                for row in _ROWS
                if self._members[row + _OWNER] != self._me
                and not self._free(row, now)
                and self._members[row + _STEADY] > 0
            )
            granted = min(rate, self.limits.host - others - self._steady)
            if granted < least:
                return 0
            self._steady += granted
            self._note()
            return granted
        finally:
            self._unlock()

    def release(self, rate: int) -> None:
        """Give back what was reserved."""
        self._steady -= rate
        if self._lock():  # else the next who asks for anything writes it down
            try:
                self._look()
                self._note()
            finally:
                self._unlock()

    def close(self) -> None:
        """Let go of the file. Twice does no harm."""
        if self._map.closed:
            return
        if self._lock():
            self._look()
            if self._row >= 0:
                self._members[self._row + _OWNER] = 0
            self._unlock()
        self._unmap()
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def take(self, there: Places, asked: Sequence[int], packets: Sequence[int] = ()) -> Granted:
        """See ``Share.take``."""
        if not self._lock():
            return Granted([], (self._clock() + BUSY) / SECOND)
        try:
            now = self._look()
            yielding = budget.yielded(self._claims_of_others(now), self._claim, now)
            grant = budget.take(self._slots, self._rules, there, asked, now, yielding, packets)
            self._claim = budget.claim_after(self._claim, there, asked, grant, now)
            self._note()
            return Granted(grant.positions, grant.again / SECOND)
        finally:
            self._unlock()

    def charge(self, there: Places, sent: Sequence[int], each: int = 1) -> None:
        """See ``Share.charge``."""
        if self._lock():
            try:
                budget.charge(self._slots, self._rules, there, sent, self._look(), each)
            finally:
                self._unlock()

    def _map_it(self) -> None:
        """The file, or memory of our own."""
        self._map = mmap.mmap(self._fd, SIZE)
        self._view = memoryview(self._map)
        self._members = self._view[_MEMBERS_AT : _MEMBERS_AT + _MEMBERS * _FIELDS * 8].cast("q")
        self._slots = self._view[_SLOTS_AT:].cast("q")

    def _unmap(self) -> None:
        for view in (self._members, self._slots, self._view):
            view.release()
        self._map.close()

    def _part(self, error: OSError) -> None:
        """There is no common budget any more, because of this."""
        self._told(f"the budget of all scans cannot be used: {error.strerror}; this scan keeps to its own")
        fd, self._fd, self._row = self._fd, -1, -1
        with suppress(OSError):
            os.close(fd)

    def _adopt(self) -> None:
        """Begin the file if it is not. Raises ``OSError``."""
        os.set_inheritable(self._fd, False)
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            raise OSError(0, "it is no regular file")
        if not any(self._lock() for _ in range(BEGINNING)):
            raise OSError(0, "another process does not let go of it")
        try:
            if os.fstat(self._fd).st_size != SIZE or os.pread(self._fd, _HEADER.size, 0) != self._expected:
                self._begin()
        finally:
            self._unlock()

    def _begin(self) -> None:
        """Begin the file anew; whoever has it mapped goes on with it. With the lock. Raises ``OSError``."""
        head = os.pread(self._fd, _HEADER.size, 0)
        size = os.fstat(self._fd).st_size
        of_another_boot = size == SIZE and head[:16] == self._expected[:16] and head != self._expected
        if size and not of_another_boot and not self._begun_told:
            self._begun_told = True
            self._told("the budget of all scans was damaged, or another file: begun anew")
        # A mapping of what the disk has no room for ends in SIGBUS, mmap(2): so there is room, and it is never shorter.
        os.posix_fallocate(self._fd, 0, SIZE)
        os.ftruncate(self._fd, SIZE)
        os.pwrite(self._fd, self._expected.ljust(SIZE, b"\0"), 0)

    def _look(self) -> int:
        """See that the file is as it should be and that we have a row in it; returns the time. With the lock."""
        if self._fd >= 0:
            try:
                if os.fstat(self._fd).st_size != SIZE or self._view[: _HEADER.size] != self._expected:
                    self._begin()
            except OSError as error:
                self._unmap()
                self._part(error)
                self._map_it()
        now = self._clock()
        members = self._members
        if self._row < 0 or members[self._row + _OWNER] != self._me:
            self._row = next((row for row in _ROWS if self._free(row, now)), -1)
            if self._row >= 0:
                for field in range(_FIELDS):
                    members[self._row + field] = 0
                members[self._row + _OWNER] = self._me
        if self._row >= 0:
            members[self._row + _SEEN] = now
        return now

    def _free(self, row: int, now: int) -> bool:
        return self._members[row + _OWNER] == 0 or not 0 <= now - self._members[row + _SEEN] < GONE

    def _claims_of_others(self, now: int) -> list[Claim]:
        members = self._members
        return [
            Claim(members[row + _SLOT], members[row + _SINCE], members[row + _UNTIL])
            for row in _ROWS
            if members[row + _UNTIL] > now and members[row + _OWNER] not in (0, self._me)
        ]

    def _note(self) -> None:
        """Write down what we claim and have reserved."""
        if self._row >= 0:
            slot, since, until = self._claim or (0, 0, 0)
            self._members[self._row + _SLOT] = slot
            self._members[self._row + _SINCE] = since
            self._members[self._row + _UNTIL] = until
            self._members[self._row + _STEADY] = self._steady

    def _lock(self) -> bool:
        """Whether we have the lock. Whoever does not get it sends nothing for now."""
        if self._fd < 0:
            return True
        for attempt in range(TRIES):
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._busy_since = None
                return True
            except BlockingIOError:
                if attempt < TRIES - 1:
                    time.sleep(PAUSE)
        now = self._clock()
        self._busy_since = self._busy_since or now
        if now - self._busy_since > HELD_TOO_LONG and not self._busy_told:
            self._busy_told = True
            holder = flock_holder(self._fd)
            self._told(f"nothing is sent: process {holder or 'unknown'} does not let go of the budget of all scans")
        return False

    def _unlock(self) -> None:
        if self._fd >= 0:
            fcntl.flock(self._fd, fcntl.LOCK_UN)


class Share:
    """The budget for probes to a row of addresses."""

    def __init__(self, shared: Budget, there: Places) -> None:
        self._shared = shared
        self._there = there

    def take(self, asked: Sequence[int], packets: Sequence[int] = ()) -> Granted:
        """Which of these probes may be sent now, each named by where its address stands in the row; those are paid for.

        The first come first: what was refused before goes at the head, and a batch that is spread over targets gets the
        most. A batch is some hundred probes, asked for at least every 50 ms. Cheap: about 1 microsecond a probe.
        ``packets`` says of how many packets each is, when that is not one.
        """
        return self._shared.take(self._there, asked, packets)

    def charge(self, sent: Sequence[int], each: int = 1) -> None:
        """Pay for ``each`` probes to these that are sent without asking. Up to 2 seconds' worth is remembered."""
        self._shared.charge(self._there, sent, each)


def budget_of(environ: Mapping[str, str], limits: Limits, told: Callable[[str], object]) -> Budget:
    """The budget of the scan that this process is the worker of. Its descriptor is ours from then on."""
    number = environ.get(BUDGET_VARIABLE, "")
    if not re.fullmatch("[0-9]{1,6}", number):
        told("there is no budget of all scans: this scan keeps to its own")
        return Budget(None, limits, told)
    return Budget(int(number), limits, told)
