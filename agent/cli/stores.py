"""The stores of captures as every command finds them: below the prefix, each with the eyes of the user whose it is.

One that cannot be looked into, or is of a newer version, is told of and keeps nobody from the others; it is an error
where it was named, and where there is no other.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from agent.cli import text
from agent.cli.base import no_such
from agent.cli.declared import captures, others
from agent.cli.guard import complain
from agent.errors import AgentError, ConfigurationError, RuntimeFailure, StorageFailure, UsageError
from agent.linux.files import why
from agent.linux.owner import owner, seen_by
from agent.linux.users import Credentials, resolve_user
from agent.paths import Paths
from agent.workers.capture.catalogue import interfaces
from agent.workers.capture.version import is_store

MOST_TOLD = 5
"""What cannot be read is named up to so often."""

_NAME = re.compile(r"[a-z][a-z0-9_]*", re.ASCII)


class Store(NamedTuple):
    """The store of the service ``name``, a capture or a scan.

    ``user``: with whose eyes root looks into it, if with anybody's.
    """

    name: str
    path: Path
    user: Credentials | None

    @contextmanager
    def seen(self) -> Iterator[Path]:
        """Its directory, while the block runs as the user whose it is, if we are root.

        That is the agent's, or one that the service is declared to run as. Whatever links somebody has planted there,
        root does nothing that this user could not.
        """
        with seen_by(self.user):
            yield self.path


class Found(NamedTuple):
    """The stores that were asked for, by name, and why others are not among them."""

    stores: list[Store]
    left_out: list[AgentError]

    @property
    def notes(self) -> list[str]:
        """A line for each that was left out."""
        return [str(error) for error in self.left_out]


def find(paths: Paths, names: Sequence[str] = ()) -> Found:
    """The stores of these captures, or of all.

    Raises ``UsageError`` for a name that no capture has, ``RuntimeFailure`` for one that has stored nothing yet,
    ``StorageFailure`` and ``ConfigurationError`` for a store that cannot be read where it was named, or where there is
    no other.
    """
    agent = owner(*paths.owned)
    if names:
        return Found([_named(paths, name, agent) for name in dict.fromkeys(names)], [])
    found: list[Store] = []
    left_out: dict[str, AgentError] = {}
    for name in directories(paths, agent):
        store = Store(name, paths.data(name), eyes(paths.data(name), agent))
        try:
            found += [store] if _is_store(store) else []
        except (StorageFailure, ConfigurationError) as error:
            left_out[name] = error
    for name in others(paths) if left_out else ():  # such as the directory of a command that has a user of its own
        left_out.pop(name, None)
    if left_out and not found:
        raise next(iter(left_out.values()))
    return Found(found, list(left_out.values()))


def place(paths: Paths, name: str) -> Store:
    """Where the store of this service is, or will be."""
    return Store(name, paths.data(name), eyes(paths.data(name), owner(*paths.owned)))


def nothing(paths: Paths) -> str:
    """What to say where no capture has stored anything."""
    return f"no packets are stored below {paths.spool}"


def check_interfaces(stores: Sequence[Store], names: Sequence[str], others: Iterable[str] = ()) -> None:
    """Raise ``UsageError`` for an interface that none of these stores has packets of, and is none of ``others``."""
    if not names:
        return
    known = set(others)
    for store in stores:
        with store.seen() as directory:
            known.update(interfaces(directory))
    for name in names:
        if name not in known:
            raise UsageError(unknown("interface", name, sorted(known)))


def unknown(noun: str, name: str, known: Sequence[str]) -> str:
    """One line saying that ``name`` is none of the ``known``, which is nearest, or else what there is."""
    line = no_such(noun, name, known)
    if "; did you mean" in line:
        return line
    return f"{line}; there {'is' if len(known) == 1 else 'are'} {text.some(known) or 'none'}"


def warn(lines: Sequence[str]) -> None:
    """Name on stderr what could not be read."""
    for line in lines[:MOST_TOLD]:
        complain(f"agentctl: {line}")
    if (more := len(lines) - MOST_TOLD) > 0:
        complain(f"agentctl: and {more} more cannot be read")


def _named(paths: Paths, name: str, agent: Credentials | None) -> Store:
    store = Store(name, paths.data(name), eyes(paths.data(name), agent))
    if _is_store(store):
        return store
    declared = captures(paths)
    if name in declared:
        raise RuntimeFailure(f"{name} has stored no packets yet")
    try:
        stored = {store.name for store in find(paths).stores}
    except AgentError:  # that is not the question
        stored = set()
    raise UsageError(unknown("capture", name, sorted(stored | declared.keys())))


def directories(paths: Paths, agent: Credentials | None) -> list[str]:
    """What may be the store of a service, by its name."""
    with seen_by(agent):
        try:
            with os.scandir(paths.spool) as entries:
                names = {entry.name for entry in entries}
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StorageFailure(f"{paths.spool}: cannot be looked into: {why(error)}") from error
    return sorted(name for name in names - {paths.agent_spool.name} if _NAME.fullmatch(name))


def eyes(directory: Path, agent: Credentials | None) -> Credentials | None:
    """Whose eyes root looks into a store with, on a prefix of the agent's user."""
    if agent is None:
        return None
    with seen_by(agent):
        try:
            found = directory.lstat()
        except OSError:
            return agent
    # A directory can be given away by root alone; a link of the agent's may lead into anybody's.
    if stat.S_ISDIR(found.st_mode) and found.st_uid not in (0, agent.uid):
        return resolve_user(str(found.st_uid), None)
    return agent


def _is_store(store: Store) -> bool:
    with store.seen() as directory:
        try:
            return directory.is_dir() and is_store(directory)
        except PermissionError as error:
            raise StorageFailure(f"{directory}: cannot be looked into: {why(error)}") from error
