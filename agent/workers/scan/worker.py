"""The worker of ``kind = "scan"``: what it has to do is settled (``job``), done (``walk``), remembered and told."""

from __future__ import annotations

import os
import secrets
import time
from contextlib import suppress
from functools import partial

import msgspec

from agent.declaration.amounts import count
from agent.declaration.model import Scan
from agent.errors import AgentError, ConfigurationError, StorageFailure
from agent.paths import SCAN_MEMORY
from agent.workers.runtime import Context
from agent.workers.scan.afterwards import afterwards, beforehand
from agent.workers.scan.budget import Limits
from agent.workers.scan.budget_file import Budget, budget_of
from agent.workers.scan.figures import Figures
from agent.workers.scan.job import settle_job
from agent.workers.scan.pausing import Ended, gate_of
from agent.workers.scan.pinned import pinned_before
from agent.workers.scan.store import FAILURES, Ending, Run, ScanStore, Task
from agent.workers.scan.walk import Walk

SEED_BITS = 48
"""Of the number that decides the order of a run: one that every reader of JSON keeps exact."""


class ScanWorker:
    """Runs one scan to its end. Made with a ``Context`` whose service is a ``Scan``."""

    def __init__(self, context: Context) -> None:
        """Raises ``ConfigurationError`` for settings that cannot be scanned."""
        if not isinstance(context.service, Scan):
            raise ConfigurationError(f"{context.name}: not the settings of a scan")
        self._context = context
        self._service = context.service
        self._gate = gate_of(context)
        self._budget: Budget | None = None
        self._store: ScanStore | None = None
        self._figures = Figures(
            services=self._service.profile in ("services", "full"),
            clock=lambda: time.monotonic() - self._gate.held,
        )

    async def start(self) -> None:
        """Find nmap, settle what is to be asked and open the database.

        Raises ``ConfigurationError`` for targets that must not be scanned, ``ScanFailure`` or ``StorageFailure``.
        """
        service = self._service
        try:
            path = self._context.data / SCAN_MEMORY
            self._job = await settle_job(service, self._context.log, pinned_before(path, service.site, time.time()))
            limits = Limits(service.budget.rate, service.budget.network_rate, service.budget.target_rate)
            self._budget = budget_of(os.environ, limits, self._context.log)
            self._store = ScanStore(path, site=service.site, turn=self._context.beat)
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
        store, budget = self._store, self._budget
        if store is None or budget is None:
            raise RuntimeError("run before start")
        began = time.monotonic()
        run: Run | None = None
        try:
            run = store.begin(self._task(), time.time(), self._context.beat)
            beforehand(self._context, store, time.time())
            self._figures.sent, self._figures.answered = run.sent, run.answered
            if run.resumed:
                done = f"{run.hosts_done} of {self._job.plan.hosts} hosts were done"
                self._context.log("; ".join(part for part in (f"continuing run {run.id}: {done}", run.after()) if part))
            walk = Walk(
                self._context,
                self._service,
                self._job,
                store,
                run,
                budget,
                self._gate,
                self._figures,
                partial(self._tell, run),
            )
            await walk.go()
            degraded = "; ".join(dict.fromkeys(walk.degraded))
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
        everything = store.everything(run)
        trap = f", {count(everything, 'host')} open to everything" if everything else ""
        self._context.event(
            "scan_finished",
            f"{self._summary()}: {count(run.hosts_up, 'host')} up, {count(run.ports_open, 'port')} open{trap},"
            f" took {took:.1f} s{f'; degraded: {degraded}' if degraded else ''}",
            run=run.id,
            hosts_total=self._job.plan.hosts,
            hosts_up=run.hosts_up,
            ports_open=run.ports_open,
            open_to_everything=everything,
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

    def _ended(self, store: ScanStore, run: Run | None) -> None:
        """Tell and store that somebody ended the run."""
        message = f"ended by hand after {self._far(run)}"
        self._context.event("scan_stopped", f"{self._summary()}: {message}", run=run.id if run else None)
        if run is not None:
            store.end(run, "stopped", time.time(), message, turn=self._context.beat)
            afterwards(self._context, store, self._service.history, time.time())

    def _broke_off(self, store: ScanStore, run: Run | None, failure: str | None) -> None:
        """Tell and store that the run did not finish: it failed, or was stopped."""
        status: Ending = "failed" if failure is not None else "interrupted"
        message = failure if failure is not None else f"stopped after {self._far(run)}; the next run continues"
        if run is not None:
            with suppress(StorageFailure):  # the first failure is the one to tell, and `begin` sees a run without end
                store.end(run, status, time.time(), message)
        told = f"{self._summary()}: {message}"
        if run is not None and status == "failed":
            anew = run.failures >= FAILURES
            told += (
                f"; it has failed {FAILURES} times, the next run begins anew" if anew else "; the next run continues"
            )
        self._context.event(f"scan_{status}", told, run=run.id if run else None)

    def _tell(self, run: Run) -> None:
        self._context.beat()
        total, figures = self._job.plan.hosts, self._figures
        percent, done = figures.percent(run.hosts_done, total), figures.done(run.hosts_done)
        held = f"{self._gate.why}: " if self._gate.why else ""
        self._context.status(
            f"{held}{done:,} of {count(total, 'host')},"
            f" {count(run.ports_open + figures.ports_open, 'open port')}, {percent} %",
            {
                "hosts_done": done,
                "hosts_total": total,
                "chunks_done": len(run.done),
                "chunks_total": self._job.plan.chunk_count,
                "hosts_up": run.hosts_up,
                "ports_open": run.ports_open + figures.ports_open,
                "percent": percent,
                "held": self._gate.why,
                "phase": figures.phase,
                "rate": round(figures.rate, 1),
                "loss": round(figures.lost or 0.0, 4),
                "seconds_left": round(figures.seconds_left(run.hosts_done, total), 1),
            },
        )

    def _far(self, run: Run | None) -> str:
        return f"{self._figures.done(run.hosts_done) if run else 0:,} of {count(self._job.plan.hosts, 'host')}"

    def _summary(self) -> str:
        first, *others = self._service.targets
        return f"{first} and {len(others)} more" if others else first

    def _task(self) -> Task:
        service = self._service
        declared: dict[str, object] = {
            "targets": self._job.pinned.targets,
            "exclude": service.exclude,
            "left_out": self._job.exclude,
            "ports": str(self._job.ports),
            "profile": service.profile,
            "engine": service.engine,
            "discovery": "raw" if self._job.program.privileged else "connect",
            "chunk_size": self._job.plan.chunk_size,
            "names": self._job.pinned.resolved,
            "notes": self._job.pinned.notes,
        }
        if (want := self._job.want) is not None:
            chosen = (want.certificates, *want.scripts)
            declared["scripts"] = {script.name: script.sha256 for script in chosen if script is not None}
        return Task(
            self._job.plan.plan_hash,
            self._job.plan.hosts,
            self._job.plan.chunk_count,
            msgspec.json.encode(declared).decode(),
            seed=secrets.randbits(SEED_BITS),
            profile=service.profile,
            engine="nmap" if service.profile == "discovery" else self._job.kind,
        )
