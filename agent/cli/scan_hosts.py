"""``agentctl scan hosts``: what is so now, folded from all runs: since when, and seen when last."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from agent.cli import output, table, text
from agent.cli.base import Session, command
from agent.cli.names import SCAN
from agent.cli.scan_stores import each, find, nothing
from agent.cli.scan_words import remark, says_everything
from agent.cli.stores import warn

if TYPE_CHECKING:
    from agent.workers.scan.memory.reading import HostNow, PortNow

HEADS = ("SCAN", "ADDRESS", "PORT", "STATE", "FIRST SEEN", "LAST SEEN", "SERVICE")


@command(
    "hosts",
    short_help="Show what is so now: hosts, ports, since when.",
    examples=(
        "agentctl scan hosts",
        "agentctl scan hosts lan_scan --gone",
        "agentctl scan hosts --json | jq '.hosts[].ports[] | select(.state == \"open\" and .number == 23)'",
    ),
)
@click.argument("names", metavar="[NAME]...", nargs=-1, type=SCAN)
@click.option("--gone", is_flag=True, help="Also hosts that went, and ports that closed.")
def hosts(session: Session, names: tuple[str, ...], gone: bool) -> None:
    """Show the hosts and ports of the scans NAME, or all, as they are now.

    One run that misses a port does not close it: that takes a second one. FIRST SEEN and LAST SEEN are of the port
    being open. A capture may have seen a port, too.
    """
    found = find(session.paths(), names)
    told = each(found, lambda name, memory: (name, list(memory.now(gone=gone))), named=bool(names))
    warn(found.notes)
    if session.json:
        output.document(
            {
                "hosts": [document(name, host, gone=gone) for name, there in told for host in there],
                "unreadable": found.notes,
            }
        )
        return
    rows = [row for name, there in told for host in there for row in _rows(name, host, gone)]
    if rows:
        table.show(HEADS, rows)
    elif found.stores:
        print("no host was seen by a run that has ended")
    else:
        print(nothing(session.paths()))


def _shown(port: PortNow, gone: bool) -> bool:
    return gone or port.state in ("open", "open|filtered")


def document(name: str, host: HostNow, *, gone: bool) -> dict[str, Any]:
    """What ``--json`` says of a host. Times are unix seconds."""
    return {
        "scan": name,
        "site": host.site,
        "address": host.address,
        "state": host.state,
        "source": host.source,
        "mac": host.mac,
        "names": list(host.names),
        "os": list(host.os),
        "open_to_everything": host.everything,
        **_times(host),
        "ports": [
            {
                "protocol": port.protocol,
                "number": port.number,
                "state": port.state,
                "reason": port.reason,
                "service": port.service.name,
                "product": port.service.product,
                "version": port.service.version,
                "extrainfo": port.service.extrainfo,
                "tunnel": port.service.tunnel,
                "certificate": port.service.certificate.sha256 if port.service.certificate else "",
                "source": port.source,
                "confidence": port.confidence,
                **_times(port),
            }
            for port in host.ports
            if _shown(port, gone)
        ],
    }


def _times(one: HostNow | PortNow) -> dict[str, Any]:
    return {
        "first_seen": one.first_seen,
        "last_seen": one.last_seen,
        "last_looked": one.last_looked,
        "last_changed": one.last_changed,
        "misses": one.misses,
        "flapping": one.flapping,
    }


def _rows(name: str, host: HostNow, gone: bool) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        (
            name,
            host.address,
            f"{port.protocol}/{port.number}",
            _state(port),
            text.moment(port.first_seen),
            text.moment(port.last_seen),
            _service(port),
        )
        for port in host.ports
        if _shown(port, gone)
    ]
    everything = says_everything(host.everything) if host.everything else ""
    names = f"names: {', '.join(host.names)}" if host.names else ""
    beside = "; ".join(filter(None, (everything, names, f"system: {host.os[0]}" if host.os else "")))
    if host.everything or not rows:
        seen = text.moment(host.first_seen), text.moment(host.last_seen)
        return [(name, host.address, text.ABSENT, host.state, *seen, beside), *rows]
    return [*rows, *([("", "", "", "", "", "", beside)] if beside else [])]


def _state(port: PortNow) -> str:
    """``open``, and in few words why that may be wrong."""
    if port.flapping:
        return f"{port.state} (flapping)"
    if port.misses and port.confidence == "likely":
        return f"{port.state} (seen once)"
    return f"{port.state} (missed {port.misses}x)" if port.misses else port.state


def _service(port: PortNow) -> str:
    service = port.service
    name = "/".join(part for part in (service.tunnel, service.name) if part)
    extra = f"({service.extrainfo})" if service.extrainfo else ""
    parts = (name, service.product, service.version, extra, remark(port.reason))
    return " ".join(part for part in parts if part)
