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
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from dataclasses import replace
from functools import partial
from typing import Any, Final

from agent.declaration.model import Scan
from agent.errors import ScanFailure, first_failure
from agent.workers.runtime import Context
from agent.workers.scan import spans
from agent.workers.scan.advance import Progress
from agent.workers.scan.again import Lot, Within, look_again
from agent.workers.scan.argv import probes_of
from agent.workers.scan.budget import Limits
from agent.workers.scan.budget_file import Budget
from agent.workers.scan.discover import discover_parts
from agent.workers.scan.figures import Figures
from agent.workers.scan.found import Host
from agent.workers.scan.identify import Want
from agent.workers.scan.identifying import Identifying, leave_of
from agent.workers.scan.job import DISCOVERED_AT_ONCE, Job
from agent.workers.scan.memory.coverage import asked
from agent.workers.scan.notebook import Notebook
from agent.workers.scan.pausing import Gate
from agent.workers.scan.plan import CHUNK_ADDRESSES, Chunk
from agent.workers.scan.results import document
from agent.workers.scan.rollcall import RollCall
from agent.workers.scan.steady import steadily
from agent.workers.scan.store import DETECTED, SWEPT, Run, ScanStore
from agent.workers.scan.sweeping import Kind, Question, Sweeper, protocol_of
from agent.workers.scan.withholding import Withholding

LARGE = 1024
"""Addresses of a plan from which on they are discovered many chunks at a time."""

_AT_ONCE: Final = 64  # chunks that are gone through without a break


