"""A run out of the memory of a scan service, as comparisons and exports need it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from agent.workers.scan.argv import format_ports
from agent.workers.scan.found import Host
from agent.workers.scan.memory.coverage import Asked, Coverage
from agent.workers.scan.memory.reading import Run
from agent.workers.scan.memory.ways import discovery_of
from agent.workers.scan.side import Detection, Side

if TYPE_CHECKING:
    from agent.workers.scan.importing import Report

ENDED_BADLY: Final = {
    "running": "still under way",
    "failed": "unfinished: it failed",
    "interrupted": "unfinished: it was interrupted",
    "stopped": "unfinished: it was ended by hand",
}
"""What it means for the trust in a run that it has this status; it can be trusted with any other."""


@dataclass(frozen=True, slots=True)
class Told:
    """All that one run, or report, told: for an export. ``asked`` are addresses without an answer."""

    name: str
    """Such as ``lan_scan 12`` or ``scan.xml``."""
    started: float
    ended: float | None
    tool: str
    arguments: str
    doubt: str
    hosts: tuple[Host, ...]
    asked: tuple[Asked, ...]
    total: int
    nmap_version: str = ""
    """Empty: no nmap took part."""


def doubt(run: Run) -> str:
    """Why what a run did not see may be there; empty: it is not."""
    if run.status in ENDED_BADLY:
        return ENDED_BADLY[run.status]
    return f"degraded: {run.degraded}" if run.degraded else ""


def side(run: Run, coverage: Coverage) -> Side:
    """A stored run for a comparison; the database must stay open for that."""
    detection, scripts = looked_for(run)
    partly = coverage.withheld if run.status not in ENDED_BADLY and coverage.partly else None
    return Side(
        coverage.looked,
        coverage.ports,
        detection,
        scripts,
        doubt(run),
        partly,
        discovery=discovery_of(run.declared.get("discovery")),
        left=lambda address: coverage.outcome(address) == "timed_out",
    )


def looked_for(run: Run) -> tuple[Detection, bool]:
    """What the run wanted to know of an open port: which it asked for its service, and whether scripts were run.

    Our own scans leave ports alone that are known to be silent, so theirs is at most ``some``.
    """
    found = run.declared.get("detection")
    if found in ("none", "some", "every"):
        return found, bool(run.declared.get("scripts"))
    return ("some" if run.profile in ("services", "full") else "none"), run.profile == "full"


def told(name: str, run: Run, hosts: tuple[Host, ...], coverage: Coverage) -> Told:
    """A stored run for an export."""
    return Told(
        name=f"{name} {run.id}",
        started=run.started,
        ended=run.ended,
        tool=run.declared.get("tool", "agent") if run.status == "imported" else "agent",
        arguments=" ".join(run.argv),
        doubt=doubt(run),
        hosts=hosts,
        asked=tuple(coverage.without_picture()),
        total=run.hosts_total,
        nmap_version=run.nmap_version,
    )


def declared(report: Report, name: str) -> dict[str, Any]:
    """What an imported run keeps of where it comes from; ``looked_for`` reads it again."""
    return {
        "file": name,
        "tool": report.tool,
        "version": report.version,
        "sha256": report.digest,
        "ports": "; ".join(f"{protocol} {format_ports(ports)}" for protocol, ports in report.ports),
        "detection": report.detection,
        "scripts": report.scripts,
        "notes": report.notes,
    }
