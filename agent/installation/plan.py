"""From what is wanted and what is there to steps. Pure.

Three laws, each a property test: after the steps what is there is what is wanted; a second plan then has no step; and
whichever step is the last that was done, planning anew and doing that ends in the same state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from agent.installation.entry import Directory, Entry, File, Found, Link, Strange, name, parent, same, within
from agent.installation.goal import Goal, optional_directories
from agent.installation.record import KEPT, Record, library, named, place, version_of
from agent.installation.steps import (
    Begin,
    CreateDirectories,
    CreateUsers,
    Declare,
    DeleteUsers,
    Discard,
    End,
    IndexCatalog,
    Make,
    Note,
    Point,
    Reload,
    Remove,
    RemoveDirectory,
    RemoveTree,
    Step,
    Stop,
    Sync,
    Write,
)
from agent.installation.units import CATALOG, KINDS, SYSUSERS, TMPFILES, UNITS, data


class Seen(msgspec.Struct, frozen=True):
    """What is there.

    ``entries``: what stands at each path that is wanted or recorded; where nothing stands there is no entry.
    ``children``: the names in each of those directories. ``directories``: what exists of the directories of the
    contract. ``reachable``: optional links that can be laid, or are laid: the way to them is root's alone.
    ``scratches``: what an interrupted step left. ``derived``: what others made of our units: links by which systemd
    starts them, drop-ins of jobs, when a timer elapsed last.
    ``in_use``: versions that other processes execute. ``claims_met``: systemd-tmpfiles would change nothing.
    ``obstructed``: where it would make a directory something else is; ``strangers``: where one is that it would give
    away with what somebody else has put there. ``declared``: there is a declaration.
    ``systemd``: one runs, and manages the system that is worked on. ``catalog``: journalctl has an index there.
    """

    record: Record | None = None
    entries: Mapping[str, Found] = {}
    children: Mapping[str, frozenset[str]] = {}
    directories: frozenset[str] = frozenset()
    reachable: frozenset[str] = frozenset()
    scratches: tuple[str, ...] = ()
    derived: tuple[str, ...] = ()
    users: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    in_use: frozenset[str] = frozenset()
    claims_met: bool = False
    obstructed: tuple[str, ...] = ()
    strangers: tuple[str, ...] = ()
    declared: bool = False
    systemd: bool = False
    catalog: bool = False


class Plan(NamedTuple):
    """``kept`` are paths that stay although they would go: changed by others, holding what is not ours, or data."""

    steps: list[Step]
    kept: list[str]


def install(goal: Goal, seen: Seen) -> Plan:
    """The steps towards ``goal``. What stands in their way is for ``objections`` to say before."""
    before = seen.record or Record(goal.prefix, complete=not goal.whole)
    mine = mine_of(goal, seen)
    aims = {entry.path for entry in wanted(goal, seen)}
    others = [entry for entry in before.laid if entry.path not in aims]
    staying = {goal.version, previous(goal, before), *seen.in_use}
    stale = [entry for entry in others if goal.whole and version_of(entry.path, goal.prefix) not in staying]
    removal = _removal(stale, seen, forced=False)
    intent = msgspec.structs.replace(
        before,
        complete=before.complete and not goal.whole,
        laid=_sorted([*before.laid, *mine]),
        data=_united(before.data, set(data(goal.prefix)) - seen.directories if goal.whole else ()),
        users=_united(before.users, set(goal.accounts.users) - seen.users),
        groups=_united(before.groups, set(goal.accounts.groups) - seen.groups),
    )
    laid = _sorted([*mine, *removal.left, *_settled([entry for entry in others if entry not in stale], seen)])
    final = msgspec.structs.replace(intent, laid=laid)
    if goal.whole:
        final = msgspec.structs.replace(
            final, version=goal.version, previous=previous(goal, before), complete=True, prefix=goal.prefix
        )
    work = _laying(goal, seen, removal.steps, interrupted=not before.complete)
    if not work and final == seen.record:
        return Plan(_discards(seen), removal.kept)
    opening: list[Step] = [Begin(intent)] if seen.record is None else _noting(intent, seen.record)
    return Plan([*_discards(seen), *opening, *work, *_noting(final, intent)], removal.kept)


def uninstall(record: Record, seen: Seen, *, purge: bool) -> Plan:
    """The steps that take back what ``record`` names; with ``purge`` what was changed since, and all data, too.

    A directory that was there before us is somebody's own, with what is in it.
    """
    prefix = record.prefix
    outliving = {f"{prefix}/{name}" for name in KEPT}
    there = [path for path in data(prefix) if path in seen.directories]
    going = [path for path in there if path in record.data and (purge or path not in outliving)]
    return _take_back(record, seen, going, accounts=purge, forced=purge)


def retreat(before: Record | None, seen: Seen) -> list[Step]:
    """The way back from an installation that failed: what it laid anew goes, what it made goes, all else stays.

    ``before`` is the record as it was. What had been replaced by then is still recorded in both forms: installing the
    old version again puts that in order.
    """
    now = seen.record
    if now is None:
        return _discards(seen)
    made = [path for path in now.data if path in seen.directories and (before is None or path not in before.data)]
    if before is None:
        return _take_back(now, msgspec.structs.replace(seen, systemd=False), made, accounts=True, forced=False).steps
    old = named(before)
    removal = _removal([entry for entry in now.laid if entry.path not in old], seen, forced=False)
    users = tuple(user for user in now.users if user not in before.users)
    groups = tuple(group for group in now.groups if group not in before.groups)
    replaced = [entry for entry in now.laid if entry.path in old]
    rest = msgspec.structs.replace(before, complete=False, laid=_sorted([*replaced, *removal.left]))
    return [
        *_discards(seen),
        *removal.steps,
        *(RemoveTree(path) for path in made),
        *_deletion(users, groups, seen),
        *_noting(before if set(rest.laid) == set(before.laid) else rest, now),
    ]


def wanted(goal: Goal, seen: Seen) -> list[Entry]:
    """All entries of the goal, each path once; of the optional ones those in whose place nothing else is."""
    entries: dict[str, Entry] = {entry.path: entry for entry in (*goal.tree, *goal.setup, *goal.rest)}
    return [*entries.values(), *(entry for entry in _optional(goal, seen) if entry.path not in entries)]


def _optional(goal: Goal, seen: Seen) -> list[Entry]:
    """The optional links that are laid, after the directories that they need."""
    entries: dict[str, Entry] = {}
    for link in goal.optional:
        found, laid = seen.entries.get(link.path), named(seen.record).get(link.path, ())
        if link.path in seen.reachable and (found is None or any(same(found, entry) for entry in (link, *laid))):
            entries |= {path: Directory(path) for path in optional_directories(link)}
            entries[link.path] = link
    return list(entries.values())


def mine_of(goal: Goal, seen: Seen) -> list[Entry]:
    """What of the goal is, or will be, ours: not the directories that were there before us."""
    laid = named(seen.record)
    return [
        entry
        for entry in wanted(goal, seen)
        if not (
            isinstance(entry, Directory)
            and isinstance(seen.entries.get(entry.path), Directory)
            and entry.path not in laid
        )
    ]


def previous(goal: Goal, before: Record) -> str:
    """The version that can be gone back to when the goal is reached; empty for none."""
    return before.version if before.version != goal.version else before.previous


def _settled(entries: Iterable[Entry], seen: Seen) -> list[Entry]:
    """Entries that stay, each path once: what was recorded in two forms, as the one that is there."""
    chosen: dict[str, Entry] = {}
    for entry in entries:
        found = seen.entries.get(entry.path)
        if entry.path not in chosen or (found is not None and same(found, entry)):
            chosen[entry.path] = entry
    return list(chosen.values())


def _laying(goal: Goal, seen: Seen, removals: list[Remove | RemoveDirectory], *, interrupted: bool) -> list[Step]:
    """Everything between the record of what is about to be and the record of what is."""
    made = set(_chain(goal.prefix))  # these come with the record itself
    tree, setup = _steps(goal.tree, seen, made), _steps(goal.setup, seen, made)
    steps: list[Step] = [*tree]
    if tree or (interrupted and goal.whole):
        steps.append(Sync(goal.prefix))
    if not goal.whole:
        return steps
    steps += setup
    missing = bool(set(goal.accounts.users) - seen.users or set(goal.accounts.groups) - seen.groups)
    if missing or setup or interrupted:
        steps.append(CreateUsers(_names(goal.setup, SYSUSERS), new=missing))
    if missing or setup or interrupted or not seen.claims_met:
        steps.append(CreateDirectories(_names(goal.setup, TMPFILES)))
    if goal.declaration is not None and not seen.declared:
        steps.append(Declare(goal.declaration.path, goal.declaration.group))
    rest = _steps([*goal.rest, *_optional(goal, seen)], seen, made)
    steps += [*rest, *removals]
    changed = [*(step.entry.path for step in rest), *(step.path for step in removals)]
    if seen.systemd and (interrupted or any(within(path, UNITS) for path in changed)):
        steps.append(Reload())
    if seen.catalog and (interrupted or any(within(path, CATALOG) for path in changed)):
        steps.append(IndexCatalog())
    return steps


def _steps(entries: Iterable[Entry], seen: Seen, made: set[str]) -> list[Make | Write | Point]:
    """What makes of each entry what it should be. ``made`` are directories that will be there by then."""
    steps: list[Make | Write | Point] = []
    for entry in entries:
        found = seen.entries.get(entry.path)
        match entry:
            case Directory() if found is None and entry.path not in made:
                made.add(entry.path)
                steps.append(Make(entry))
            case File() if found != entry:
                steps.append(Write(entry, replace=found is not None))
            case Link() if found != entry:
                steps.append(Point(entry, replace=found is not None))
    return steps


def _take_back(record: Record, seen: Seen, going: list[str], *, accounts: bool, forced: bool) -> Plan:
    """The way from an installation to none, but for what has changed since unless ``forced``."""
    chain = _chain(record.prefix)
    disabling = _disabling(seen)
    taken = {step.path for step in disabling}
    removal = _removal([entry for entry in record.laid if entry.path not in chain], seen, forced=forced, gone=taken)
    units = _units(record) if seen.systemd else ()
    staying = tuple(path for path in record.data if path in seen.directories and path not in going)
    rest = msgspec.structs.replace(
        record,
        complete=False,
        version="",
        previous="",
        laid=_sorted([*removal.left, *(entry for entry in record.laid if entry.path in chain)]),
        data=staying,
        users=() if accounts else record.users,
        groups=() if accounts else record.groups,
    )
    # The record stays as it is until the end, as it names all that may be left by then; so a full disk is no obstacle.
    steps: list[Step] = [*_discards(seen), *([Stop(units)] if units else [])]
    steps += disabling
    steps += removal.steps
    steps += [Reload()] if units else []
    steps += [IndexCatalog()] if seen.catalog and any(within(step.path, CATALOG) for step in removal.steps) else []
    steps += [RemoveTree(path) for path in going]
    steps += _deletion(record.users, record.groups, seen) if accounts else []
    if staying or rest.users or rest.groups or removal.left:
        steps += _noting(rest, record)
    else:
        steps.append(End(_last(record, seen, {*removal.gone, *going})))
    stays = [path for path in data(record.prefix) if path in seen.directories and path not in going]
    return Plan(steps, [*removal.kept, *stays])


class _Removal(NamedTuple):
    steps: list[Remove | RemoveDirectory]
    left: list[Entry]  # stays, and so stays recorded
    kept: list[str]
    gone: set[str]


def _removal(entries: Iterable[Entry], seen: Seen, *, forced: bool, gone: Iterable[str] = ()) -> _Removal:
    """How to remove entries, what lies deeper first, as far as they are still what was laid.

    ``gone`` is what will have been removed by then.
    """
    steps: list[Remove | RemoveDirectory] = []
    left: list[Entry] = []
    kept: list[str] = []
    gone = {*seen.scratches, *gone}
    by_path: dict[str, list[Entry]] = {}
    for entry in entries:
        by_path.setdefault(entry.path, []).append(entry)
    # What leads to the program goes before the program.
    for path in sorted(by_path, key=lambda path: (within(path, UNITS), path), reverse=True):
        laid, found = by_path[path], seen.entries.get(path)
        if found is None:
            gone.add(path)
        elif isinstance(laid[0], Directory) and isinstance(found, Directory):
            if {f"{path}/{child}" for child in seen.children.get(path, ())} <= gone:
                steps.append(RemoveDirectory(path))
                gone.add(path)
            elif any(within(entry.path, path) for entry in left):
                left += laid  # it goes when they do
            else:
                kept.append(path)
        elif not isinstance(found, Directory | Strange) and (forced or any(same(found, entry) for entry in laid)):
            steps.append(Remove(path))
            gone.add(path)
        else:
            left += laid
            kept.append(path)
    return _Removal(steps, left, kept, gone)


def _disabling(seen: Seen) -> list[Remove | RemoveDirectory]:
    """As ``systemctl disable`` does: links go, drop-ins too, and the directories of systemd that then hold nothing."""
    emptied = {
        above
        for above in map(parent, seen.derived)
        if parent(above) == UNITS
        and {f"{above}/{child}" for child in seen.children.get(above, ())} <= {*seen.derived, *seen.scratches}
    }
    return [*(Remove(path) for path in seen.derived), *(RemoveDirectory(path) for path in sorted(emptied))]


def _deletion(users: tuple[str, ...], groups: tuple[str, ...], seen: Seen) -> list[Step]:
    users = tuple(user for user in users if user in seen.users)
    groups = tuple(group for group in groups if group in seen.groups)
    return [DeleteUsers(users, groups)] if users or groups else []


def _names(entries: Iterable[Entry], directory: str) -> tuple[str, ...]:
    return tuple(name(entry.path) for entry in entries if parent(entry.path) == directory)


def _units(record: Record) -> tuple[str, ...]:
    """Names or patterns of the units that were laid, sockets and timers first: they would start the services again."""
    names = sorted({name(entry.path) for entry in record.laid if within(entry.path, UNITS)})
    found = [unit.replace("@.", "@*.") for unit in names if unit.endswith(KINDS)]
    return tuple(sorted(found, key=lambda unit: not unit.endswith((".socket", ".timer", ".path"))))


def _last(record: Record, seen: Seen, gone: set[str]) -> str | None:
    """The topmost directory on the way to the record that is ours and goes with it; ``None`` when none does."""
    laid = named(record)
    gone = {*gone, place(record.prefix)}
    last = None
    for path in reversed(_chain(record.prefix)):
        if path not in laid or not {f"{path}/{child}" for child in seen.children.get(path, ())} <= gone:
            break
        last = path
        gone.add(path)
    return last


def _chain(prefix: str) -> list[str]:
    """The directories from the topmost down to the one that holds the record."""
    parts = library(prefix).split("/")
    return ["/".join(parts[:count]) for count in range(2, len(parts) + 1)]


def _discards(seen: Seen) -> list[Step]:
    return [Discard(path) for path in seen.scratches]


def _noting(record: Record, before: Record) -> list[Step]:
    return [] if record == before else [Note(record)]


def _sorted(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Each once, by path; two of one path in an order that depends on nothing else."""
    return tuple(sorted(set(entries), key=lambda entry: (entry.path, repr(entry))))


def _united(one: Iterable[str], other: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({*one, *other}))
