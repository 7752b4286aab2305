"""The memories of scans as every command finds them: below the prefix, each with the eyes of the user whose it is.

And the runs in them, as a person names them: by number, ``last`` and ``previous``, ``-1``, or a time.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from agent.cli.declared import services
from agent.cli.instants import SECOND, instant
from agent.cli.stores import Found, Store, directories, eyes, place, unknown
from agent.errors import AgentError, RuntimeFailure, StorageFailure, UsageError
from agent.linux.files import why
from agent.linux.owner import owner
from agent.paths import SCAN_MEMORY, Paths

if TYPE_CHECKING:
    from agent.workers.scan.memory.reading import Memory, Run

EVERY = 1_000_000
"""More runs than a memory holds."""

WHICH = "a run is its number, last, previous, -1 for the newest, or a time such as 2026-11-20T14:00 or -2d"

_T = TypeVar("_T")

_RUNS = ("last", "previous", "now")
_NAME = re.compile(r"[a-z][a-z0-9_]*", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,18}", re.ASCII)
_BACK = re.compile(r"-[0-9]{1,6}", re.ASCII)


class Choice(NamedTuple):
    """The scan that was meant, and the words that were not its name."""

    store: Store
    words: tuple[str, ...]


def find(paths: Paths, names: Sequence[str] = ()) -> Found:
    """The memories of these scans, or of all.

    Raises ``UsageError`` for a name that no scan has, ``RuntimeFailure`` for one that has found nothing yet,
    ``StorageFailure`` for one that cannot be looked into where it was named, or where there is no other.
    """
    agent = owner(*paths.owned)
    if names:
        return Found([_named(paths, name) for name in dict.fromkeys(names)], [])
    found: list[Store] = []
    left_out: list[AgentError] = []
    for name in directories(paths, agent):
        store = Store(name, paths.data(name), eyes(paths.data(name), agent))
        try:
            found += [store] if _has_memory(store) else []
        except StorageFailure as error:
            left_out.append(error)
    if left_out and not found:
        raise left_out[0]
    return Found(found, left_out)


def chosen(paths: Paths, words: Sequence[str]) -> Choice:
    """The scan that the first of ``words`` names; without such a word the only one that there is.

    Words that mean a run are names of scans, too; where there is such a scan, it is meant.
    """
    if words and _NAME.fullmatch(words[0]) and (words[0] not in _RUNS or _has_memory(place(paths, words[0]))):
        return Choice(_named(paths, words[0]), tuple(words[1:]))
    stores = find(paths).stores
    if not stores:
        raise RuntimeFailure(nothing(paths))
    if len(stores) > 1:
        raise UsageError(f"there are several scans; name one: {', '.join(store.name for store in stores)}")
    return Choice(stores[0], tuple(words))


def nothing(paths: Paths) -> str:
    """What to say where no scan has found anything."""
    return f"no scans are stored below {paths.spool}"


@contextmanager
def opened(store: Store) -> Iterator[Memory]:
    """The memory of a scan, read with its owner's eyes from the first to the last."""
    from agent.workers.scan.memory.reading import Memory

    with store.seen() as directory, Memory(directory / SCAN_MEMORY) as memory:
        yield memory


def each(found: Found, look: Callable[[str, Memory], _T], *, named: bool) -> list[_T]:
    """What ``look`` makes of each memory, given the name of the scan.

    One that turns out to be damaged or of a newer version is left out as a whole, and ``found`` tells of it. Raises
    ``StorageFailure`` for it where it was ``named``, and where there is no other.
    """
    told: list[_T] = []
    for store in found.stores:
        try:
            with opened(store) as memory:
                told.append(look(store.name, memory))
        except StorageFailure as error:
            if named:
                raise
            found.left_out.append(error)
    if found.left_out and not told:
        raise found.left_out[0]
    return told


def runs_of(memory: Memory) -> list[Run]:
    """All runs, in the order in which they began."""
    return sorted(memory.runs(EVERY), key=lambda run: (run.started, run.id))


def pick(name: str, runs: Sequence[Run], word: str) -> Run:
    """The run that a word means; ``runs`` in the order in which they began. Raises ``UsageError``."""
    complete = [run for run in runs if run.status in ("finished", "imported")]
    found: Run | None
    if word in ("last", "previous"):
        place = 1 if word == "last" else 2
        if len(complete) < place:
            raise RuntimeFailure(f"{name} has finished {len(complete) or 'no'} run{'s' * (len(complete) != 1)} so far")
        return complete[-place]
    if _NUMBER.fullmatch(word):
        found = next((run for run in runs if run.id == int(word)), None)
        if found is None:
            raise UsageError(f"{name} has no run {word}; {_there_are(runs)}")
        return found
    if _BACK.fullmatch(word):
        if not 1 <= -int(word) <= len(runs):
            raise UsageError(f"{name} has no run {word}; {_there_are(runs)}")
        return runs[int(word)]
    try:
        when = instant(word, time.time_ns(), closing=True) / SECOND
    except UsageError as error:
        raise UsageError(f"{word[:60]!r} names no run; {WHICH}") from error
    found = next((run for run in reversed(runs) if run.started <= when), None)
    if found is None:
        raise UsageError(f"{name} has no run that began before {word}; {_there_are(runs)}")
    return found


def _there_are(runs: Sequence[Run]) -> str:
    ids = sorted(run.id for run in runs)
    return f"there are {ids[0]} to {ids[-1]}" if len(ids) > 1 else f"there is {ids[0] if ids else 'none'}"


def _named(paths: Paths, name: str) -> Store:
    store = place(paths, name)
    if _has_memory(store):
        return store
    from agent.declaration.model import Scan

    declared = {name for name, service in services(paths).items() if isinstance(service, Scan)}
    if name in declared:
        raise RuntimeFailure(f"{name} has found nothing yet: it did not run so far")
    try:
        stored = {store.name for store in find(paths).stores}
    except AgentError:  # that is not the question
        stored = set()
    raise UsageError(unknown("scan", name, sorted(stored | declared)))


def _has_memory(store: Store) -> bool:
    with store.seen() as directory:
        try:
            return (directory / SCAN_MEMORY).is_file()
        except PermissionError as error:
            raise StorageFailure(f"{directory}: cannot be looked into: {why(error)}") from error
