"""What the memory of a scan service says now, as drift takes it: which hosts are there, and what of each was asked.

Settled is what the memory settles: a port that one run has missed is open still. A port that was never open is what the
last trusted run that asked for it found. Runs that were broken off, or degraded, only ever open something.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Final

from agent.errors import StorageFailure
from agent.workers.scan.found import Host, Port, Rest
from agent.workers.scan.memory.picture import PortSet
from agent.workers.scan.memory.reading import HostNow, Memory, PortNow, Run
from agent.workers.scan.plan import Ranges, merge, subtract
from agent.workers.watch.sources import Key, Known, Scanned

RUNS: Final = 200
"""The newest runs that are looked at for what they covered."""

PLANS: Final = 8
"""Of the plans that these had, so many: the newest run of each tells what it covers."""

LEAST_FRESH: Final = 8 * 86400.0
"""Seconds for which a run is held against anything, at least: as long as a week and a little."""


class Stale(StorageFailure):
    """There is no run that could be held against anything."""


def read(path: Path, service: str, site: str, wanted: Iterable[str], now: float) -> Scanned:
    """What ``scan.db`` says at ``now``. ``wanted``: addresses that somebody wants to know of though they may be silent.

    Raises ``StorageFailure``, and of it ``Stale``.
    """
    with Memory(path) as memory:
        runs = [run for run in memory.runs(RUNS) if run.trusted and run.folded and run.ended is not None]
        if not runs:
            raise Stale(f"scan {service}: no run has come to its end")
        fresh = freshness(runs)
        newest = runs[0].ended or 0.0
        if now - newest > fresh:
            days = (now - newest) / 86400
            raise Stale(f"scan {service}: its last run that counts ended {days:.0f} days ago")
        plans = _plans(run for run in runs if now - (run.ended or 0.0) <= fresh)
        known = {host.address: _known(host, runs) for host in memory.now(site=runs[0].site, gone=True)}
        for run in reversed(plans):  # what a newer one says counts
            for host in memory.hosts(run.id):
                if (before := known.get(host.address)) is not None:
                    known[host.address] = _with_rest(before, host, run)
            coverage = memory.coverage(run.id)
            for address in wanted:
                if coverage.outcome(address) == "silent":
                    known[address] = _silent(address, known.get(address), coverage.ports(address), run)
        return Scanned(service, known, site, fresh)


def freshness(runs: Iterable[Run]) -> float:
    """Seconds for which runs like these, newest first, are held against anything: longer than any pause between two."""
    times = [run.ended or run.started for run in runs][:10]
    pauses = [later - earlier for later, earlier in pairwise(times)]
    return max(LEAST_FRESH, 2.5 * max(pauses, default=0.0))


def _plans(runs: Iterable[Run]) -> list[Run]:
    """The newest run of each plan, newest first."""
    found: dict[str, Run] = {}
    for run in runs:
        found.setdefault(run.plan_hash, run)
    return list(found.values())[:PLANS]


def _known(host: HostNow, runs: list[Run]) -> Known:
    state = "up" if host.state == "up" else "down"
    ports = tuple(map(_port, host.ports)) if state == "up" else ()
    since: dict[Key, float] = {port.key: port.last_changed for port in host.ports}
    since["", 0] = host.last_changed
    return Known(
        Host(host.address, state, "", host.mac, host.names, ports, (), host.os),
        _run_at(host.last_looked, runs),
        host.last_looked,
        since,
        {port.key: port.last_looked for port in host.ports},
    )


def _port(port: PortNow) -> Port:
    service = port.service
    return Port(
        port.protocol,  # type: ignore[arg-type]  # the memory holds no others
        port.number,
        port.state,
        port.reason,
        service.name,
        service.product,
        service.version,
        service.extrainfo,
        service.tunnel,
        service.cpe,
        service.method,
        certificate=service.certificate,
    )


def _run_at(when: float, runs: list[Run]) -> int:
    """The run that was under way then, or the newest before."""
    return next((run.id for run in runs if run.started <= when), runs[-1].id)


def _with_rest(known: Known, host: Host, run: Run) -> Known:
    """With the ports that this run found anything but open, where the memory does not know better."""
    if known.host.state != "up":
        return known
    settled = {port.key for port in known.host.ports}
    rest = [*host.rest]
    for port in host.ports:
        if port.key not in settled and port.state != "open":
            rest.append(Rest(port.protocol, port.state, port.reason, ((port.number, port.number),)))
    fresh = [one for one in (_without(one, settled) for one in rest) if one.ports]
    taken: dict[str, Ranges] = {}
    for one in fresh:
        taken[one.protocol] = merge([*taken.get(one.protocol, ()), *one.ports])
    older = [
        Rest(one.protocol, one.state, one.reason, left)
        for one in known.host.rest
        if (left := subtract(one.ports, taken.get(one.protocol, ())))
    ]
    made = known.host
    at = max(known.at, run.ended or run.started)
    return Known(
        Host(made.address, made.state, made.reason, made.mac, made.names, made.ports, (*fresh, *older), made.os),
        max(known.run, run.id),
        at,
        known.since,
        known.looked,
    )


def _without(rest: Rest, settled: set[tuple[str, int]]) -> Rest:
    holes = merge((number, number) for protocol, number in settled if protocol == rest.protocol)
    return Rest(rest.protocol, rest.state, rest.reason, subtract(rest.ports, holes))


def _silent(address: str, known: Known | None, ports: PortSet, run: Run) -> Known:
    """An address that did not answer at all: down, unless the memory knows that it is up and was missed once."""
    at = run.ended or run.started
    if known is not None and (known.host.state == "up" or known.at >= at):
        return known
    rest = tuple(Rest(protocol, "filtered", "no-response", ranges) for protocol, ranges in ports)  # type: ignore[arg-type]  # as above
    since = known.since if known is not None else {}
    mac = known.host.mac if known is not None else ""
    return Known(Host(address, "down", "no-response", mac, rest=rest), run.id, at, since)
