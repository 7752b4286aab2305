"""``agentctl drift``: what is declared, listens, was seen and was scanned, held against each other."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from agent.cli import output, table, text
from agent.cli.base import Session, command
from agent.cli.drift_source import Source
from agent.cli.guard import complain
from agent.errors import EXIT_OK, EXIT_RUNTIME, UsageError
from agent.linux import priority
from agent.telemetry.kinds import DRIFT_KINDS, DRIFT_SEVERITIES

if TYPE_CHECKING:
    from agent.workers.watch.row import Evidence, Row

HEADS = ("SEVERITY", "KIND", "HOST", "PORT", "SINCE", "WHAT")

EXIT_CODES = (
    "Exit codes: 0 success, 1 the declaration or the command line is wrong, 2 it failed while running, or with "
    "--exit-code there is drift, 130 Ctrl-C."
)


@command(
    "drift",
    examples=(
        "agentctl drift",
        "agentctl drift --least high --exit-code",
        "agentctl drift --host 10.20.0.0/24 --kind open_undeclared",
        "agentctl drift --json | jq -r '.rows[] | [.severity, .host, .what] | @tsv'",
    ),
    exit_codes=EXIT_CODES,
)
@click.option(
    "--kind", "kinds", metavar="KIND", type=click.Choice(DRIFT_KINDS), multiple=True, help="Of this kind only."
)
@click.option("--host", "where", metavar="WHICH", help="Of this address or network only.")
@click.option("--least", metavar="SEVERITY", type=click.Choice(DRIFT_SEVERITIES), help="This grave or graver.")
@click.option("--exit-code", is_flag=True, help="Exit with 2 when there is any.")
def drift(session: Session, kinds: tuple[str, ...], where: str | None, least: str | None, *, exit_code: bool) -> None:
    """Show where the declaration, the sockets of this host, captures and scans contradict each other.

    The gravest comes first. What no scan has asked for is told below the table and is never drift. This reads what the
    services have written below PREFIX/spool and looks at the sockets of this host; no agent need run. As root it sees
    the processes of all users.
    """
    network = _network(where)
    source = Source(session.paths())
    priority.be_idle()
    judged = source.judge(time.time())
    rows = [
        row
        for row in judged.rows
        if (not kinds or row.kind in kinds)
        and (least is None or DRIFT_SEVERITIES.index(row.severity) >= DRIFT_SEVERITIES.index(least))
        and (network is None or _within(row.host, network))
    ]
    if session.json:
        output.document(
            {
                "rows": [record(row, source) for row in rows],
                "left_out": judged.left_out,
                "notes": judged.notes,
            }
        )
    else:
        if rows:
            table.show(HEADS, [_cells(row, source) for row in rows])
        else:
            print("no such drift" if judged.rows else "no drift")
        if judged.left_out:
            print(f"and {judged.left_out:,} more, less grave")
        for note in judged.notes:
            complain(f"agentctl: {text.safe(note)}")
    raise SystemExit(EXIT_RUNTIME if exit_code and rows else EXIT_OK)


def _network(where: str | None) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    if where is None:
        return None
    try:
        return ipaddress.ip_network(where, strict=False)
    except ValueError:
        raise UsageError(
            f"--host {text.safe(where)}: not an address or network; write 10.20.0.5, 10.20.0.0/24 or fd00::1"
        ) from None


def _within(host: str, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    try:
        return ipaddress.ip_address(host.partition("%")[0]) in network
    except ValueError:  # of a service of this host
        return False


def _cells(row: Row, source: Source) -> Sequence[str]:
    host = f"{row.host}@{row.site}" if row.site else row.host
    shown = "; ".join(_told(one, source) for one in row.evidence)
    what = f"{row.what} [{shown}]"
    return row.severity, row.kind, host, row.service or text.ABSENT, text.moment(row.since), what


def _told(evidence: Evidence, source: Source) -> str:
    """The words of one source, with the time of it and where that is to be found."""
    data = evidence.data
    if evidence.source == "scanned":
        return f"{evidence.text}, at {text.moment(data['time'])}"
    if evidence.source == "seen":
        segment = source.segment(data["capture"], data["interface"], data["last"])
        where = f" in {segment.name}" if segment is not None else ""
        return f"{evidence.text}, {text.moment(data['first'])} to {text.moment(data['last'])}{where}"
    return evidence.text


def record(row: Row, source: Source) -> dict[str, Any]:
    """A row as JSON has it."""
    shown = []
    for one in row.evidence:
        parts = {"source": one.source, "text": one.text, **one.data}
        if one.source == "seen":
            segment = source.segment(one.data["capture"], one.data["interface"], one.data["last"])
            parts["segment"] = str(segment) if segment is not None else None
        shown.append(parts)
    return {
        "key": row.key,
        "kind": row.kind,
        "severity": row.severity,
        "site": row.site or None,
        "host": row.host,
        "protocol": row.protocol or None,
        "port": row.port or None,
        "what": row.what,
        "since": row.since,
        "expectations": list(row.expectations),
        "evidence": shown,
    }
