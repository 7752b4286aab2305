"""The stores of captures as a command finds them: below the prefix, with the eyes of the user whose they are."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from agent.cli.base import no_such
from agent.errors import StorageFailure, UsageError
from agent.linux.files import why
from agent.linux.owner import owner, seen_by
from agent.linux.users import Credentials, resolve_user
from agent.paths import Paths
from agent.workers.capture.stock import is_store


def stores(paths: Paths) -> list[str]:
    """The names of all captures that have a store. Raises as ``store_of`` does."""
    agent = owner(*paths.owned)
    with seen_by(agent):
        try:
            with os.scandir(paths.spool) as entries:
                names = sorted(entry.name for entry in entries if entry.name != paths.agent_spool.name)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StorageFailure(f"{paths.spool}: cannot be looked into: {why(error)}") from error
    return [name for name in names if _is_store(paths.data(name), _eyes(paths.data(name), agent))]


@contextmanager
def store_of(paths: Paths, name: str) -> Iterator[Path]:
    """The store of the capture ``name``, while the block runs as the user whose it is, if we are root.

    That is the agent's, or one that the service is declared to run as. Whatever links somebody has planted there, root
    does nothing that this user could not. Raises ``UsageError`` when there is no such store, ``ConfigurationError``
    when it is of a newer version, ``StorageFailure`` when it cannot be looked into.
    """
    directory = paths.data(name)
    user = _eyes(directory, owner(*paths.owned))
    if not _is_store(directory, user):
        raise UsageError(no_such("store of packets", name, stores(paths)))
    with seen_by(user):
        yield directory


def eyes(paths: Paths, names: Sequence[str] = ()) -> Credentials | None:
    """With whose eyes root looks into the stores of these captures at once; into those of the agent's user without any.

    Raises ``UsageError`` when they belong to several users: nobody but root could read them all.
    """
    agent = owner(*paths.owned)
    theirs = {name: _eyes(paths.data(name), agent) for name in names}
    users = {user.name: user for user in theirs.values() if user is not None}
    if len(users) > 1:
        told = ", ".join(f"{name} to {user.name}" for name, user in theirs.items() if user is not None)
        raise UsageError(f"these stores belong to several users ({told}); ask for those of one at a time")
    return next(iter(users.values()), agent)


def _eyes(directory: Path, agent: Credentials | None) -> Credentials | None:
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


def _is_store(directory: Path, user: Credentials | None) -> bool:
    with seen_by(user):
        try:
            return directory.is_dir() and is_store(directory)
        except PermissionError as error:
            raise StorageFailure(f"{directory}: cannot be looked into: {why(error)}") from error
