"""The directories below the prefix, as whoever comes first makes them: the agent, or ``run-once``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from agent.errors import StorageFailure
from agent.linux.files import make_directory
from agent.linux.users import Credentials
from agent.paths import Paths


def lay_out(paths: Paths) -> None:
    """Create what is missing; what is there keeps its mode. Raises ``StorageFailure``."""
    make_directory(paths.prefix, 0o755)
    for directory, mode in _places(paths):
        make_directory(directory, mode)
    make_directory(paths.agent_spool, 0o750)


def lay_out_for(user: Credentials, paths: Paths) -> None:
    """As root, before it becomes this user: create for it what it could not create itself. Raises ``StorageFailure``.

    What lies in a directory of that user's is its own affair, and no place for root to do anything by a path.
    """
    for directory, mode in _places(paths):
        try:
            if paths.prefix.stat().st_uid == 0 and not directory.exists():
                directory.mkdir(0o700)
                made = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    os.fchown(made, user.uid, user.gid)
                    os.fchmod(made, mode)
                finally:
                    os.close(made)
        except OSError as error:
            raise StorageFailure(f"{directory}: cannot be made a directory: {error.strerror}") from error


def _places(paths: Paths) -> Iterator[tuple[Path, int]]:
    yield paths.run, 0o755
    yield paths.tmp, 0o755
    yield paths.logs, 0o750
    yield paths.spool, 0o751  # a service finds its own directory, and sees no other
