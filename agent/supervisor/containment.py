"""All processes of one run, whatever they did to get away: found, signalled and waited for.

Two ways, one shape. With a delegated cgroup the kernel itself keeps the list. Without one, the agent is the subreaper
of everything it started, and a sweep finds session members, descendants, and escaped orphans by the mark in their
environment or by the log pipe they still hold.

Both look anew each time the kernel says that something changed. When descriptors have run out they cannot look, and
then they neither guess nor give up: they try again a moment later.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Protocol

import msgspec

from agent.linux.cgroup import Cgroup
from agent.linux.process import Identity, Pidfd, Relation, identify
from agent.linux.sweep import members, signal_all

RESCAN = 0.05
"""Seconds after which we look again at what the kernel cannot announce."""

WATCHED = 8
"""Processes whose end a sweep waits for at a time: when one of them ends it looks at all of them again."""


class Held(msgspec.Struct, frozen=True):
    """A run's containment between two programs: what was known beyond what the kernel tells anybody who asks."""

    oom_kills: int = 0
    seen: tuple[Identity, ...] = ()
    killing: bool = False


class Containment(Protocol):
    """What a run needs to end everything that belongs to it."""

    def adopt(self, main: Identity, pipes: set[int]) -> None:
        """``main`` was started in here; its output goes to the pipes with these inode numbers."""

    def cgroup(self) -> int | None:
        """The open directory of the cgroup in which a child is to be born, if there is one. Raises ``OSError``."""

    def pids(self, relatives: Relation | None = None) -> list[int]:
        """Every process in here now. Raises ``OSError`` when descriptors run out.

        ``relatives`` is who is whose child, for who asks many in a row.
        """

    def signal(self, number: int) -> int:
        """Signal every process, and continue those that are stopped so that they can act on it.

        Returns how many were reached. Raises ``OSError`` when descriptors run out.
        """

    def kill(self) -> None:
        """SIGKILL for every process now, and for those that turn up until nothing is left."""

    def out_of_memory(self) -> bool:
        """Whether the kernel killed a process in here because a memory limit was reached."""

    def when_gone(self, callback: Callable[[], None]) -> None:
        """Call back, once, when no process is left: at once when that is so already."""

    def freeze(self) -> Held:
        """What another program in this process needs, to go on with it."""

    def close(self) -> None:
        """Let go of every descriptor; no callback comes afterwards."""


