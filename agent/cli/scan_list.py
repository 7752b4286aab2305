"""``agentctl scan list``: the scans that have found something, and their runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from agent.cli import output, table, text
from agent.cli.base import Session, command
from agent.cli.names import SCAN
from agent.cli.scan_stores import EVERY, each, find, nothing
from agent.cli.scan_words import open_to_everything
from agent.cli.stores import warn

if TYPE_CHECKING:
    from agent.workers.scan.memory.reading import Run

HEADS = ("SCAN", "RUN", "STARTED", "TOOK", "STATUS", "HOSTS", "UP", "OPEN", "LOSS", "NOTE")
_NUMBERS = ("RUN", "HOSTS", "UP", "OPEN", "LOSS")


@command(
    "list",
    short_help="Show the scans and their runs.",
    examples=(
        "agentctl scan list",
        "agentctl scan list lan_scan --runs 100",
        "agentctl scan list --json | jq '.scans[].runs[] | select(.degraded != \"\")'",
    ),
)
@click.argument("names", metavar="[NAME]...", nargs=-1, type=SCAN)
@click.option(
    "--runs", type=click.IntRange(1, EVERY), default=10, show_default=True, help="So many of each, the newest."
)
def list_runs(session: Session, names: tuple[str, ...], runs: int) -> None:
    """Show for the scans NAME, or all, their newest runs: when, how long, how it ended, what it asked and found.

    HOSTS are the addresses that were asked for. LOSS is how many of the probes got lost on the way, where it was
    measured. OPEN leaves out hosts that say open to everything. All of it is read below
    PREFIX/spool; no agent need run.
    """
    found = find(session.paths(), names)
    told = each(found, lambda name, memory: (name, memory.runs(runs)), named=bool(names))
    warn(found.notes)
    if session.json:
        scans = [{"scan": name, "runs": [document(run) for run in newest]} for name, newest in told]
        output.document({"scans": scans, "unreadable": found.notes})
        return
    rows = [_row(name, run) for name, newest in told for run in newest]
    if rows:
        table.show(HEADS, rows, right=_NUMBERS)
    else:
        print(nothing(session.paths()))


def document(run: Run) -> dict[str, Any]:
    """What ``--json`` says of a run. Times are unix seconds."""
    return {
        "run": run.id,
        "site": run.site,
        "started": run.started,
        "ended": run.ended,
        "seconds": None if run.ended is None else round(run.ended - run.started, 3),
        "status": run.status,
        "message": run.message,
        "degraded": run.degraded,
        "profile": run.profile,
        "engine": run.engine,
        "nmap_version": run.nmap_version,
        "plan_hash": run.plan_hash,
        "seed": run.seed,
        "declared": run.declared,
        "sent": run.sent,
        "answered": run.answered,
        "loss": run.loss,
        "hosts_total": run.hosts_total,
        "hosts_up": run.hosts_up,
        "ports_open": run.ports_open,
        "open_to_everything": run.everything,
        "chunks_total": run.chunks_total,
        "chunks_done": run.chunks_done,
    }


def _row(name: str, run: Run) -> tuple[str, ...]:
    return (
        name,
        str(run.id),
        text.moment(run.started),
        text.ABSENT if run.ended is None else text.duration(run.ended - run.started),
        status(run),
        f"{run.hosts_total:,}",
        f"{run.hosts_up:,}",
        f"{run.ports_open:,}",
        loss(run),
        note(run),
    )


def status(run: Run) -> str:
    """How it ended; a run that overlooked something is ``degraded``, whatever else it says."""
    return "degraded" if run.degraded and run.status in ("finished", "imported") else run.status


def loss(run: Run) -> str:
    return text.ABSENT if run.loss is None else f"{run.loss:.1%}"


def note(run: Run) -> str:
    """What else there is to say of a run, in a line."""
    return "; ".join(part for part in (run.degraded or run.message, open_to_everything(run.everything)) if part)
