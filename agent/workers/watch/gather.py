"""The four sources, read: for the watch and for ``agentctl drift``. No agent need run.

What cannot be read, or is too old, is told of and keeps nobody from the rest; rows that depend on it are neither made
nor taken back.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, NamedTuple

from agent.declaration.model import Declared, Expect
from agent.errors import RuntimeFailure, StorageFailure
from agent.paths import SCAN_MEMORY
from agent.workers.inventory import local
from agent.workers.inventory.sighting import unicast
from agent.workers.watch import from_capture, from_declaration, from_scan
from agent.workers.watch.evidence import LISTENING
from agent.workers.watch.expectation import Expectation
from agent.workers.watch.from_declaration import Names, Unresolved
from agent.workers.watch.listening import Listener, ephemeral, listeners
from agent.workers.watch.sources import Claim, Scanned, Sight, Sources

OLD_INVENTORY: Final = 3600.0
"""Seconds after which it is told that a capture has not written its inventory."""

MOST_IMPORTS: Final = 100
"""Names under which reports were imported, and that nobody has declared: so many are read, by the alphabet."""

_NAME = re.compile(r"[a-z][a-z0-9_]*", re.ASCII)
_TOLD = 5

Seen = Callable[[str], AbstractContextManager[Path]]
"""The spool directory of a service, while the block runs with the eyes of whoever may look into it."""


class Watched(NamedTuple):
    """What of a declaration drift is about. ``server`` is the name of this host: scans of that site are its own."""

    expects: tuple[Expect, ...]
    declared: tuple[Declared, ...]
    server: str = ""


class Gathered(NamedTuple):
    """``notes``: a line for each source that says less than it should."""

    sources: Sources
    notes: list[str]


def gather(
    watched: Watched,
    seen: Seen,
    now: float,
    *,
    names: Names | None = None,
    noticed: Mapping[tuple[str, str, int], float] | None = None,
    stored: Iterable[str] = (),
) -> Gathered:
    """Read everything at ``now``, unix seconds. Of what is ``stored``, by name, imports are read though nobody has
    declared them. Raises nothing but what is a bug.
    """
    notes: list[str] = []
    blind: set[str] = set()
    expectations = _expectations(watched.expects, names or Names(), notes, blind)
    listening = _listening(notes, blind)
    own = frozenset(address for address in local.own() if unicast(address) == address)
    captures = [one.name for one in watched.declared if one.kind == "capture"]
    sights: list[Sight] = []
    claims: list[Claim] = []
    for name in captures:
        _capture(name, seen, now, sights, claims, notes, blind)
    wanted = {address for one in expectations for address in one.named} | own | {one.address for one in sights}
    wanted |= {address for one in listening or () for address in one.addresses}
    scans: list[Scanned] = []
    for one in watched.declared:
        if one.kind == "scan":
            site = "" if one.site in ("", watched.server) else one.site
            try:
                with seen(one.name) as directory:
                    scans += from_scan.read(directory / SCAN_MEMORY, one.name, site, wanted, now)
            except StorageFailure as error:
                blind.add(f"scan {one.name}")
                notes.append(str(error))
    others = sorted({*stored} - {one.name for one in watched.declared})
    _imports(others, watched.server, seen, wanted, now, scans, notes, blind)
    sources = Sources(
        tuple(expectations),
        tuple(from_declaration.services(watched.declared)),
        listening,
        own,
        tuple(sights),
        tuple(claims),
        tuple(scans),
        frozenset(blind),
        noticed,
        ephemeral(),
    )
    return Gathered(sources, notes)


def stores(spool: Path) -> list[str]:
    """The names of what may be stored there; none of a directory that cannot be read."""
    try:
        return [path.name for path in spool.iterdir() if _NAME.fullmatch(path.name)]
    except OSError:
        return []


def _imports(
    names: list[str],
    server: str,
    seen: Seen,
    wanted: Iterable[str],
    now: float,
    scans: list[Scanned],
    notes: list[str],
    blind: set[str],
) -> None:
    old: list[str] = []
    read = 0
    for name in names:
        try:
            with seen(name) as directory:
                path = directory / SCAN_MEMORY
                if not path.is_file() or (site := from_scan.imported(path)) is None:
                    continue
                if read == MOST_IMPORTS:
                    notes.append(f"imported under more than {MOST_IMPORTS} names; {name} and what follows are left out")
                    break
                read += 1
                here = "" if site in ("", server, os.uname().nodename) else site  # as `scan import` has it
                scans += from_scan.read(path, name, here, wanted, now, imported=True)
        except from_scan.Stale:
            blind.add(f"scan {name}")
            old.append(name)
        except StorageFailure as error:
            blind.add(f"scan {name}")
            notes.append(str(error))
        except OSError:  # not ours to look into: of a command with a user of its own
            continue
    if old:
        more = f" and {len(old) - _TOLD} more" if len(old) > _TOLD else ""
        notes.append(f"imported, and too old to be held against anything: {', '.join(old[:_TOLD])}{more}")


def _expectations(expects: Iterable[Expect], names: Names, notes: list[str], blind: set[str]) -> list[Expectation]:
    found = []
    for one in expects:
        try:
            found.append(from_declaration.expectation(one, names))
        except Unresolved as error:
            blind.add(f"expect {one.name}")
            notes.append(f"expect.{one.name}: {error}")
    return found


def _listening(notes: list[str], blind: set[str]) -> tuple[Listener, ...] | None:
    try:
        return tuple(listeners())
    except RuntimeFailure as error:
        blind.add(LISTENING)
        notes.append(str(error))
        return None


def _capture(
    name: str, seen: Seen, now: float, sights: list[Sight], claims: list[Claim], notes: list[str], blind: set[str]
) -> None:
    try:
        with seen(name) as directory:
            found = from_capture.read(directory, name)
    except StorageFailure as error:
        blind.add(f"capture {name}")
        notes.append(str(error))
        return
    if found is None:
        blind.add(f"capture {name}")
        notes.append(f"capture {name}: it knows of no hosts yet")
        return
    sights += found.sights
    claims += found.claims
    if now - found.written > OLD_INVENTORY:
        hours = (now - found.written) / 3600
        notes.append(f"capture {name}: it has seen nobody for {hours:.0f} hours")
