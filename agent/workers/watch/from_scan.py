"""What the memory of a scan service says now, as drift takes it: which hosts are there, and what of each was asked.

Settled is what the memory settles: a port that one run has missed is open still. A port that was never open is what the
last trusted run that asked for it found. Runs that were broken off, or degraded, only ever open something.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Final

from agent.errors import StorageFailure
from agent.workers.scan import spans
from agent.workers.scan.found import Host, Port, Rest
from agent.workers.scan.memory.picture import PortSet
from agent.workers.scan.memory.reading import HostNow, Memory, PortNow, Run
from agent.workers.scan.spans import without
from agent.workers.watch.sources import Key, Known, Scanned

RUNS: Final = 200
"""The newest runs that are looked at for what they covered."""

PLANS: Final = 16
"""Of the plans that these had, so many: the newest run of each tells what it covers."""

IMPORTED: Final = "imported"
"""The status of a run that is a report of another program."""

LEAST_FRESH: Final = 8 * 86400.0
"""Seconds for which a run is held against anything, at least: as long as a week and a little."""


class Stale(StorageFailure):
    """There is no run that could be held against anything."""


def imported(path: Path) -> str | None:
    """The site of what was taken in last, if that was a report; ``None`` where a scan has run. Raises
    ``StorageFailure``.
    """
    with Memory(path) as memory:
        return next((run.site for run in memory.runs(1) if run.status == IMPORTED), None)


def read(
    path: Path, service: str, site: str, wanted: Iterable[str], now: float, *, imported: bool = False
) -> list[Scanned]:
    """What ``scan.db`` says at ``now``: what is settled, and what the newest runs of each plan found besides.

    ``wanted``: addresses that somebody wants to know of though they may be silent. ``imported``: as ``Scanned`` says.
    Raises ``StorageFailure``, and of it ``Stale``.
    """
    with Memory(path) as memory:
        runs = [run for run in memory.runs(RUNS) if run.trusted and run.folded and run.ended is not None]
        runs.sort(key=_end, reverse=True)  # reports may be taken in late
        if not runs:
            raise Stale(f"scan {service}: no run has come to its end yet")
        fresh = freshness([run for run in runs if run.status != IMPORTED] or runs)
        newest = runs[0].ended or 0.0
        if now - newest > fresh:
            days = (now - newest) / 86400
            raise Stale(f"scan {service}: its last run that counts ended {days:.0f} days ago")
        settled = {host.address: _known(host, runs) for host in memory.now(site=runs[0].site, gone=True)}
        found = [Scanned(service, settled, site, fresh, imported)]
        wanted = frozenset(wanted)  # asked of more than once
        for run, before in _plans(run for run in runs if now - (run.ended or 0.0) <= fresh):
            met, missed = _met(memory.hosts(run.id), run, settled), _missed(memory, run, settled, wanted)
            known = met | missed
            if before is not None:
                earlier = _met_before(memory, run, before, met, settled) | _missed(memory, before, settled, missed)
                known = {address: replace(one, before=earlier.get(address)) for address, one in known.items()}
            found.append(Scanned(service, known, site, fresh, imported))
        return found


def _met(hosts: Iterable[Host], run: Run, settled: Mapping[str, Known]) -> dict[str, Known]:
    return {host.address: _besides(host, settled[host.address], run) for host in hosts if _is_up(settled, host.address)}


def _met_before(
    memory: Memory, run: Run, before: Run, met: Mapping[str, Known], settled: Mapping[str, Known]
) -> dict[str, Known]:
    """What the run before ``run`` found of those that this one ``met``: of most the same, which is not read again."""
    differing = {host.address: pair.before for pair in memory.differing(before.id, run.id) if (host := pair.after)}
    same = {
        address: replace(one, run=before.id, at=_end(before), began=before.started)
        for address, one in met.items()
        if address not in differing
    }
    return same | _met((host for host in differing.values() if host is not None), before, settled)


def _missed(memory: Memory, run: Run, settled: Mapping[str, Known], wanted: Iterable[str]) -> dict[str, Known]:
    """Those that did not answer at all, and are not known to be up."""
    coverage = memory.coverage(run.id)
    return {
        address: _silent(address, settled.get(address), coverage.ports(address), run)
        for address in wanted
        if coverage.outcome(address) == "silent" and not _is_up(settled, address)
    }


def freshness(runs: Iterable[Run]) -> float:
    """Seconds for which runs like these, newest first, are held against anything: longer than any pause between two."""
    times = [run.ended or run.started for run in runs][:10]
    pauses = [later - earlier for later, earlier in pairwise(times)]
    return max(LEAST_FRESH, 2.5 * max(pauses, default=0.0))


def _plans(runs: Iterable[Run]) -> list[tuple[Run, Run | None]]:
    """The newest run of each plan, newest first, with the one before it."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run.plan_hash, []).append(run)
    return [(one[0], one[1] if len(one) > 1 else None) for one in list(found.values())[:PLANS]]


def _end(run: Run) -> float:
    return run.ended or run.started


def _known(host: HostNow, runs: list[Run]) -> Known:
    """What is settled: whether it is there, and the ports that were open at least once."""
    state = "up" if host.state == "up" else "down"
    ports = tuple(map(_port, host.ports)) if state == "up" else ()
    since: dict[Key, float] = {port.key: port.last_changed for port in host.ports}
    since["", 0] = host.last_changed
    # A look that has missed it is none that has found it.
    at = min(host.last_looked, host.last_seen) if state == "up" else host.last_looked
    run = _run_at(at, runs)
    return Known(
        Host(host.address, state, "", host.mac, host.names, ports, (), host.os),
        run.id,
        at,
        min(run.started, at),
        since,
        {port.key: _looked(port) for port in host.ports},
        settled=True,
    )


def _looked(port: PortNow) -> float:
    return min(port.last_looked, port.last_seen) if port.state == "open" else port.last_looked


def _is_up(known: Mapping[str, Known], address: str) -> bool:
    return address in known and known[address].host.state == "up"


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


def _run_at(when: float, runs: list[Run]) -> Run:
    """The run that was under way then, or the newest before."""
    return next((run for run in runs if run.started <= when), runs[-1])


def _besides(host: Host, settled: Known, run: Run) -> Known:
    """The ports that this run found anything but open, and of which the memory knows nothing."""
    known = {port.key for port in settled.host.ports}
    rest = [
        *host.rest,
        *(
            Rest(port.protocol, port.state, port.reason, ((port.number, port.number),))
            for port in host.ports
            if port.state != "open"
        ),
    ]
    left = tuple(one for one in (_without(one, known) for one in rest) if one.ports)
    made = Host(host.address, "up", host.reason, settled.host.mac, rest=left)
    return Known(made, run.id, _end(run), run.started)


def _without(rest: Rest, settled: set[Key]) -> Rest:
    holes = spans.of(number for protocol, number in settled if protocol == rest.protocol)
    return Rest(rest.protocol, rest.state, rest.reason, without(rest.ports, holes)) if holes else rest


def _silent(address: str, settled: Known | None, ports: PortSet, run: Run) -> Known:
    """An address that did not answer at all, and that is not known to be up."""
    rest = tuple(Rest(protocol, "filtered", "no-response", ranges) for protocol, ranges in ports)  # type: ignore[arg-type]  # as above
    since = settled.since if settled is not None else {}
    mac = settled.host.mac if settled is not None else ""
    return Known(Host(address, "down", "no-response", mac, rest=rest), run.id, _end(run), run.started, since)
