"""The answer of one or more stores to a question: packets in order of time, up to the limits that were set."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from agent.linux.users import Credentials
from agent.workers.capture.account import Account
from agent.workers.capture.savefile import link_type, parse_header
from agent.workers.capture.timely import ALWAYS
from agent.workers.retrieval.merge import Run, merge
from agent.workers.retrieval.search import Batch, Piece, Search, Stretch
from agent.workers.retrieval.snapshot import Source, snapshot


class Limits(NamedTuple):
    """When to stop: after so many packets, bytes captured of them, seconds. ``None`` for no limit."""

    packets: int | None = None
    octets: int | None = None
    seconds: float | None = None


UNLIMITED = Limits()


class Answer:
    """The packets that ``expression`` means in these stores, of these interfaces (all when none is named), and when.

    ``packets`` and ``octets`` (as captured) count what was given; ``stopped`` says which limit ended it, if one did,
    and ``reached`` is up to when it is complete then: nanoseconds since the epoch, ``None`` when nothing was looked at.
    A segment is not opened before its time has come, so that whoever has to stop has something to give.
    ``users``: with whose eyes root looks into which store.
    Raises ``UsageError`` when libpcap refuses the expression, ``StorageFailure`` when a store cannot be read.
    """

    def __init__(
        self,
        stores: list[Path],
        expression: str,
        *,
        interfaces: tuple[str, ...] = (),
        within: tuple[int, int] = ALWAYS,
        limits: Limits = UNLIMITED,
        users: Mapping[Path, Credentials | None] = MappingProxyType({}),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._deadline = None if limits.seconds is None else clock() + limits.seconds
        self._search = Search(expression, within)
        self.packets = 0
        self.octets = 0
        self.stopped: str | None = None
        self.reached: int | None = None
        self._sources = sorted(
            (source for store in stores for source in snapshot(store, within, interfaces, users.get(store))),
            key=lambda source: (source.segment.begin, source.service, source.interface),
        )
        self._search.check(self._sources)
        self._concerned: list[Source] = []
        self._parts: list[Stretch | Piece] = [
            Stretch(source.first, ALWAYS[1], source, partial(self._parts_of, source)) for source in self._sources
        ]

    @property
    def notes(self) -> list[str]:
        """Lines about what could not be read."""
        return self._search.notes

    @property
    def read(self) -> int:
        """Bytes of segments that were read."""
        return self._search.read

    def sources(self) -> list[Source]:
        """The segments that have packets of the time that was asked for, as far as has been looked."""
        return self._concerned

    def link_types(self) -> dict[str, int]:
        """The interfaces and what their packets begin with: pcap-linktype(7). To be asked before ``runs``."""
        found = self._link_types(self._sources)
        if len(set(found.values())) > 1:  # some of these may have no packet of that time, which takes a look
            self._parts = [part for source in self._sources for part in self._parts_of(source)]
            found = self._link_types(self._concerned)
        return found

    def _link_types(self, sources: list[Source]) -> dict[str, int]:
        found = {}
        for source in sources:
            if not source.header:
                with suppress(OSError):
                    self._search.opened(source)
            if form := parse_header(source.header):
                found[source.interface] = link_type(form, source.header)
        return found

    def runs(self) -> Iterator[Run]:
        """The packets, in runs. Once."""
        for run in merge(self._parts, self._batch):
            end = self._allowed(run)
            if end > run.begin:
                self.packets += end - run.begin
                self._reach(run.batch.times[end - 1])
                yield run._replace(end=end)
            if self.stopped:
                return

    def _parts_of(self, source: Source) -> list[Stretch | Piece]:
        if self._late():
            return []
        parts = list(self._search.stretches(source))
        source.shut()
        if parts:
            self._concerned.append(source)
        return parts

    def _batch(self, piece: Piece) -> Batch | None:
        if self._late():
            return None
        self._reach(piece.first)
        return self._search.batch(piece)

    def _reach(self, instant: int) -> None:
        self.reached = max(instant, self.reached or 0)

    def _late(self) -> bool:
        if self._deadline is not None and self._clock() > self._deadline:
            self.stopped = "time"
        return self.stopped is not None

    def _allowed(self, run: Run) -> int:
        """Up to which packet of a run the limits go."""
        if self._late():
            return run.begin
        end = run.end
        if self._limits.packets is not None and end - run.begin > (left := self._limits.packets - self.packets):
            end = run.begin + left
            self.stopped = "packets"
        for number in range(run.begin, end):
            size = run.batch.captured(number)
            if self._limits.octets is not None and self.octets + size > self._limits.octets:
                self.stopped = "bytes"
                return number
            self.octets += size
        return end

    def close(self) -> None:
        """Let go of all files."""
        for source in self._sources:
            source.close()


def accounts(sources: list[Source]) -> dict[tuple[str, str], list[Account]]:
    """The accounts of segments by service and interface; an open segment has none yet."""
    found: dict[tuple[str, str], list[Account]] = {}
    for source in sources:
        told = source.account()
        found.setdefault((source.service, source.interface), []).extend([told] if told else [])
    return found
