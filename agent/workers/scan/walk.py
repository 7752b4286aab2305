"""Through one run of a scan, chunk by chunk: who is there, which of their ports are open, what answers on those.

First it is asked who is there at all (``discover``); addresses that were named one by one are taken to be there in any
case. Their ports are swept (``sweeping``), beside that the open ones are identified (``identifying``), and at last what
differs from what was known is looked at once more (``again``). Each of these steps is stored when it is done, and what
is not stored yet can be continued: so a run that is killed loses next to nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from typing import Any

from agent.declaration.model import Scan
from agent.errors import ScanFailure
from agent.workers.runtime import Context
from agent.workers.scan.again import Lot, Within, look_again
from agent.workers.scan.budget_file import Budget
from agent.workers.scan.discover import discover
from agent.workers.scan.figures import Figures
from agent.workers.scan.found import Host
from agent.workers.scan.identify import Want, first
from agent.workers.scan.identifying import Identifying, leave_of
from agent.workers.scan.job import DISCOVERED_AT_ONCE, Job
from agent.workers.scan.memory.coverage import asked
from agent.workers.scan.notebook import Notebook
from agent.workers.scan.pausing import Gate
from agent.workers.scan.plan import Chunk, merge
from agent.workers.scan.results import document
from agent.workers.scan.steady import steadily
from agent.workers.scan.store import DETECTED, SWEPT, Run, ScanStore
from agent.workers.scan.stream import Verdict
from agent.workers.scan.sweep import Progress
from agent.workers.scan.sweeping import Chunk as Asking
from agent.workers.scan.sweeping import Kind, Sweeper

LARGE = 1024
"""Addresses of a plan from which on they are discovered many chunks at a time."""


class Walk:
    """What is left of a run. ``tell`` is called several times a second: to beat, and to say how far it is."""

    def __init__(
        self,
        context: Context,
        service: Scan,
        job: Job,
        store: ScanStore,
        run: Run,
        budget: Budget,
        gate: Gate,
        figures: Figures,
        tell: Callable[[], None],
    ) -> None:
        self.degraded: list[str] = []
        """Why what was found must not be taken for all there is, if there is a reason."""
        self._context = context
        self._service = service
        self._job = job
        self._store = store
        self._run = run
        self._budget = budget
        self._gate = gate
        self._figures = figures
        self._tell = tell
        self._present: dict[int, set[str]] = {}
        self._identifying: Identifying | None = None
        self._identity = f"{job.plan.plan_hash} {run.id} {run.started}"
        self._sweeper = Sweeper(
            context.data,
            self._identity,
            rate=service.rate,
            retries=service.retries,
            allowed=job.allowed,
            budget=budget,
            gate=gate,
            log=context.log,
        )

    async def go(self) -> None:
        """Go to its end. Raises what made it fail, and ``Ended``; what was stored by then stays."""
        if not self._run.resumed:
            self._sweeper.discard()
        self.degraded = self._sweeper.notes()
        if self._job.want is not None:
            await self._sweep_and_identify(self._job.want)
        else:
            await self._sweep_all()
        if self._service.profile != "discovery" and not self.degraded:
            within: Within = {"tcp": self._job.ports.tcp, "udp": self._job.ports.udp}
            await look_again(self._store, self._run, within, self._ask_again)
            if self._job.want is not None:  # whatever a second look has found open
                again = self._identifying_of(self._job.want)
                again.finish()
                await again.run()

    async def _sweep_and_identify(self, want: Want) -> None:
        """One beside the other: whoever is slow to say what listens there holds up nobody's sweep. If the one fails,
        or is to end, so does the other."""
        self._identifying = identifying = self._identifying_of(want)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(identifying.run())
                await self._sweep_all()
                self._figures.all_swept()
                identifying.finish()
        except BaseExceptionGroup as failed:
            raise first(failed) from failed
        finally:
            self._identifying = None

    async def _sweep_all(self) -> None:
        chunks = deque(chunk for chunk in self._job.plan.chunks() if chunk.number not in self._run.done)
        while chunks:
            await self._chunk(chunks.popleft(), chunks)
            self._tell()

    async def _chunk(self, chunk: Chunk, following: Iterable[Chunk]) -> None:
        """Who is there, and which of their ports are open."""
        self._figures.begin(len(chunk.addresses))
        present: set[str] | None = None
        try:
            if not self._sweeper.begun(chunk.number):
                if chunk.number not in self._present:
                    await self._discover(self._together(chunk, following))
                present = self._present.pop(chunk.number)
            if self._service.profile != "discovery" and (present is None or present):
                await self._sweep(chunk, present)
                return
        except ScanFailure as error:
            if self._job.plan.chunk_count == 1:
                raise
            place = f"{chunk.addresses[0]} to {chunk.addresses[-1]}"
            raise ScanFailure(f"chunk {chunk.number + 1} of {self._job.plan.chunk_count} ({place}): {error}") from error
        absent = (address for address in chunk.addresses if present is not None and address not in present)
        self._done(chunk, [], absent, DETECTED)

    def _together(self, chunk: Chunk, following: Iterable[Chunk]) -> list[Chunk]:
        """The chunks to discover at once. In a large plan those are many: whoever is not there is waited for once."""
        together, addresses = [chunk], len(chunk.addresses)
        line = (chunk.family, chunk.addresses[0].partition("%")[2])
        for other in following if self._job.plan.hosts > LARGE else ():
            addresses += len(other.addresses)
            same = line == (other.family, other.addresses[0].partition("%")[2])
            if not same or addresses > DISCOVERED_AT_ONCE or self._sweeper.begun(other.number):
                break
            together.append(other)
        return together

    async def _discover(self, chunks: list[Chunk]) -> None:
        """Find the addresses of these chunks that are to be asked further. Those that answered are stored."""
        single = self._job.pinned.single if self._service.profile != "discovery" else frozenset()
        family, first = chunks[0].family, chunks[0].addresses[0]
        addresses = [address for chunk in chunks for address in chunk.addresses]
        self._job.allowed.check(addresses)
        elements: list[bytes] = []
        hosts: dict[str, Host] = {}

        def on_host(host: Host, element: bytes) -> None:
            if host.state == "up":
                hosts[host.address] = host
                elements.append(element)

        def turn(fraction: float) -> None:
            self._figures.discovering(fraction, self._service.profile == "discovery")
            self._tell()

        plain = [ip_address(text.partition("%")[0]) for text in addresses]

        def ask(rate: int) -> Coroutine[Any, Any, Verdict]:
            return discover(
                family,
                merge((int(address), int(address)) for address in plain),
                self._job.program,
                rate=rate,
                zone=first.partition("%")[2],
                on_host=on_host,
                turn=turn,
                turn_every=min(0.5, self._context.beat_interval),
            )

        tell = self._tell
        work = partial(steadily, self._budget, self._budget.of(plain), len(plain), self._service.rate, ask, tell)
        verdict = await self._gate.redo(work, tell)
        self._store.store(
            self._run,
            hosts.values(),
            time.time(),
            stage=DETECTED if self._service.profile == "discovery" else SWEPT,
            raw=document(elements, verdict.version) if elements else b"",
        )
        self._store.tally(
            self._run, sent=self._figures.sent, answered=self._figures.answered, nmap_version=verdict.version
        )
        for chunk in chunks:
            self._present[chunk.number] = {one for one in chunk.addresses if one in single or one in hosts}

    async def _sweep(self, chunk: Chunk, present: set[str] | None) -> None:
        places = {address: place for place, address in enumerate(chunk.addresses)}
        known = [
            (places[canary.address], canary.number)
            for canary in self._store.canaries()
            if canary.protocol == "tcp" and canary.address in places
        ]
        hosts: dict[str, Host] = {}
        everything: frozenset[str] = frozenset()
        asks: list[tuple[Kind, tuple[tuple[int, int], ...]]] = [
            (self._job.kind, self._job.ports.tcp),
            ("udp", self._job.ports.udp),
        ]
        parts = [(kind, ports) for kind, ports in asks if ports]
        for part, (kind, ports) in enumerate(parts):

            def turn(progress: Progress, part: int = part) -> None:
                self._figures.sweeping(progress, part, len(parts))
                self._tell()

            swept = await self._sweeper.sweep(
                chunk.number,
                kind,
                Asking(chunk.addresses, ports, present),
                known=known if kind != "udp" else (),
                turn=turn,
            )
            self._figures.swept(swept.sent, swept.answered, swept.lost)
            everything |= swept.everything
            if swept.degraded:
                self.degraded.append(swept.degraded)
                self._sweeper.note(swept.degraded)
                self._context.log(f"degraded: {swept.degraded}")
            present = {host.address for host in swept.hosts}
            for host in swept.hosts:
                hosts[host.address] = _joined(hosts.get(host.address), host)
        if everything:
            self._context.log(f"open to everything, and so not asked further: {', '.join(sorted(everything)[:8])}")
        absent = [address for address in chunk.addresses if address not in hosts]
        if everything:
            self._store.store(self._run, [hosts.pop(address) for address in everything], time.time(), stage=DETECTED)
        stage = SWEPT if self._job.want is not None else DETECTED
        self._done(chunk, self._named(hosts.values()), absent, stage)
        if self._identifying is not None:
            self._identifying.swept(sum(host.state == "up" or bool(host.ports) for host in hosts.values()))
        self._sweeper.forget(chunk.number)
        self._store.tally(
            self._run,
            sent=self._figures.sent,
            answered=self._figures.answered,
            loss=self._figures.lost,
            engine=self._job.kind if self._job.ports.tcp else "udp",
        )

    async def _ask_again(self, number: int, lot: Lot) -> list[Host]:
        """A second look at some ports of some hosts."""
        ports = merge((port, port) for port in lot.ports)
        kind: Kind = "udp" if lot.protocol == "udp" else self._job.kind

        def turn(progress: Progress) -> None:
            self._figures.again(progress)
            self._tell()

        # Its file has a number that no chunk has, and is not continued: what is doubted then is asked then.
        place = self._job.plan.chunk_count + number
        self._sweeper.forget(place)
        swept = await self._sweeper.sweep(place, kind, Asking(lot.addresses, ports), turn=turn)
        self._sweeper.forget(place)
        self._figures.swept(swept.sent, swept.answered, swept.lost)
        return self._named(swept.hosts)

    def _named(self, hosts: Iterable[Host]) -> list[Host]:
        """With the names that they were declared by."""
        names = self._job.pinned.names
        return [
            replace(host, names=tuple(dict.fromkeys((names[host.address], *host.names))))
            if host.address in names
            else host
            for host in hosts
        ]

    def _done(self, chunk: Chunk, hosts: list[Host], absent: Iterable[str], stage: int) -> None:
        self._store.store(
            self._run,
            hosts,
            time.time(),
            chunk=chunk.number,
            addresses=len(chunk.addresses),
            asked=asked(absent),
            stage=stage,
        )
        self._figures.end()
        self._context.beat()

    def _identifying_of(self, want: Want) -> Identifying:
        """Phase 2: what answers on the open ports that were found."""

        async def redo(make: Callable[[], Coroutine[Any, Any, None]]) -> None:
            await self._gate.redo(make)

        notes = Notebook(self._context.data / "services", self._identity)
        if not self._run.resumed:
            notes.discard()
        return Identifying(
            self._store,
            self._run,
            want,
            self._job.program,
            silent_again=self._service.silent_again,
            figures=self._figures,
            leave=leave_of(self._budget, self._job.allowed, redo),
            notes=notes,
            turn=self._tell,
            turn_every=min(0.5, self._context.beat_interval),
        )


def _joined(one: Host | None, other: Host) -> Host:
    """A host that was swept twice, by TCP and by UDP."""
    if one is None:
        return other
    first = one if one.state == "up" or other.state != "up" else other
    return replace(first, ports=(*one.ports, *other.ports), rest=(*one.rest, *other.rest))
