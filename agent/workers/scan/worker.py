"""The worker of ``kind = "scan"``: plan, scan chunk by chunk, store, tell."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import msgspec

from agent.declaration.model import Scan
from agent.errors import AgentError, ConfigurationError, ScanFailure, StorageFailure
from agent.linux.capability_sets import NET_RAW
from agent.linux.spawn import base_environment
from agent.linux.sweep import MARK
from agent.workers.runtime import Context
from agent.workers.scan.afterwards import afterwards, tell_changes
from agent.workers.scan.argv import (
    count_ports,
    format_ports,
    nmap_argv,
    nmap_environment,
    parse_ports,
    privileges,
    target_list,
)
from agent.workers.scan.budget import Limits
from agent.workers.scan.budget_file import Budget, budget_of
from agent.workers.scan.found import Host
from agent.workers.scan.memory.coverage import asked
from agent.workers.scan.memory.migration import with_rest
from agent.workers.scan.nmap import run_nmap
from agent.workers.scan.pausing import Ended, gate_of
from agent.workers.scan.plan import Chunk, make_plan
from agent.workers.scan.results import document, given_as, read_host
from agent.workers.scan.steady import steadily
from agent.workers.scan.store import DETECTED, Ending, Run, ScanStore, Task
from agent.workers.scan.stream import XmlStream

_STAGES = {"discovery": 1, "ports": 2, "services": 3}


class ScanWorker:
    """Runs one scan to its end. Made with a ``Context`` whose service is a ``Scan``."""

    def __init__(self, context: Context) -> None:
        """Raises ``ConfigurationError`` for settings that cannot be scanned."""
        if not isinstance(context.service, Scan):
            raise ConfigurationError(f"{context.name}: not the settings of a scan")
        self._context = context
        self._service = service = context.service
        self._ports = parse_ports(service.ports) if service.profile != "discovery" else ()
        self._plan = make_plan(
            service.targets,
            service.exclude,
            service.allow_public,
            ports=count_ports(self._ports),
            identity=(service.profile, format_ports(self._ports)),
        )
        self._nmap = ""
        self._privileged = False
        self._environment: dict[str, str] = {}
        self._store: ScanStore | None = None
        self._gate = gate_of(context)
        self._budget: Budget | None = None

    async def start(self) -> None:
        """Find nmap and open the database. Raises ``ScanFailure`` or ``StorageFailure``."""
        try:
            self._find_nmap()
            limits = self._service.budget
            self._budget = budget_of(
                os.environ, Limits(limits.rate, limits.network_rate, limits.target_rate), self._context.log
            )
            self._store = ScanStore(self._context.data / "scan.db", site=self._service.site)
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
        self._tell(Run(0), 0.0)

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
            store.end(run, "finished", time.time(), turn=self._context.beat)
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
            f" took {took:.1f} s",
            run=run.id,
            hosts_total=self._plan.hosts,
            hosts_up=run.hosts_up,
            ports_open=run.ports_open,
            seconds=round(took, 3),
        )

    async def stop(self) -> None:
        """Close the database, and let others have what was reserved of the budget."""
        if self._budget is not None:
            self._budget.close()
        if self._store is not None:
            self._store.close()
            self._store = None

    def _find_nmap(self) -> None:
        base = base_environment(os.environ)
        found = shutil.which("nmap", path=base["PATH"])
        if found is None:
            raise ScanFailure("nmap is not installed: apt-get install nmap")
        self._nmap = str(Path(found).absolute())
        self._privileged, why_not = privileges(Path("/proc/self/status").read_text())
        if why_not and self._service.profile != "discovery":
            self._context.log(why_not)
        data = Path(self._nmap).parent.parent / "share" / "nmap"
        self._environment = nmap_environment(
            base, privileged=self._privileged, data_directory=str(data) if data.is_dir() else None
        )
        if mark := os.environ.get(MARK):  # an nmap that outlives us is recognised by it
            self._environment[MARK] = mark

    async def _scan_all(self, store: ScanStore, run: Run) -> None:
        def turn() -> None:
            self._context.beat()
            self._tell(run, 0.0)

        for chunk in self._plan.chunks():
            if chunk.number not in run.done:
                await self._gate.redo(partial(self._within_budget, store, run, chunk, turn), turn)
                self._tell(run, 0.0)

    async def _within_budget(self, store: ScanStore, run: Run, chunk: Chunk, turn: Callable[[], None]) -> None:
        if self._budget is None:
            raise RuntimeError("run before start")
        share, addresses = self._budget.of(map(ip_address, chunk.addresses)), len(chunk.addresses)
        work = partial(self._scan, store, run, chunk)
        await steadily(self._budget, share, addresses, self._service.rate, work, turn)

    async def _scan(self, store: ScanStore, run: Run, chunk: Chunk, rate: int) -> None:
        given = given_as(chunk.addresses)
        hosts: list[Host] = []
        elements: list[bytes] = []

        def take(element: bytes) -> None:
            hosts.append(read_host(element, given))
            elements.append(element)

        stream = XmlStream(stages=_STAGES[self._service.profile], on_host=take)

        def turn() -> None:
            self._context.beat()
            self._tell(run, stream.fraction * len(chunk.addresses))

        try:
            verdict = await run_nmap(
                lambda targets: self._argv(chunk, targets, rate),
                self._environment,
                target_list(chunk.addresses),
                # As root nmap has it without that.
                capabilities=(NET_RAW,) if self._privileged and os.geteuid() != 0 else None,
                hosts=len(chunk.addresses),
                stream=stream,
                turn=turn,
                turn_every=self._context.beat_interval,
            )
        except ScanFailure as error:
            if self._plan.chunk_count == 1:
                raise
            place = f"{chunk.addresses[0]} to {chunk.addresses[-1]}"
            raise ScanFailure(f"chunk {chunk.number + 1} of {self._plan.chunk_count} ({place}): {error}") from error
        found = {host.address for host in hosts}
        store.store(
            run,
            [with_rest(host, self._ports) for host in hosts],
            time.time(),
            chunk=chunk.number,
            addresses=len(chunk.addresses),
            asked=asked(address for address in chunk.addresses if address not in found),
            stage=DETECTED,
            raw=document(elements, verdict.version),
        )
        store.tally(run, sent=0, answered=0, nmap_version=verdict.version)
        self._context.beat()

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

    def _argv(self, chunk: Chunk, targets: int, rate: int) -> tuple[str, ...]:
        return nmap_argv(
            nmap=self._nmap,
            profile=self._service.profile,
            ports=self._ports,
            rate=rate,
            family=chunk.family,
            privileged=self._privileged,
            targets=targets,
        )

    def _tell(self, run: Run, underway: float) -> None:
        """``underway``: the part of the chunk at hand that is done, in hosts."""
        total = self._plan.hosts
        percent = int(100 * (run.hosts_done + underway) / total)
        held = f"{self._gate.why}: " if self._gate.why else ""
        self._context.status(
            f"{held}{run.hosts_done} of {_count(total, 'host')}, {_count(run.ports_open, 'open port')}, {percent} %",
            {
                "hosts_done": run.hosts_done,
                "hosts_total": total,
                "chunks_done": len(run.done),
                "chunks_total": self._plan.chunk_count,
                "hosts_up": run.hosts_up,
                "ports_open": run.ports_open,
                "percent": percent,
                "held": self._gate.why,
            },
        )

    def _summary(self) -> str:
        first, *others = self._service.targets
        return f"{first} and {len(others)} more" if others else first

    def _task(self) -> Task:
        service = self._service
        declared = {
            "targets": service.targets,
            "exclude": service.exclude,
            "ports": format_ports(self._ports),
            "profile": service.profile,
            "chunk_size": self._plan.chunk_size,
        }
        return Task(
            self._plan.plan_hash,
            self._plan.hosts,
            self._plan.chunk_count,
            msgspec.json.encode(declared).decode(),
            self._argv(next(self._plan.chunks()), 0, self._service.rate),
            profile=service.profile,
            engine="nmap",
        )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
