"""Phase 2 within a run: the hosts that were swept are identified and stored, and silent ports put under quarantine."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Iterator, Sequence
from itertools import islice
from typing import Final

from agent.workers.scan.allowed import Allowed
from agent.workers.scan.asking import Leave, Redo
from agent.workers.scan.budget import Limits
from agent.workers.scan.budget_file import Budget
from agent.workers.scan.figures import Figures
from agent.workers.scan.found import Host
from agent.workers.scan.identify import SLOW_HOSTS, Identification, Want
from agent.workers.scan.knowledge import Due, Identified
from agent.workers.scan.memory.reading import Quarantined
from agent.workers.scan.notebook import Notebook
from agent.workers.scan.program import Program
from agent.workers.scan.results import document
from agent.workers.scan.store import DETECTED, SWEPT, Run, ScanStore

Quarantine = dict[tuple[str, str, int], Quarantined]

_AT_HAND: Final = 256  # hosts that are read from the database at once
_BATCH: Final = 512  # connections that are paid for at once


class Identifying:
    """Identifies what listens on the open ports of all hosts of a run that were swept and no more.

    Made when the run begins or is continued; told of what is ``swept`` since, and at last to ``finish``.
    """

    def __init__(
        self,
        store: ScanStore,
        run: Run,
        want: Want,
        program: Program,
        *,
        silent_again: float,
        figures: Figures,
        leave: Leave,
        notes: Notebook,
        turn: Callable[[], None],
        turn_every: float,
    ) -> None:
        """``silent_again`` is how many seconds pass until a port that said nothing is asked at length again."""
        self._store = store
        self._run = run
        self._silent_again = silent_again
        self._figures = figures
        self._turn = turn
        self._quarantine: Quarantine = {(one.address, one.protocol, one.number): one for one in store.silent()}
        self._began = time.time()
        self._backlog: deque[Host] = deque()
        self._unread = True
        figures.waiting = sum(1 for _ in self._waiting())
        self._identification = Identification(
            self._next,
            want,
            program,
            on_host=self._keep,
            clock=self._clock,
            leave=leave,
            notes=notes,
            slow=store.longest_silent(SLOW_HOSTS, self._began),
            turn=self._tell,
            turn_every=turn_every,
        )

    def swept(self, hosts: int) -> None:
        """So many hosts more were swept and are stored."""
        self._figures.waiting += hosts
        self._unread = True
        self._identification.more()

    def finish(self) -> None:
        """Nothing more will be swept."""
        self._identification.finish()

    async def run(self) -> None:
        """Go on until it is to finish and has. Raises what ``Identification.run`` and the store raise; what was
        learned by then is stored."""
        await self._identification.run()
        self._tell()

    def _waiting(self) -> Iterator[Host]:
        # Those that were discovered and not swept yet are not at that: a host is identified once.
        return (host for host in self._store.waiting(self._run, DETECTED) if host.ports or host.rest)

    def _next(self, most: int, underway: Collection[str]) -> Sequence[Host]:
        if not self._backlog and self._unread:
            hosts = (host for host in self._waiting() if host.address not in underway)
            self._backlog.extend(islice(hosts, _AT_HAND))
            self._unread = len(self._backlog) == _AT_HAND
        return [self._backlog.popleft() for _ in range(min(most, len(self._backlog)))]

    def _clock(self, address: str, protocol: str, number: int) -> Due:
        one = self._quarantine.get((address, protocol, number))
        return "new" if one is None else "due" if one.next_try <= self._began else "held"

    def _keep(self, found: Identified) -> None:
        raw = document(found.raw, self._figures.nmap_version) if found.raw else b""
        stage = DETECTED if found.complete else SWEPT
        self._store.store(self._run, [found.host], time.time(), stage=stage, raw=raw)
        if found.complete:
            _hold(self._store, found, self._quarantine, time.time(), self._silent_again)
            self._figures.waiting -= 1

    def _tell(self) -> None:
        self._figures.learning(self._identification.progress)
        self._turn()


def permit_of(budget: Budget, allowed: Allowed) -> Callable[[str], Coroutine[None, None, None]]:
    """Waits until a connection may be made to an address. Raises ``ScanFailure`` when it must never be."""

    async def permit(address: str) -> None:
        allowed.check([address])
        share = budget.of([address])
        while not (granted := share.take([0])).positions:
            await asyncio.sleep(max(0.001, min(0.2, granted.again - time.monotonic())))

    return permit


def beforehand(limits: Limits, addresses: int, each: int) -> int:
    """How many of ``each`` connections to so many addresses are paid for before any is made. Pure.

    One at least, so that nothing begins while another has not paid off what it made. The others are made on credit,
    which keeps all others away for a second at most, by any of the limits: so in any ``t`` seconds there are no more
    connections to anybody than ``rate x t`` and those of one run.
    """
    common = min(limits.network, limits.host)
    return min(each, max(1, each - limits.target, each - common // addresses))


def pay_of(budget: Budget) -> Callable[[Sequence[str], int], Coroutine[None, None, None]]:
    """Waits until nmap may make so many connections to each of some addresses, and pays for them."""

    async def pay(addresses: Sequence[str], each: int) -> None:
        share = budget.of(addresses)
        everybody = range(len(addresses))
        before = beforehand(budget.limits, len(addresses), each)
        for _ in range(before):
            owed = list(everybody)
            while owed:
                granted = share.take(owed[:_BATCH])
                paid = set(granted.positions)
                owed = [place for at, place in enumerate(owed) if at not in paid]
                if owed:
                    await asyncio.sleep(max(0.001, min(0.2, granted.again - time.monotonic())))
        share.charge(everybody, each - before)

    return pay


def leave_of(budget: Budget, allowed: Allowed, redo: Redo) -> Leave:
    """Who phase 2 asks before it sends anything."""
    return Leave(permit_of(budget, allowed), pay_of(budget), allowed.check, redo, budget.limits.target)


def _hold(store: ScanStore, found: Identified, known: Quarantine, now: float, silent_again: float) -> None:
    """Whoever said nothing is asked at length once in a long while; who spoke is free."""
    address = found.host.address
    held = {(address, one.protocol, one.number): one for one in found.held}
    ports = []
    for key, one in held.items():
        old = known.get(key)
        if old is None:
            ports.append(Quarantined(*key, now, int(one.tried), now + silent_again))
        elif one.tried:
            ports.append(Quarantined(*key, old.since, old.tries + 1, now + silent_again))
    heard = [key for key in known if key[0] == address and key not in held and key[1:] not in found.before]
    if ports or heard:
        store.silence(ports, heard)