class CgroupContainment:
    """One cgroup for the service; nothing escapes from it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, cgroup: Cgroup, held: Held | None = None) -> None:
        self._loop = loop
        self._cgroup = cgroup
        self._callback: Callable[[], None] | None = None
        self._watched: int | None = None
        self._again: asyncio.TimerHandle | None = None
        self._oom_kills = cgroup.events()["oom_kill"] if held is None else held.oom_kills

    def adopt(self, main: Identity, pipes: set[int]) -> None:
        """The kernel knows already."""

    def cgroup(self) -> int:
        return self._cgroup.fd()

    def pids(self, relatives: Relation | None = None) -> list[int]:
        return self._cgroup.pids()

    def signal(self, number: int) -> int:
        reached = self._cgroup.signal(number)
        if number not in (signal.SIGKILL, signal.SIGCONT):
            self._cgroup.signal(signal.SIGCONT)
        return reached

    def kill(self) -> None:
        with suppress(OSError):
            if not self._cgroup.populated():
                return  # the usual case, and quicker told than done
        self._cgroup.kill()

    def out_of_memory(self) -> bool:
        return self._cgroup.events()["oom_kill"] > self._oom_kills

    def when_gone(self, callback: Callable[[], None]) -> None:
        self._callback = callback
        self._look()

    def _look(self) -> None:
        if self._again is not None:
            self._again.cancel()
            self._again = None
        try:
            self._cgroup.drain_watch()
            populated = self._cgroup.populated()
            if populated and self._watched is None:
                # Only if need be: to close an inotify descriptor takes the kernel 10 to 20 ms.
                self._watched = self._cgroup.watch_fd()
                self._loop.add_reader(self._watched, self._look)
                populated = self._cgroup.populated()
        except OSError:
            # Also when the user has no inotify instance left: there are 128 by default.
            self._again = self._loop.call_later(RESCAN, self._look)
            return
        if self._callback is not None and not populated:
            callback, self._callback = self._callback, None
            callback()

    def freeze(self) -> Held:
        return Held(oom_kills=self._oom_kills)

    def close(self) -> None:
        self._callback = None
        if self._again is not None:
            self._again.cancel()
        if self._watched is not None:
            self._loop.remove_reader(self._watched)
            self._watched = None
        self._cgroup.close()


class SweepContainment:
    """No cgroup: session, descendants and marks, seen again each time one of them ends."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        mark: str,
        others: Callable[[], Collection[int]] = frozenset,
        held: Held | None = None,
    ) -> None:
        """``others`` tells the PIDs of all workers: the families of the others need not be looked at."""
        self._loop = loop
        self._mark = mark
        self._others = others
        self._main: Identity | None = None
        self._pipes: set[int] = set()
        self._seen: set[Identity] = set(held.seen) if held else set()
        self._callback: Callable[[], None] | None = None
        self._killing = held.killing if held else False
        self._waiting: list[Pidfd] = []
        self._again: asyncio.TimerHandle | None = None

    def adopt(self, main: Identity, pipes: set[int]) -> None:
        self._main = main
        self._pipes = pipes

    def cgroup(self) -> None:
        return None

    def _members(self, relatives: Relation | None = None) -> list[Identity]:
        sid = self._main.pid if self._main else 0
        others = {*self._others()} - {sid}
        found = members(self._main, sid, self._mark, self._pipes, seen=self._seen, others=others, relatives=relatives)
        # Who was seen below the worker stays the service's, even if it sheds every sign before the next look: also who
        # is missing now, as long as it is there, because it may have changed its parent while we looked.
        self._seen = {*found, *(one for one in self._seen.difference(found) if identify(one.pid) == one)}
        return found

    def pids(self, relatives: Relation | None = None) -> list[int]:
        return [member.pid for member in self._members(relatives)]

    def signal(self, number: int) -> int:
        found = self._members()
        reached = signal_all(found, number)
        if number not in (signal.SIGKILL, signal.SIGCONT):
            signal_all(found, signal.SIGCONT)
        return reached

    def kill(self) -> None:
        self._killing = True
        self._look()

    def out_of_memory(self) -> bool:
        return False

    def when_gone(self, callback: Callable[[], None]) -> None:
        self._callback = callback
        self._look()

    def _look(self) -> None:
        self._release()
        try:
            found = self._members()
            if self._killing:
                signal_all(found, signal.SIGKILL)
            if self._callback is not None:
                self._watch(found[:WATCHED])
        except OSError:
            self._release()
            self._again = self._loop.call_later(RESCAN, self._look)
            return
        if self._callback is not None and not found:
            callback, self._callback = self._callback, None
            callback()
        elif self._callback is not None and not self._waiting:
            self._again = self._loop.call_later(RESCAN, self._look)

    def _watch(self, some: list[Identity]) -> None:
        for identity in some:
            pidfd = Pidfd.open_verified(identity)
            if pidfd is not None:
                self._waiting.append(pidfd)
                self._loop.add_reader(pidfd.fd, self._look)

    def _release(self) -> None:
        for pidfd in self._waiting:
            self._loop.remove_reader(pidfd.fd)
            pidfd.close()
        self._waiting.clear()
        if self._again is not None:
            self._again.cancel()
            self._again = None

    def freeze(self) -> Held:
        return Held(seen=tuple(self._seen), killing=self._killing)

    def close(self) -> None:
        self._callback = None
        self._release()
