"""Folding runs that have ended into what is believed now, host by host, in steps that a kill between them cannot harm.

Each step is one transaction that folds a few hosts and notes how far it came; so every run is folded once, whatever
happens meanwhile. Between two steps there is time to beat, and to hear that the run is to end.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from agent.telemetry.database import transaction
from agent.workers.scan.found import PROTOCOLS, Host, Rest, answered
from agent.workers.scan.memory.beliefs import Beliefs
from agent.workers.scan.memory.coverage import Coverage, union
from agent.workers.scan.memory.fold import Change, Folded, Policy, fold
from agent.workers.scan.memory.picture import PortSet, decode, join
from agent.workers.scan.memory.picture import asked as asked_of
from agent.workers.scan.memory.state import HOST, HostState, Key
from agent.workers.scan.memory.ways import Discovery, Ways, discovery_of, reached

STEP: Final = 100
"""Hosts that one step folds at most: some 20 ms with 20 ports each."""

LONGEST: Final = 0.05
"""Seconds after which a step takes no further host: some have thousands of ports."""

FAILURES: Final = 3
"""How often a run may fail, the last time for good. What goes wrong each time must not be tried for ever with findings
that grow old meanwhile."""


class Doubt(NamedTuple):
    """Where a second look now would settle what one look left open: at some ports of a host.

    ``host``: the host itself did not answer, and the ports are those at which it should, if any are known.
    """

    address: str
    host: bool
    ports: tuple[Key, ...]


LATER: Final = 64
"""Runs after an old report that are asked whether they looked where it did."""


class _Run(NamedTuple):
    id: int
    site: str
    started: float
    ended: float
    quiet: bool
    policy: Policy


def settle(connection: sqlite3.Connection, path: Path, misses: int) -> Iterator[int]:
    """Fold every run that has ended and is not folded yet; gives the id of the run after each step.

    ``misses``: looks in a row until something is closed. Runs that are to be continued wait. Raises ``StorageFailure``.
    """
    while run := _next(connection, misses):
        coverage = Coverage(connection, run.id, run.site)
        beliefs = Beliefs(connection)
        since = _since(connection, run) if run.policy.late else []
        done = False
        while not done:
            with transaction(connection, path):
                done = _step(connection, run, coverage, beliefs, since)
            yield run.id


def doubts(connection: sqlite3.Connection, run: int, misses: int) -> Iterator[list[Doubt]]:
    """What a run under way, taken as it is now, would leave open, step by step. Nothing is changed."""
    row = connection.execute(_RUN, (run,)).fetchone()
    if row is None:
        return
    taken = _run(row, misses)
    taken = taken._replace(policy=replace(taken.policy, closing=True))
    coverage = Coverage(connection, run, taken.site)
    beliefs = Beliefs(connection)
    after = 0
    while hosts := _hosts(connection, taken, after):
        found: list[Doubt] = []
        for number, address, before, folded, _ in _fold(connection, taken, coverage, beliefs, hosts):
            after = number
            if folded and HOST in folded.doubts:
                ports = tuple(key for key, port in before.ports.items() if port.state == "open")
                found.append(Doubt(address, True, ports))
            elif folded and folded.doubts:
                found.append(Doubt(address, False, folded.doubts))
        yield found


def together(doubts: Iterable[Doubt]) -> dict[tuple[Key, ...], list[str]]:
    """The addresses to look at again, by the ports that they have in common: sets of ports, each asked in one go."""
    found: dict[tuple[Key, ...], list[str]] = {}
    for doubt in doubts:
        found.setdefault(tuple(sorted(doubt.ports)), []).append(doubt.address)
    return found


_RUN: Final = (
    "SELECT id, site, started, ended, status, degraded, quiet,"
    " CASE WHEN json_valid(declared) THEN json_extract(declared, '$.discovery') END,"
    " EXISTS (SELECT 1 FROM coverage WHERE run = runs.id AND outcome IN ('blind', 'dark')) FROM runs WHERE id = ?"
)


def _next(connection: sqlite3.Connection, misses: int) -> _Run | None:
    """The oldest run that can be folded. One that is to be continued can when another one has begun since."""
    [number] = connection.execute(
        "SELECT min(id) FROM runs WHERE NOT folded AND status != 'running' AND (status NOT IN ('interrupted', 'failed')"
        " OR status = 'failed' AND failures >= ? OR id < (SELECT max(id) FROM runs WHERE status != 'imported'))",
        (FAILURES,),
    ).fetchone()
    return _run(connection.execute(_RUN, (number,)).fetchone(), misses) if number is not None else None


def _run(row: tuple[Any, ...], misses: int) -> _Run:
    number, site, started, ended, status, degraded, quiet, discovery, partly = row
    imported = status == "imported"
    policy = Policy(
        misses=misses,
        closing=status in ("finished", "imported") and (not degraded or bool(partly)),
        late=imported,
        source="import" if imported else "",
        discovery=discovery_of(discovery),
    )
    return _Run(number, site, started, ended or started, bool(quiet), policy)


def _step(
    connection: sqlite3.Connection, run: _Run, coverage: Coverage, beliefs: Beliefs, since: Iterable[Coverage]
) -> bool:
    """Fold some hosts; whether that were the last."""
    [after] = connection.execute("SELECT folded_to FROM runs WHERE id = ?", (run.id,)).fetchone()
    hosts = _hosts(connection, run, after)
    everything = 0
    for number, address, before, folded, says_open in _fold(connection, run, coverage, beliefs, hosts, since):
        after = number
        everything += says_open
        if folded:
            beliefs.save(number, before, folded.state)
            tell(connection, run.id, run.site, address, folded.changes, run.ended, run.quiet)
    done = len(hosts) < STEP and (not hosts or after == hosts[-1][0])
    connection.execute(
        "UPDATE runs SET folded_to = ?, folded = ?, everything = everything + ? WHERE id = ?",
        (after, done, everything, run.id),
    )
    if done:
        connection.execute("DELETE FROM rechecked WHERE run = ?", (run.id,))
        connection.execute("DELETE FROM discovered WHERE run = ?", (run.id,))
        connection.execute("DELETE FROM again WHERE run = ?", (run.id,))
    return done


def tell(
    connection: sqlite3.Connection,
    run: int | None,
    site: str,
    address: str,
    changes: Iterable[Change],
    now: float,
    quiet: bool = False,
    source: str = "",
) -> None:
    """Write down changes of a host."""
    connection.executemany(
        "INSERT INTO changes (run, time, site, address, proto, port, kind, old, new, source, told)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            (run, now, site, address, *change.port, change.kind, change.old, change.new, source, quiet)
            for change in changes
        ),
    )


_Row = tuple[Any, ...]


def _hosts(connection: sqlite3.Connection, run: _Run, after: int) -> list[_Row]:
    """The next hosts that the run may have something to say about: those it saw, and those that are believed up."""
    return connection.execute(
        "SELECT hosts.id, hosts.address, seen.at, pictures.data FROM hosts"
        " LEFT JOIN seen ON seen.run = ? AND seen.host = hosts.id LEFT JOIN pictures ON pictures.id = seen.picture"
        " WHERE hosts.id > ? AND hosts.site = ? AND (hosts.state != '' OR seen.host IS NOT NULL)"
        " ORDER BY hosts.id LIMIT ?",
        (run.id, after, run.site, STEP),
    ).fetchall()


def _fold(
    connection: sqlite3.Connection,
    run: _Run,
    coverage: Coverage,
    beliefs: Beliefs,
    hosts: Iterable[_Row],
    since: Iterable[Coverage] = (),
) -> Iterator[tuple[int, str, HostState, Folded | None, bool]]:
    """Each host before and after, and whether the run found that it says open to everything; the first at least."""
    late = time.monotonic() + LONGEST
    for folded_yet, (number, address, at, data) in enumerate(hosts):
        if folded_yet and time.monotonic() > late:
            return
        silent, said = coverage.unseen(address)
        observed = decode(address, data) if data is not None else None
        policy = run.policy
        if said == "settled":
            policy = replace(policy, misses=1)
        elif said:
            policy = replace(policy, closing=False, dark=said == "dark" and policy.closing)
        if observed is None and silent is None and not said:
            yield number, address, HostState(), None, False
            continue
        if observed is not None and silent:
            observed = join(_unanswered(address, silent), observed)
        rows = connection.execute(
            "SELECT proto, port FROM rechecked WHERE run = ? AND host = ?", (run.id, number)
        ).fetchall()
        rechecked = {(protocol, port) for protocol, port in rows}
        now = run.started + at if at is not None else run.ended
        before = beliefs.load(number)
        folded = fold(
            before,
            observed,
            covered(before, observed, silent, policy.discovery),
            policy,
            now,
            rechecked,
            partial(_looked, since, address),
        )
        yield number, address, before, folded, observed is not None and observed.everything > 0


def covered(known: HostState, observed: Host | None, silent: PortSet | None, discovery: Discovery) -> bool:
    """Whether a host would have shown itself to a run: it was asked in a way in which it is known to answer.

    ``silent`` are the ports that were asked there in vain, beyond those of ``observed``; ``None``: it was not asked.
    """
    if observed is None and silent is None:
        return False
    if observed is not None and answered(observed):
        return True
    is_open = (
        (protocol, ((number, number),)) for (protocol, number), port in known.ports.items() if port.state == "open"
    )
    asked = union((silent or (), asked_of(observed) if observed else ()))
    return reached(Ways(known.ways.discovery, (*known.ways.ports, *is_open)), Ways(discovery, asked))


def _since(connection: sqlite3.Connection, run: _Run) -> list[Coverage]:
    """What the runs asked that are folded and looked after one that is late, the newest first."""
    rows = connection.execute(
        "SELECT id FROM runs WHERE site = ? AND folded AND status IN ('finished', 'imported') AND started >= ?"
        " AND (degraded = '' OR EXISTS (SELECT 1 FROM coverage WHERE run = runs.id AND outcome IN ('blind', 'dark')))"
        " ORDER BY started DESC LIMIT ?",
        (run.site, run.ended, LATER),
    ).fetchall()
    return [Coverage(connection, number, run.site) for (number,) in rows]


def _looked(since: Iterable[Coverage], address: str, key: Key) -> bool:
    """Whether one of these runs can tell about a port of an address, or about who is there."""
    return any(
        (coverage.looked(address) if key == HOST else coverage.asked(address, *key)) and not coverage.withheld(address)
        for coverage in since
    )


def _unanswered(address: str, ports: PortSet) -> Host:
    """Ports that were asked at a time when nobody answered there."""
    rest = (
        Rest(protocol, "filtered", "no-response", found)
        for protocol in PROTOCOLS
        for name, found in ports
        if name == protocol
    )
    return Host(address, "down", "no-response", rest=tuple(rest))
