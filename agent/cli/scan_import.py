"""``agentctl scan import``: reports of nmap and masscan become runs of a scan."""

from __future__ import annotations

import json
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from agent.cli import output, text
from agent.cli.base import Session, command
from agent.cli.declared import services
from agent.cli.guard import complain
from agent.cli.names import SCAN
from agent.cli.scan_files import read, short, text_of
from agent.cli.scan_stores import EVERY
from agent.cli.stores import Store, place
from agent.errors import StorageFailure, UsageError
from agent.paths import SCAN_MEMORY, Paths

if TYPE_CHECKING:
    from agent.workers.scan.importing import Report


@command(
    "import",
    short_help="Take reports of nmap and masscan into a scan.",
    examples=(
        "agentctl scan import lan_scan old/*.xml",
        "masscan 10.0.0.0/16 -p80,443 -oX found.xml && agentctl scan import sweep found.xml",
    ),
)
@click.argument("name", metavar="NAME", type=SCAN)
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
def import_reports(session: Session, name: str, files: tuple[str, ...]) -> None:
    """Add XML reports (-oX) of nmap or masscan to what the scan NAME remembers, each as a run of its own.

    NAME is a scan of the declaration, or any other name: then what is imported stays by itself. All files are read
    before the first is stored; when one cannot be used nothing is. A report counts for what it asked: nmap writes down
    the ports, and masscan only what answered. What two reports in a row have missed counts as gone, if nothing but
    reports has ever told of it.
    """
    paths = session.paths()
    reports = [(path, read(path)) for path in files]
    for path, report in reports:
        for note in report.notes:
            complain(f"agentctl: {path}: {note}")
    store = place(paths, name)
    stored = _store(paths, store, reports)
    if session.json:
        output.document({"scan": name, "imported": stored})
        return
    for one in stored:
        print(
            text.safe(
                f"{one['file']}: run {one['run']} of {name}: {text.count(one['hosts_up'], 'host')} up,"
                f" {text.count(one['ports_open'], 'port')} open, by {one['tool']} {one['version']}"
            )
        )


def _store(paths: Paths, store: Store, reports: list[tuple[str, Report]]) -> list[dict[str, Any]]:
    """Store them in the order in which they began. Raises ``UsageError`` for one that is there already."""
    from agent.workers.scan.found import answered
    from agent.workers.scan.memory.reading import Memory
    from agent.workers.scan.store import ScanStore, Task
    from agent.workers.scan.stored import declared

    _insist_on_a_place(paths, store)
    site = _site(paths, store)
    told = []
    with store.seen() as directory:
        database = directory / SCAN_MEMORY
        with closing(ScanStore(database, site=site)) as writer:
            with Memory(database) as memory:
                known = {run.plan_hash: run.id for run in memory.runs(EVERY) if run.status == "imported"}
            for path, report in reports:
                if report.digest in known:
                    raise UsageError(f"{path}: it was imported already: run {known[report.digest]} of {store.name}")
            now = time.time()
            for path, report in sorted(reports, key=lambda one: one[1].started):
                if report.digest in known:  # the same file twice
                    continue
                started = min(report.started or now, now)
                task = Task(
                    plan_hash=report.digest,
                    hosts=report.total,
                    chunks=1,
                    declared=json.dumps(declared(report, short(path))),
                    argv=report.arguments.split()[:256],
                    engine=report.tool,
                    nmap_version=report.version if report.tool == "nmap" else "",
                )
                run = writer.take_in(
                    task,
                    report.hosts,
                    started=started,
                    ended=max(started, min(report.ended or started, now)),
                    asked=report.asked,
                    message=f"imported from {short(path)}",
                    now=now,
                )
                known[report.digest] = run
                told.append(
                    {
                        "file": text_of(path),
                        "run": run,
                        "tool": report.tool,
                        "version": report.version,
                        "started": started,
                        "hosts_total": report.total,
                        "hosts_up": sum(map(answered, report.hosts)),
                        "ports_open": sum(port.state == "open" for host in report.hosts for port in host.ports),
                        "notes": report.notes,
                    }
                )
            writer.prune(*_history(paths, store), time.time())
    return told


def _history(paths: Paths, store: Store) -> tuple[float, int, float]:
    """What is remembered, and for how long: as declared, and of any other name as of a scan that declares nothing."""
    from agent.declaration.model import History, Scan

    service = services(paths).get(store.name)
    history = service.history if isinstance(service, Scan) else History()
    return history.max_age, history.size, history.raw


def _insist_on_a_place(paths: Paths, store: Store) -> None:
    """Raise ``UsageError`` for the name of a service that is no scan, ``StorageFailure`` where there is no prefix."""
    from agent.declaration.model import Scan

    found = services(paths).get(store.name)
    if found is not None and not isinstance(found, Scan):
        raise UsageError(f"{store.name} is a {found.kind} in {paths.declaration}, and no scan")
    if store.name == paths.agent_spool.name:
        raise UsageError(f"{store.name} is the name of the agent's own directory; choose another")
    with store.seen() as directory:
        if not directory.parent.is_dir():
            raise StorageFailure(f"{directory.parent}: there is no such directory; run `agentctl init` first")
        if directory.is_dir() and not (directory / SCAN_MEMORY).exists() and any(directory.iterdir()):
            raise UsageError(f"{directory} holds something else; choose another name")


def _site(paths: Paths, store: Store) -> str:
    """Where the addresses of a scan are: as its declaration says, else as its runs do, else at this server."""
    from agent.declaration.model import Scan
    from agent.declaration.sources import Disk
    from agent.workers.scan.memory.reading import Memory

    service = services(paths).get(store.name)
    if isinstance(service, Scan):
        return service.site
    with store.seen() as directory:
        if (directory / SCAN_MEMORY).exists():
            with Memory(directory / SCAN_MEMORY) as memory:
                return next((run.site for run in memory.runs(1)), Disk().server())
    return Disk().server()
