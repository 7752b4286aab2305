"""The worker of ``kind = "scan"``: find hosts, sweep their ports, learn what answers, store, tell.

A run goes chunk by chunk, a few dozen addresses each. First it is asked who is there at all (``discover``); addresses
that were named one by one are taken to be there in any case. Their ports are swept (``sweeping``), the open
ones identified (``identify``). Each of these steps is stored when it is done, and what is not stored yet can be
continued: so a run that is killed loses next to nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from typing import Any

import msgspec

from agent.declaration.model import Scan
from agent.declaration.ports import Ports, parse_ports
from agent.errors import AgentError, ConfigurationError, ScanFailure, StorageFailure
from agent.linux.broadcasts import broadcast_addresses
from agent.workers.runtime import Context
from agent.workers.scan.afterwards import afterwards, tell_changes
from agent.workers.scan.again import Lot, Within, look_again
from agent.workers.scan.allowed import Allowed
from agent.workers.scan.budget import Limits
from agent.workers.scan.budget_file import Budget, budget_of
from agent.workers.scan.discover import discover
from agent.workers.scan.figures import Figures
from agent.workers.scan.found import Host
from agent.workers.scan.identify import Want
from agent.workers.scan.identifying import identify_waiting, permit_of
from agent.workers.scan.memory.coverage import asked
from agent.workers.scan.pausing import Ended, gate_of
from agent.workers.scan.pinned import Pinned, pin
from agent.workers.scan.plan import Chunk, Plan, make_plan, merge
from agent.workers.scan.program import Program, choose_scripts, find_nmap
from agent.workers.scan.results import document
from agent.workers.scan.services_file import read_services, settle
from agent.workers.scan.steady import steadily
from agent.workers.scan.store import DETECTED, SWEPT, Ending, Run, ScanStore, Task
from agent.workers.scan.stream import Verdict
from agent.workers.scan.sweep import Progress
from agent.workers.scan.sweeping import Chunk as Asking
from agent.workers.scan.sweeping import Kind, Sweeper, may_send_raw

CERTIFICATES = "ssl-cert"
DISCOVERED_AT_ONCE = 4096
"""Addresses of one run of nmap that only discovers."""


class ScanWorker:
    """Runs one scan to its end. Made with a ``Context`` whose service is a ``Scan``."""

    def __init__(self, context: Context) -> None:
        """Raises ``ConfigurationError`` for settings that cannot be scanned."""
        if not isinstance(context.service, Scan):
            raise ConfigurationError(f"{context.name}: not the settings of a scan")
        self._context = context
        self._service = service = context.service
        self._ports = parse_ports(service.ports) if service.profile != "discovery" else Ports((), ())
        self._gate = gate_of(context)
        self._budget: Budget | None = None
        self._store: ScanStore | None = None
        self._figures = Figures()
        self._degraded: list[str] = []

    async def start(self) -> None:
        """Find nmap, settle what is to be asked and open the database.

        Raises ``ConfigurationError`` for targets that must not be scanned, ``ScanFailure`` or ``StorageFailure``.
        """
        service = self._service
        try:
            self._program = find_nmap()
            if not self._ports.settled:
                if self._program.data is None:
                    raise ScanFailure("top-N needs the list of ports that comes with nmap (apt-get install nmap)")
                self._ports = settle(self._ports, read_services(self._program.data / "nmap-services"))
            self._want = self._wanted(self._program)
            self._pinned = await pin(service.targets)
            self._exclude = (*(await pin(service.exclude, "exclude")).targets, *self._broadcasts())
            self._allowed = Allowed(service.allow_public, self._exclude)
            self._plan = self._planned(self._pinned)
            self._kind: Kind = self._engine()
            limits = Limits(service.budget.rate, service.budget.network_rate, service.budget.target_rate)
            self._budget = budget_of(os.environ, limits, self._context.log)
            self._store = ScanStore(self._context.data / "scan.db", site=service.site)
        except ConfigurationError:
            raise
        except AgentError as error:
            self._context.event("scan_failed", f"{self._summary()}: {error}")
            raise
        if self._store.opened.moved_aside is not None:
            moved, reason = self._store.opened.moved_aside, self._store.opened.reason
            self._context.event(
                "database_replaced",
                f"{self._store.path} could not be read ({reason}): it is now {moved}, and a new one was made",
                moved_aside=str(moved),
            )
        self._tell(Run(0))

    async def run(self) -> None:
        """Scan what is left to scan. Raises what made it fail; what was stored before stays."""
        store = self._store
        if store is None:
            raise RuntimeError("run before start")
        began = time.monotonic()
        run: Run | None = None
        try:
            run = store.begin(self._task(), time.time(), self._context.beat)
            tell_changes(self._context, store)
            if run.resumed:
                self._context.log(f"continuing run {run.id}: {run.hosts_done} of {self._plan.hosts} hosts were done")
            await self._scan_all(store, run)
            degraded = "; ".join(dict.fromkeys(self._degraded))
            store.end(run, "finished", time.time(), degraded=degraded, turn=self._context.beat)
            afterwards(self._context, store, self._service.history, time.time())
        except Ended:
            self._ended(store, run)
            return
        except BaseException as error:
            # A stop arrives as a cancellation, which is no Exception.
            self._broke_off(store, run, str(error) if isinstance(error, Exception) else None)
            raise
        took = time.monotonic() - began - self._gate.held
        self._context.event(
            "scan_finished",
            f"{self._summary()}: {_count(run.hosts_up, 'host')} up, {_count(run.ports_open, 'port')} open,"
            f" took {took:.1f} s{f'; degraded: {degraded}' if degraded else ''}",
            run=run.id,
            hosts_total=self._plan.hosts,
            hosts_up=run.hosts_up,
            ports_open=run.ports_open,
            seconds=round(took, 3),
            degraded=degraded,
        )

    async def stop(self) -> None:
        """Close the database, and leave the budget."""
        if self._store is not None:
            self._store.close()
            self._store = None
        if self._budget is not None:
            self._budget.close()
            self._budget = None

    def _wanted(self, program: Program) -> Want | None:
        """What phase 2 is to find out, if there is one."""
        service = self._service
        if service.profile not in ("services", "full"):
            return None
        certificates = choose_scripts([CERTIFICATES], program.data)
        budget = service.budget
        return Want(
            min(service.rate, budget.rate, budget.network_rate, budget.target_rate),
            certificates[0] if certificates else None,
            choose_scripts(service.scripts, program.data) if service.profile == "full" else (),
            system=service.profile == "full" and program.privileged,
        )

    def _broadcasts(self) -> list[str]:
        """The broadcast addresses of the networks that this host is on, which are never scanned."""
        try:
            return broadcast_addresses()
        except OSError as error:
            why = error.strerror or error
            self._context.log(f"the kernel does not tell the broadcast addresses of this host: {why}")
            return []

    def _planned(self, pinned: Pinned) -> Plan:
        service, ports = self._service, self._ports
        return make_plan(
            pinned.targets,
            self._exclude,
            service.allow_public,
            ports=max(_number(ports.tcp), _number(ports.udp)),
            identity=(service.profile, str(ports), service.engine),
            most=DISCOVERED_AT_ONCE if service.profile == "discovery" else None,
        )

    def _engine(self) -> Kind:
        """How TCP ports are asked."""
        wanted, raw = self._service.engine, may_send_raw()
        if wanted == "syn" and not raw:
            raise ScanFailure('engine = "syn" needs CAP_NET_RAW, which is not held; "connect" needs nothing')
        if wanted == "auto" and not raw and self._ports.tcp:
            self._context.log("CAP_NET_RAW is not held: ports are asked by connect, not by SYN packets")
        return "connect" if wanted == "connect" or not raw else "syn"

    async def _scan_all(self, store: ScanStore, run: Run) -> None:
        budget = self._budget
        if budget is None:
            raise RuntimeError("run before start")
        service = self._service
        sweeper = Sweeper(
            self._context.data,
            f"{self._plan.plan_hash} {run.id} {run.started}",
            rate=service.rate,
            retries=service.retries,
            allowed=self._allowed,
            budget=budget,
            gate=self._gate,
            log=self._context.log,
        )
        if not run.resumed:
            sweeper.discard()
        self._degraded = sweeper.notes()
        for chunk in self._plan.chunks():
            if chunk.number not in run.done:
                await self._chunk(store, run, sweeper, budget, chunk)
            if self._want is not None:
                await self._identify(store, run, budget, self._want)
            self._tell(run)
        if service.profile != "discovery" and not self._degraded:
            within: Within = {"tcp": self._ports.tcp, "udp": self._ports.udp}
            await look_again(store, run, within, partial(self._ask_again, run, sweeper))
            if self._want is not None:  # whatever a second look has found open
                await self._identify(store, run, budget, self._want)

    async def _chunk(self, store: ScanStore, run: Run, sweeper: Sweeper, budget: Budget, chunk: Chunk) -> None:
        """Who is there, and which of their ports are open."""
        self._figures.begin(len(chunk.addresses))
        self._allowed.check(chunk.addresses)
        present: set[str] | None = None
        try:
            if not sweeper.begun(chunk.number):
                present = await self._discover(store, run, budget, chunk)
            if self._service.profile != "discovery" and (present is None or present):
                await self._sweep(store, run, sweeper, chunk, present)
                return
        except ScanFailure as error:
            if self._plan.chunk_count == 1:
                raise
            place = f"{chunk.addresses[0]} to {chunk.addresses[-1]}"
            raise ScanFailure(f"chunk {chunk.number + 1} of {self._plan.chunk_count} ({place}): {error}") from error
        absent = (address for address in chunk.addresses if present is not None and address not in present)
        self._done(store, run, chunk, [], absent, DETECTED)

    async def _discover(self, store: ScanStore, run: Run, budget: Budget, chunk: Chunk) -> set[str]:
        """The addresses of a chunk that are to be asked further. Those that answered are stored."""
        single = self._pinned.single if self._service.profile != "discovery" else frozenset()
        present = {address for address in chunk.addresses if address in single}
        elements: list[bytes] = []
        hosts: dict[str, Host] = {}

        def on_host(host: Host, element: bytes) -> None:
            if host.state == "up":
                hosts[host.address] = host
                elements.append(element)

        def turn(fraction: float) -> None:
            self._figures.discovering(fraction, self._service.profile == "discovery")
            self._tell(run)

        plain = [ip_address(text.partition("%")[0]) for text in chunk.addresses]

        def ask(rate: int) -> Coroutine[Any, Any, Verdict]:
            return discover(
                chunk.family,
                merge((int(address), int(address)) for address in plain),
                self._program,
                rate=rate,
                zone=chunk.addresses[0].partition("%")[2],
                on_host=on_host,
                turn=turn,
                turn_every=min(0.5, self._context.beat_interval),
            )

        tell = partial(self._tell, run)
        work = partial(steadily, budget, budget.of(plain), len(plain), self._service.rate, ask, tell)
        verdict = await self._gate.redo(work, tell)
        store.store(
            run,
            hosts.values(),
            time.time(),
            stage=DETECTED if self._service.profile == "discovery" else SWEPT,
            raw=document(elements, verdict.version) if elements else b"",
        )
        store.tally(run, sent=self._figures.sent, answered=self._figures.answered, nmap_version=verdict.version)
        return present | hosts.keys()

    async def _sweep(
        self, store: ScanStore, run: Run, sweeper: Sweeper, chunk: Chunk, present: set[str] | None
    ) -> None:
        places = {address: place for place, address in enumerate(chunk.addresses)}
        known = [
            (places[canary.address], canary.number)
            for canary in store.canaries()
            if canary.protocol == "tcp" and canary.address in places
        ]
        hosts: dict[str, Host] = {}
        everything: frozenset[str] = frozenset()
        asks: list[tuple[Kind, tuple[tuple[int, int], ...]]] = [(self._kind, self._ports.tcp), ("udp", self._ports.udp)]
        parts = [(kind, ports) for kind, ports in asks if ports]
        for part, (kind, ports) in enumerate(parts):

            def turn(progress: Progress, part: int = part) -> None:
                self._figures.sweeping(progress, part, len(parts))
                self._tell(run)

            swept = await sweeper.sweep(
                chunk.number,
                kind,
                Asking(chunk.addresses, ports, present),
                known=known if kind != "udp" else (),
                turn=turn,
            )
            self._figures.swept(swept.sent, swept.answered, swept.lost)
            everything |= swept.everything
            if swept.degraded:
                self._degraded.append(swept.degraded)
                sweeper.note(swept.degraded)
                self._context.log(f"degraded: {swept.degraded}")
            present = {host.address for host in swept.hosts}
            for host in swept.hosts:
                hosts[host.address] = _joined(hosts.get(host.address), host)
        if everything:
            self._context.log(f"open to everything, and so not asked further: {', '.join(sorted(everything)[:8])}")
        absent = [address for address in chunk.addresses if address not in hosts]
        if everything:
            store.store(run, [hosts.pop(address) for address in everything], time.time(), stage=DETECTED)
        stage = SWEPT if self._want is not None else DETECTED
        self._done(store, run, chunk, self._named(hosts.values()), absent, stage)
        sweeper.forget(chunk.number)
        store.tally(
            run,
            sent=self._figures.sent,
            answered=self._figures.answered,
            loss=self._figures.lost,
            engine=self._kind if self._ports.tcp else "udp",
        )

    async def _ask_again(self, run: Run, sweeper: Sweeper, number: int, lot: Lot) -> list[Host]:
        """A second look at some ports of some hosts."""
        ports = merge((port, port) for port in lot.ports)
        kind: Kind = "udp" if lot.protocol == "udp" else self._kind

        def turn(progress: Progress) -> None:
            self._figures.again(progress)
            self._tell(run)

        # Its file has a number that no chunk has, and is not continued: what is doubted then is asked then.
        place = self._plan.chunk_count + number
        sweeper.forget(place)
        swept = await sweeper.sweep(place, kind, Asking(lot.addresses, ports), turn=turn)
        sweeper.forget(place)
        self._figures.swept(swept.sent, swept.answered, swept.lost)
        return self._named(swept.hosts)

    def _named(self, hosts: Iterable[Host]) -> list[Host]:
        """With the names that they were declared by."""
        names = self._pinned.names
        return [
            replace(host, names=tuple(dict.fromkeys((names[host.address], *host.names))))
            if host.address in names
            else host
            for host in hosts
        ]

    def _done(
        self, store: ScanStore, run: Run, chunk: Chunk, hosts: list[Host], absent: Iterable[str], stage: int
    ) -> None:
        store.store(
            run,
            hosts,
            time.time(),
            chunk=chunk.number,
            addresses=len(chunk.addresses),
            asked=asked(absent),
            stage=stage,
        )
        self._figures.end()
        self._context.beat()

    async def _identify(self, store: ScanStore, run: Run, budget: Budget, want: Want) -> None:
        """Phase 2: what answers on the open ports that were found."""

        async def redo(make: Callable[[], Coroutine[Any, Any, None]]) -> None:
            await self._gate.redo(make, partial(self._tell, run))

        await identify_waiting(
            store,
            run,
            want,
            self._program,
            silent_again=self._service.silent_again,
            figures=self._figures,
            permit=permit_of(budget, self._allowed),
            redo=redo,
            turn=partial(self._tell, run),
            turn_every=min(0.5, self._context.beat_interval),
        )

    def _ended(self, store: ScanStore, run: Run | None) -> None:
        """Tell and store that somebody ended the run."""
        message = f"ended by hand after {run.hosts_done if run else 0} of {_count(self._plan.hosts, 'host')}"
        self._context.event("scan_stopped", f"{self._summary()}: {message}", run=run.id if run else None)
        if run is not None:
            store.end(run, "stopped", time.time(), message, turn=self._context.beat)
            afterwards(self._context, store, self._service.history, time.time())

    def _broke_off(self, store: ScanStore, run: Run | None, failure: str | None) -> None:
        """Tell and store that the run did not finish: it failed, or was stopped."""
        status: Ending = "failed" if failure is not None else "interrupted"
        done = f"stopped after {run.hosts_done if run else 0} of {_count(self._plan.hosts, 'host')}"
        message = failure if failure is not None else f"{done}; the next run continues"
        self._context.event(f"scan_{status}", f"{self._summary()}: {message}", run=run.id if run else None)
        if run is not None:
            with suppress(StorageFailure):  # the first failure is the one to tell, and `begin` sees a run without end
                store.end(run, status, time.time(), message)

    def _tell(self, run: Run) -> None:
        self._context.beat()
        total, figures = self._plan.hosts, self._figures
        percent = min(100, int(100 * (run.hosts_done + figures.hosts_underway) / total))
        held = f"{self._gate.why}: " if self._gate.why else ""
        self._context.status(
            f"{held}{run.hosts_done} of {_count(total, 'host')},"
            f" {_count(run.ports_open + figures.ports_open, 'open port')}, {percent} %",
            {
                "hosts_done": run.hosts_done,
                "hosts_total": total,
                "chunks_done": len(run.done),
                "chunks_total": self._plan.chunk_count,
                "hosts_up": run.hosts_up,
                "ports_open": run.ports_open + figures.ports_open,
                "percent": percent,
                "held": self._gate.why,
                "phase": figures.phase,
                "rate": round(figures.rate, 1),
                "loss": round(figures.lost, 4),
                "seconds_left": round(figures.left, 1),
            },
        )

    def _summary(self) -> str:
        first, *others = self._service.targets
        return f"{first} and {len(others)} more" if others else first

    def _task(self) -> Task:
        service = self._service
        declared: dict[str, object] = {
            "targets": self._pinned.targets,
            "exclude": service.exclude,
            "ports": str(self._ports),
            "profile": service.profile,
            "chunk_size": self._plan.chunk_size,
        }
        if self._want is not None:
            chosen = (self._want.certificates, *self._want.scripts)
            declared["scripts"] = {script.name: script.sha256 for script in chosen if script is not None}
        return Task(
            self._plan.plan_hash,
            self._plan.hosts,
            self._plan.chunk_count,
            msgspec.json.encode(declared).decode(),
            profile=service.profile,
            engine="nmap" if service.profile == "discovery" else self._kind,
        )


def _joined(one: Host | None, other: Host) -> Host:
    """A host that was swept twice, by TCP and by UDP."""
    if one is None:
        return other
    first = one if one.state == "up" or other.state != "up" else other
    return replace(first, ports=(*one.ports, *other.ports), rest=(*one.rest, *other.rest))


def _number(ports: Iterable[tuple[int, int]]) -> int:
    return sum(high - low + 1 for low, high in ports)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