def at_once(rate: int, limits: Limits) -> int:
    """How many addresses are discovered together at a rate of so many packets a second, within the limits of all scans.

    nmap sends four probes to each that does not answer, twice (nmap(1), -sn), and waits for the last answers while
    nothing else goes out. So many take it a minute, if it sends half of what it may. More would only keep their ports
    waiting for longer. What a single target may get has no part in it: of many targets each gets few.
    """
    return max(CHUNK_ADDRESSES, min(DISCOVERED_AT_ONCE, min(rate, limits.host, limits.network) * 4))


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
        self._context = context
        self._service = service
        self._job = job
        self._store = store
        self._run = run
        self._budget = budget
        self._gate = gate
        self._figures = figures
        self._tell = tell
        self._within: Within = {"tcp": job.ports.tcp, "udp": job.ports.udp}
        self._identifying: Identifying | None = None
        self._single = job.pinned.single if service.profile != "discovery" else frozenset[str]()
        self._sweeper = Sweeper(
            context.data,
            partial(job.plan.piece, run.seed),
            rate=service.rate,
            retries=service.retries,
            allowed=job.allowed,
            budget=budget,
            gate=gate,
            log=context.log,
        )
        self._breathe = partial(gate.breathe, tell)
        if not run.resumed:
            self._sweeper.discard()
        self._notes = Notebook(context.data / "services", f"{run.id} {run.started}")
        if not run.resumed:
            self._notes.discard()
        self._withholding = Withholding(store, run, self._within, self._sweeper.notes(), self._noted)

    @property
    def degraded(self) -> list[str]:
        """Why what was found must not be taken for all there is, if there is a reason."""
        return self._withholding.reasons

    async def go(self) -> None:
        """Go to its end. Raises what made it fail, and ``Ended``; what was stored by then stays."""
        if self._job.want is not None:
            await self._sweep_and_identify(self._job.want)
        else:
            await self._sweep_all()
        await self._withholding.judge(self._chunks, self._breathe)
        if self._service.profile != "discovery":
            await look_again(self._store, self._run, self._within, self._ask_again, self._breathe)
            self._store.tally(self._run, sent=self._figures.sent, answered=self._figures.answered)
            self._sweeper.discard(notes=False)  # all of it is stored
            if self._job.want is not None:  # whatever a second look has found open
                once_more = self._identifying_of(self._job.want)
                once_more.finish()
                await once_more.run()

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
            raise first_failure(failed) from failed
        finally:
            self._identifying = None

    async def _sweep_all(self) -> None:
        plan = self._job.plan
        numbers = deque(number for number in plan.order(self._run.seed) if number not in self._run.done)
        while numbers:
            number = numbers.popleft()
            if number not in self._run.done:  # as of a discovery of many together
                await self._chunk(plan.chunk(number), numbers)
            self._tell()

    async def _chunk(self, chunk: Chunk, following: Iterable[int]) -> None:
        """Who is there, and which of their ports are open."""
        only, run = self._service.profile == "discovery", self._run
        self._figures.begin(len(chunk.addresses))
        together = [chunk]
        try:
            begun = self._sweeper.begun(chunk.number)
            if not begun and chunk.number not in run.discovered:
                together = self._together(chunk, following)
                await self._discover(together)
            present = self._there(chunk) if chunk.number in run.discovered else None
            if not only and (present is None or present):
                await self._sweep(chunk, present)
                return
        except ScanFailure as error:
            if self._job.plan.chunk_count == 1:
                raise
            place = f"{chunk.addresses[0]} to {chunk.addresses[-1]}"
            raise ScanFailure(f"chunk {chunk.number + 1} of {self._job.plan.chunk_count} ({place}): {error}") from error
        for one in together if only else [chunk]:
            present = self._there(one)
            self._done(one, [], (address for address in one.addresses if address not in present), DETECTED)

    def _there(self, chunk: Chunk) -> set[str]:
        """The addresses of a chunk that was discovered that are to be asked further."""
        return self._store.present(self._run, chunk.addresses) | self._single.intersection(chunk.addresses)

    def _together(self, chunk: Chunk, following: Iterable[int]) -> list[Chunk]:
        """The chunks to discover at once. In a large plan those are many: whoever is not there is waited for once."""
        together, addresses = [chunk], len(chunk.addresses)
        line = (chunk.family, chunk.addresses[0].partition("%")[2])
        many = self._service.profile == "discovery" or self._job.plan.hosts > LARGE
        most = at_once(self._service.rate, self._budget.limits)
        for number in following if many else ():
            if number in self._run.discovered or self._sweeper.begun(number):
                continue
            other = self._job.plan.chunk(number)
            if line != (other.family, other.addresses[0].partition("%")[2]):
                continue
            addresses += len(other.addresses)
            if addresses > most:
                break
            together.append(other)
        return together

    async def _discover(self, chunks: list[Chunk]) -> None:
        """Find the addresses of these chunks that answer, and store them. What a kill or a pause has left of that is
        asked, and no more."""
        family, zone = chunks[0].family, chunks[0].addresses[0].partition("%")[2]
        addresses = [address for chunk in chunks for address in chunk.addresses]
        self._job.allowed.check(addresses)
        only = self._service.profile == "discovery"
        if only:
            self._figures.begin(len(addresses))
        known = self._store.present(self._run, addresses)
        program = self._job.program
        probes = probes_of(family, privileged=program.privileged)
        identity = f"{self._run.id} {self._run.started} {family} {zone}"
        roll = RollCall(self._context.data / "discovery", identity, self._context.log)
        elements: list[bytes] = []
        hosts: dict[str, Host] = {}

        def on_host(host: Host, element: bytes) -> None:
            if host.state == "up":
                hosts[host.address] = replace(host, discovered=True)
                elements.append(element)

        def turn(fraction: float) -> None:
            self._figures.discovering(fraction, only)
            self._tell()

        async def ask(rate: int) -> str:
            return await discover_parts(
                family,
                roll.left((one for one in addresses if one not in known and one not in hosts), probes),
                program,
                rate=rate,
                zone=zone,
                listen=roll.listen,
                on_host=on_host,
                turn=turn,
                turn_every=min(0.5, self._context.beat_interval),
            )

        tell = self._tell
        work = partial(
            steadily, self._budget, self._budget.of(addresses), len(addresses), self._service.rate, ask, tell
        )
        version: str | None = None
        try:
            version = await self._gate.redo(work, tell)
        except ScanFailure:
            roll.forget()
            raise
        finally:
            roll.close()
            # Who answered is there, whatever ended it; who did not is known to be absent only at its end.
            for address in addresses:
                if address not in hosts and address not in known and (heard := roll.answer(address)):
                    hosts[address] = Host(address, "up", heard.reason, heard.mac, discovered=True)
            self._store.store(
                self._run,
                hosts.values(),
                time.time(),
                stage=DETECTED if only else SWEPT,
                discovered=[chunk.number for chunk in chunks] if version is not None else (),
                raw=document(elements, version or "") if elements else b"",
            )
        roll.discard()
        self._figures.discovered(len(addresses))
        self._store.tally(
            self._run,
            sent=self._figures.sent,
            answered=self._figures.answered,
            nmap_version=version or self._figures.nmap_version,
        )

    async def _sweep(self, chunk: Chunk, present: set[str] | None) -> None:
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
                Question(chunk.addresses, ports, present),
                known=self._withholding.known(chunk.addresses, protocol_of(kind)),
                turn=turn,
            )
            opened = sum(1 for host in swept.hosts for _ in host.open_ports())
            self._figures.swept(swept.sent, swept.answered, swept.lost, opened)
            everything |= swept.everything
            self._withholding.heed(chunk.addresses, swept)
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
        ports = spans.of(lot.ports)
        kind: Kind = "udp" if lot.protocol == "udp" else self._job.kind

        def turn(progress: Progress) -> None:
            self._figures.again(progress)
            self._tell()

        place = self._job.plan.chunk_count + number  # a number that no chunk has
        canaries = self._withholding.canaries(lot)
        addresses = tuple(dict.fromkeys((*lot.addresses, *(address for address, _ in canaries))))
        asking = Question(addresses, ports, lot.addresses, patient=True)
        swept = await self._sweeper.sweep(place, kind, asking, known=canaries, turn=turn)
        self._figures.swept(swept.sent, swept.answered, swept.lost)
        hosts = self._named(self._withholding.believed(lot, swept))
        if self._job.want is not None:
            self._keep_apart(hosts)
        return hosts

    def _keep_apart(self, hosts: Iterable[Host]) -> None:
        """Note what is identified of those hosts of which a second look has found another port open: the new one is
        identified too, and the others are not asked again. Before it is stored, or a kill in between would lose it."""
        for host in hosts:
            found = {port.key for port in host.open_ports()}
            before = self._store.identified(self._run, host.address) if found else frozenset()
            if before and found - before:
                self._notes.before(host.address, before)

    def _noted(self, why: str) -> None:
        self._sweeper.note(why)
        self._context.log(f"degraded: {why}")

    async def _chunks(self) -> AsyncIterator[Chunk]:
        """All chunks once more, without keeping anybody waiting."""
        for chunk in self._job.plan.chunks():
            if chunk.number % _AT_ONCE == 0:
                await self._breathe()
            yield chunk

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

        return Identifying(
            self._store,
            self._run,
            want,
            self._job.program,
            silent_again=self._service.silent_again,
            figures=self._figures,
            leave=leave_of(self._budget, self._job.allowed, redo),
            notes=self._notes,
            turn=self._tell,
            turn_every=min(0.5, self._context.beat_interval),
        )


def _joined(one: Host | None, other: Host) -> Host:
    """A host that was swept twice, by TCP and by UDP."""
    if one is None:
        return other
    first = one if one.state == "up" or other.state != "up" else other
    return replace(first, ports=(*one.ports, *other.ports), rest=(*one.rest, *other.rest))
