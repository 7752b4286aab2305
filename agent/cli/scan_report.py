"""``agentctl scan report``: one page about what scans found: hosts, ports over time, changes, drift."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from agent.cli import output, text
from agent.cli.base import Session, command
from agent.cli.instants import SECOND, Span, span, spanned
from agent.cli.names import SCAN
from agent.cli.scan_hosts import document as host_document
from agent.cli.scan_list import document as run_document
from agent.cli.scan_stores import each, find, nothing, runs_of
from agent.cli.stores import Found, warn
from agent.cli.target import told, writing, written_to
from agent.errors import AgentError, RuntimeFailure, UsageError

if TYPE_CHECKING:
    from agent.paths import Paths
    from agent.workers.scan.memory.reading import Change, Memory, Run

MONTH = 30 * 86_400 * SECOND

MOST_CHANGES = 1000
"""Of one scan, the newest; how many there were beyond that is told."""


@command(
    "report",
    short_help="Make one page of hosts, ports over time, changes, drift.",
    examples=(
        "agentctl scan report -o report.html",
        "agentctl scan report lan_scan --last 7d -o - | ssh desk 'cat > report.html'",
        "agentctl scan report --json | jq '.changes[] | select(.kind == \"port_opened\")'",
    ),
)
@click.argument("names", metavar="[NAME]...", nargs=-1, type=SCAN)
@spanned
@written_to("the page")
def report(
    session: Session,
    names: tuple[str, ...],
    last: str | None,
    begin: str | None,
    end: str | None,
    target: str | None,
) -> None:
    """Write one page about what the scans NAME, or all, found in the last 30 days, unless another time is given.

    How many hosts and open ports there were run by run, what changed, where things are not as declared (as `agentctl
    drift` tells it now), and the hosts as they are now with their ports, first and last seen. The page is one file that
    needs nothing else, and is written whole or not at all. With --json and without -o, its figures are printed instead.
    """
    if target is None and not session.json:
        raise UsageError("name the file that the page is to go to, such as -o report.html; -o - is standard output")
    now = time.time_ns()
    within = span(now, last, begin, end) or Span(now - MONTH, now)
    paths = session.paths()
    found = find(paths, names)
    if not found.stores:
        raise RuntimeFailure(nothing(paths))
    figures = gather(paths, found, within, now, named=bool(names))
    warn([*found.notes, *figures["notes"]])
    if target is None:
        output.document(figures)
        return
    from agent.cli.scan_report_page import page

    made = page(figures).encode("utf-8", "replace")
    with writing(target) as file:
        file.write(made)
    told(session, target, text.size(len(made)), {"bytes": len(made)})


def gather(paths: Paths, found: Found, within: Span, now: int, *, named: bool) -> dict[str, Any]:
    """The figures of the page; times are unix seconds. Memories that cannot be read are treated as by ``each``."""
    begin, end = within.begin / SECOND, within.end / SECOND
    scans: list[dict[str, Any]] = []
    hosts: list[dict[str, Any]] = []
    changes: list[dict[str, Any]] = []

    def look(name: str, memory: Memory) -> tuple[str, list[Run], list[dict[str, Any]], list[Change]]:
        runs = [run for run in runs_of(memory) if run.started <= end and (run.ended is None or run.ended >= begin)]
        there = [host_document(name, host, gone=False) for host in memory.now()]
        return name, runs, there, memory.changes(since=begin, until=end, limit=MOST_CHANGES + 1)

    for name, runs, there, some in each(found, look, named=named):
        scans.append({"scan": name, "runs": list(map(run_document, runs)), "more_changes": len(some) > MOST_CHANGES})
        hosts += there
        changes += [_change(name, change) for change in some[-MOST_CHANGES:]]
    drift, left_out, notes = _drift(paths, now / SECOND)
    return {
        "made": now / SECOND,
        "from": begin,
        "to": end,
        "scans": scans,
        "changes": sorted(changes, key=lambda change: -change["time"]),
        "drift": drift,
        "left_out": left_out,
        "notes": notes,
        "hosts": hosts,
        "unreadable": found.notes,
    }


def _change(name: str, change: Change) -> dict[str, Any]:
    return {
        "scan": name,
        "run": change.run,
        "time": change.time,
        "site": change.site,
        "kind": change.kind,
        "address": change.address,
        "protocol": change.protocol,
        "number": change.number,
        "before": change.old,
        "after": change.new,
        "source": change.source,
    }


def _drift(paths: Paths, now: float) -> tuple[list[dict[str, Any]] | None, int, list[str]]:
    """What `agentctl drift` says now, how many rows that leaves out, and what it could not look at.

    ``None`` where there is no declaration to hold anything against.
    """
    from agent.cli.drift import record
    from agent.cli.drift_source import Source

    if not paths.declaration.exists():
        return None, 0, []
    try:
        source = Source(paths)
        judged = source.judge(now)
    except AgentError as error:
        return None, 0, [f"drift is left out: {str(error).splitlines()[0]}"]
    return [record(row, source) for row in judged.rows], judged.left_out, list(judged.notes)
