"""What is there of an installation: looked at, and nothing changed."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from agent.errors import RuntimeFailure
from agent.installation import accounts, timer_files
from agent.installation.entry import Directory, Entry, File, Found, Link, Strange, name, parent, within
from agent.installation.goal import Goal, anchor, optional_directories
from agent.installation.plan import Seen
from agent.installation.record import Record, library, named, place, read, version_of
from agent.installation.tree import PROGRAM, digest
from agent.installation.units import SHIPPED_UNITS, UNITS, Claim, data
from agent.installation.whose import owner
from agent.linux import systemd
from agent.linux.process import all_pids
from agent.linux.rooted import directory, names

LINKED = (".wants", ".requires", ".upholds")
"""Directories of links by which a unit is enabled, systemd.unit(5)."""

INDEX = "/var/lib/systemd/catalog/database"
"""What ``journalctl --update-catalog`` makes; where there is none nobody asks for explanations."""

_NEW = Directory("")  # what is not there yet will be one
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def observe(root: Path, prefix: str, goal: Goal | None) -> Seen:
    """What is there below ``root`` of a goal, and of what the record of the prefix names.

    Raises ``RuntimeFailure`` when it cannot be told, or when others could exchange it under our hands.
    """
    record = read(root, prefix)
    aims: list[Entry] = [*goal.tree, *goal.setup, *goal.rest] if goal else []
    laid = list(record.laid) if record else []
    directories = {entry.path for entry in [*aims, *laid] if isinstance(entry, Directory)}
    paths = {entry.path for entry in [*aims, *laid]} | set(_above(library(prefix))) | {place(prefix)}
    entries, children, scratches = _look(root, paths, directories)
    there = {path for path in data(prefix) if _is_directory(root, path, trust=True)}
    reachable: set[str] = set()
    for link in goal.optional if goal else ():
        with suppress(RuntimeFailure):  # where others can write we lay no link, and need none
            ways = set(optional_directories(link))
            found, _, left = _look(root, {link.path, *ways}, ways)
            if _is_directory(root, anchor(link)) and all(isinstance(found.get(way, _NEW), Directory) for way in ways):
                reachable.add(link.path)
                entries |= found
                scratches += left
    if goal and goal.declaration:
        scratches += _look(root, {goal.declaration.path}, set())[2]
    derived = _derived(root, record) if record else set()
    users = {*(goal.accounts.users if goal else ()), *(record.users if record else ())}
    groups = {*(goal.accounts.groups if goal else ()), *(record.groups if record else ())}
    return Seen(
        record=record,
        entries=entries,
        children=children | {above: _names(root, above) for above in map(parent, derived)},
        directories=frozenset(there),
        reachable=frozenset(reachable),
        scratches=tuple(sorted(set(scratches))),
        derived=tuple(sorted(derived)),
        users=frozenset(user for user in users if accounts.uid(root, user) is not None),
        groups=frozenset(group for group in groups if accounts.gid(root, group) is not None),
        in_use=frozenset(users_of(root, prefix, [*aims, *laid])),
        claims_met=goal is not None and all(_met(root, claim) for claim in goal.claims),
        strangers=tuple(
            claim.path
            for claim in (goal.claims if goal else ())
            if claim.path in there and claim.path not in (record.data if record else ()) and _is_strangers(root, claim)
        ),
        obstructed=tuple(claim.path for claim in (goal.claims if goal else ()) if _obstructed(root, claim.path)),
        declared=goal is not None and goal.declaration is not None and _exists(root, goal.declaration.path),
        systemd=root == Path("/") and systemd.booted(),
        catalog=_exists(root, INDEX),
    )


def users_of(root: Path, prefix: str, entries: Iterable[Entry]) -> dict[str, list[int]]:
    """Who executes the program of which version: processes other than this one.

    They are known by the file that they execute, whatever they see as its path.
    """
    programs: dict[tuple[int, int], str] = {}
    for version in {version_of(entry.path, prefix) for entry in entries} - {None}:
        with suppress(OSError, RuntimeFailure), directory(root, f"{library(prefix)}/{version}") as found:
            status = os.stat(PROGRAM, dir_fd=found, follow_symlinks=False)
            programs[status.st_dev, status.st_ino] = str(version)
    using: dict[str, list[int]] = {}
    for pid in all_pids() if programs else ():
        with suppress(OSError):
            status = Path(f"/proc/{pid}/exe").stat()
            version = programs.get((status.st_dev, status.st_ino))
            if version is not None and pid != os.getpid():
                using.setdefault(version, []).append(pid)
    return using


def processes_of(user: str) -> list[int]:
    """The processes on this system that run as a user."""
    uid, found = accounts.uid(Path("/"), user), []
    for pid in all_pids():
        with suppress(OSError):
            if Path(f"/proc/{pid}").stat().st_uid == uid:
                found.append(pid)
    return found


def foreign_units(goal: Goal, seen: Seen, root: Path) -> Mapping[str, str | None]:
    """The units that stand where ours go and were not laid by us, and the prefix of the agent that they belong to."""
    laid = named(seen.record)
    found: dict[str, str | None] = {}
    for entry in goal.rest:
        if within(entry.path, UNITS) and entry.path not in laid and isinstance(seen.entries.get(entry.path), File):
            found[entry.path] = owner(_text(root, entry.path))
    return found


def shipped_units(goal: Goal, root: Path) -> tuple[str, ...]:
    """Units of a package that have the names of ours."""
    units = [name(entry.path) for entry in goal.rest if isinstance(entry, File) and within(entry.path, UNITS)]
    found = [f"{above}/{unit}" for above in SHIPPED_UNITS for unit in units if _exists(root, f"{above}/{unit}")]
    return tuple({name(path): path for path in reversed(found)}.values())[:1]


def _look(
    root: Path, paths: set[str], directories: set[str]
) -> tuple[dict[str, Found], dict[str, frozenset[str]], list[str]]:
    """What stands at ``paths``, what is in ``directories``, and scratches of steps that had to do with any of them."""
    entries: dict[str, Found] = {}
    children: dict[str, frozenset[str]] = {}
    scratches: list[str] = []
    inside: dict[str, list[str]] = {}
    for path in paths:
        inside.setdefault(parent(path), []).append(path)
    for above, below in inside.items():
        with _opened(root, above) as descriptor:
            if descriptor is None:
                continue
            there = set(names(descriptor))
            scratches += [f"{above.rstrip('/')}/{scratch}" for scratch in map(scratch_of, below) if scratch in there]
            for path in below:
                if name(path) in there and (found := _found(root, path, descriptor, path in directories)):
                    entries[path] = found
    for path in directories | {above for above in inside if above != "/"}:
        if path in directories or path in paths:
            children[path] = _names(root, path)
    return entries, children, scratches


def scratch_of(path: str) -> str:
    """The name, beside ``path``, under which it is prepared."""
    return f".{name(path)}.agentctl"


def _found(root: Path, path: str, above: int, as_directory: bool) -> Found | None:
    try:
        status = os.stat(name(path), dir_fd=above, follow_symlinks=False)
        mode = f"{stat.S_IMODE(status.st_mode):04o}"
        if stat.S_ISDIR(status.st_mode) or (as_directory and _is_directory(root, path)):
            return Directory(path, mode)
        if stat.S_ISLNK(status.st_mode):
            return Link(path, os.readlink(name(path), dir_fd=above))
        if stat.S_ISREG(status.st_mode):
            descriptor = os.open(name(path), _READ, dir_fd=above)
            try:
                return File(path, mode, digest(descriptor))
            finally:
                os.close(descriptor)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RuntimeFailure(f"{path}: cannot be read: {error.strerror}") from error
    return Strange(path, "a device, pipe or socket")


def _derived(root: Path, record: Record) -> set[str]:
    """Links in systemd's configuration that start our units or give them other names; and what belongs to our jobs.

    Drop-ins of jobs bear the mark of the prefix they were made for. An operator's own are the operator's.
    """
    ours = {name(entry.path) for entry in record.laid if parent(entry.path) == UNITS and isinstance(entry, File)}
    found: set[str] = set()
    for above in [UNITS, *(f"{UNITS}/{child}" for child in _names(root, UNITS) if child.endswith(LINKED))]:
        with _opened(root, above) as descriptor:
            for child in names(descriptor) if descriptor is not None else ():
                with suppress(OSError):
                    target = os.readlink(child, dir_fd=descriptor)
                    if {_template(child), _template(name(target))} & ours:
                        found.add(f"{above}/{child}")
    for job, lies in timer_files.look(root, Path(record.prefix)).items():
        found |= {timer_files.drop_in(job, "timer")} if lies.timer is not None else set()
        found |= {timer_files.drop_in(job, "service")} if lies.service is not None else set()
    found |= {
        f"{timer_files.STAMPS}/{child}"
        for child in _names(root, timer_files.STAMPS)
        if child.startswith("stamp-") and _template(child.removeprefix("stamp-")) in ours
    }
    return found


def _template(unit: str) -> str:
    """``agent-job@nightly.timer`` as ``agent-job@.timer``."""
    return re.sub(r"@[^.]+\.", "@.", unit)


def _met(root: Path, claim: Claim) -> bool:
    with _opened(root, claim.path, trust=True) as descriptor:
        if descriptor is None:
            return False
        status = os.fstat(descriptor)
    return (
        (not claim.mode or stat.S_IMODE(status.st_mode) == claim.mode)
        and (not claim.user or status.st_uid == accounts.uid(root, claim.user))
        and (not claim.group or status.st_gid == accounts.gid(root, claim.group))
    )


def _is_strangers(root: Path, claim: Claim) -> bool:
    """Whether a directory that is to be a user's holds something, and is not that user's."""
    with _opened(root, claim.path, trust=True) as descriptor:
        if descriptor is None or not claim.user:
            return False
        owner = os.fstat(descriptor).st_uid
        return owner != accounts.uid(root, claim.user) and claim.user != "root" and _holds_something(descriptor)


def _holds_something(descriptor: int) -> bool:
    """Whether a directory that is only pointed at has anything in it."""
    inside = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=descriptor)
    try:
        return bool(names(inside))
    finally:
        os.close(inside)


def _obstructed(root: Path, path: str) -> bool:
    """Whether something stands there that is no directory."""
    return _exists(root, path, trust=True) and not _is_directory(root, path, trust=True)


def _exists(root: Path, path: str, *, trust: bool = False) -> bool:
    with _opened(root, parent(path), trust=trust) as descriptor, suppress(FileNotFoundError):
        return descriptor is not None and bool(os.stat(name(path), dir_fd=descriptor, follow_symlinks=False))
    return False


def _is_directory(root: Path, path: str, *, trust: bool = False) -> bool:
    with _opened(root, path, trust=trust) as descriptor:
        return descriptor is not None


def _names(root: Path, path: str) -> frozenset[str]:
    with _opened(root, path) as descriptor:
        return frozenset(names(descriptor)) if descriptor is not None else frozenset()


def _text(root: Path, path: str) -> str:
    with _opened(root, parent(path)) as descriptor, suppress(OSError):
        if descriptor is not None:
            file = os.open(name(path), _READ, dir_fd=descriptor)
            with os.fdopen(file, encoding="utf-8", errors="replace") as stream:
                return stream.read(65536)
    return ""


def _above(path: str) -> Iterator[str]:
    while path != "/":
        yield path
        path = parent(path)


@contextmanager
def _opened(root: Path, path: str, *, trust: bool = False) -> Iterator[int | None]:
    """A directory, or ``None`` where none is. Raises ``RuntimeFailure``."""
    try:
        opening = directory(root, path, trust=trust)
        descriptor: int | None = opening.__enter__()
    except (FileNotFoundError, NotADirectoryError):
        yield None
        return
    except OSError as error:
        raise RuntimeFailure(f"{path}: cannot be read: {error.strerror}") from error
    try:
        yield descriptor
    finally:
        opening.__exit__(None, None, None)
