"""The interfaces of one capture service: those that are named, and those that match a pattern while they exist.

The kernel tells when an interface comes, goes or changes, and then all of them are looked at again. Where it does not,
they are looked at every few seconds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence

from agent.errors import AgentError, ConfigurationError
from agent.linux.links import LinkWatch, interface_names
from agent.workers.capture import selection
from agent.workers.capture.counters import Counters
from agent.workers.capture.expression_error import refusal
from agent.workers.capture.report import Part
from agent.workers.capture.settings import Settings
from agent.workers.capture.source import Source
from agent.workers.capture.store import Report, Store

#: Seconds between two looks at which interfaces there are, in case that the kernel does not tell.
LOOK = 5.0

#: Interfaces that are gone and whose counts go on when they come back; of more, those that went first are forgotten.
REMEMBERED = 256

#: Seconds from a change to looking: changes come by the dozen, as when a bridge is set up.
SETTLE = 0.02


class Interfaces:
    """``readable`` is called with a source that is due to be read. Iterates over the sources there are now."""

    def __init__(
        self,
        declared: Sequence[str],
        settings: Settings,
        store: Store,
        report: Report,
        readable: Callable[[Source], None],
    ) -> None:
        self._declared = declared
        self._settings = settings
        self._store = store
        self._report = report
        self._readable = readable
        self._sources: dict[str, Source] = {}
        self._fleeting: set[str] = set()  # those that a pattern matched
        self._gone: dict[str, Counters] = {}
        self._forgotten = Counters()
        self._left_out: frozenset[str] = frozenset()
        self._watch: LinkWatch | None = None
        self._look_at = 0.0
        self._settling = self._started = False

    def __iter__(self) -> Iterator[Source]:
        return iter(list(self._sources.values()))

    @property
    def names(self) -> list[str]:
        """What is captured now; the patterns while nothing is."""
        return list(self._sources) or selection.open_ended(self._declared)

    @property
    def waiting(self) -> list[str]:
        """What is declared and not there."""
        missing = [source.interface for source in self if source.waiting]
        return missing or ([] if self._sources else selection.open_ended(self._declared))

    @property
    def counters(self) -> Counters:
        """Of all interfaces since the start, those included that are gone."""
        return sum((source.counters for source in self), sum(self._gone.values(), self._forgotten))

    @property
    def storing(self) -> bool:
        """Whether the packets of all of them are written, as far as is known."""
        return all(source.writer.storing for source in self)

    def parts(self) -> dict[str, Part]:
        """Each interface there is now, by its name; how packets got through since this was asked last."""
        return {source.interface: Part(source.counters, source.flow(), source.waiting) for source in self}

    def start(self) -> None:
        """Open everything that is there. Raises ``ConfigurationError``, ``CaptureFailure``.

        What is named must exist; what a pattern matches may, and if some of it cannot be captured the others are.
        """
        try:
            self._watch = LinkWatch()
        except OSError as error:
            self._report("interfaces_polled", f"the kernel does not tell of interfaces: {error.strerror}; looking")
        else:
            asyncio.get_running_loop().add_reader(self._watch.fd, self._heed)
        for name in selection.named(self._declared):
            self._add(name).start()
        failures = self._look()
        self._started = True
        opened = any(not source.waiting for source in self)
        if failures and not opened:
            raise failures[0]
        if not opened and (wrong := refusal(self._settings.options.filter)) is not None:
            raise ConfigurationError(wrong)

    def tend(self) -> None:
        """Look at which interfaces there are, if it is time."""
        if time.monotonic() >= self._look_at:
            self._look()

    def next_duty(self, now: int) -> float:
        """Seconds from ``now``, nanoseconds since the epoch, until something is due."""
        return min(
            max(0.0, self._look_at - time.monotonic()),
            *(source.next_duty(now) for source in self),
            LOOK,
        )

    async def stop(self) -> None:
        """Complete all segments. Raises what went wrong first, when all are done."""
        self.ignore()
        ends = await asyncio.gather(*(source.stop() for source in self), return_exceptions=True)
        for end in ends:
            if end is not None:
                raise end

    def ignore(self) -> None:
        """Look for no more interfaces."""
        if self._watch is not None:
            asyncio.get_running_loop().remove_reader(self._watch.fd)
            self._watch.close()
            self._watch = None

    def _heed(self) -> None:
        if self._watch is not None and self._watch.heed() and not self._settling:
            self._settling = True
            asyncio.get_running_loop().call_later(SETTLE, self._settled)

    def _settled(self) -> None:
        self._settling = False
        if self._watch is not None:
            for source in self:
                source.wake()
            self._look()
            now = time.time_ns()
            for source in self:
                source.tend(now)

    def _look(self) -> list[AgentError]:
        """Begin with what has come and forget what is gone; returns why something that is there cannot be captured."""
        self._look_at = time.monotonic() + LOOK
        if not selection.open_ended(self._declared):
            return []
        present = interface_names()
        for name in self._fleeting - set(present):
            if self._sources[name].idle:
                self._forget(name)
        failures: list[AgentError] = []
        new = [name for name in selection.matched(self._declared, present) if name not in self._sources]
        room = self._settings.most - len(self._sources)
        self._tell_left_out(frozenset(new[room:]) if room < len(new) else frozenset())
        for name in new[: max(0, room)]:
            source = self._add(name)
            self._fleeting.add(name)
            try:
                source.start()
            except AgentError as error:
                source.start_later(error)
                failures.append(error)
            else:
                if self._started and not source.waiting:
                    self._report("interface_found", f"{name}: matches a pattern, and is captured from now on")
        self._cut()
        return failures

    def _forget(self, name: str) -> None:
        self._fleeting.discard(name)
        self._gone[name] = self._sources.pop(name).counters
        while len(self._gone) > REMEMBERED:
            self._forgotten += self._gone.pop(next(iter(self._gone)))

    def _add(self, name: str) -> Source:
        source = Source(
            name,
            self._settings.options,
            self._settings.cut(len(self._sources) + 1),
            self._store,
            self._report,
            self._readable,
            self._gone.pop(name, Counters()),
        )
        self._sources[name] = source
        self._cut()
        return source

    def _cut(self) -> None:
        """What is open at once shares the budget."""
        cut = self._settings.cut(max(1, len(self._sources)))
        for source in self:
            source.writer.cut = cut

    def _tell_left_out(self, names: frozenset[str]) -> None:
        if names and not names <= self._left_out:
            few = ", ".join(sorted(names)[:3])
            self._report(
                "interfaces_left_out",
                f"more interfaces match than the {self._settings.most} that are captured at once, with this budget: "
                f"{len(names)} are left out, such as {few}",
            )
        self._left_out = names
