"""Writing the first declaration of a prefix, without ever touching one that is there."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from agent.errors import StorageFailure
from agent.linux.files import make_directory, why
from agent.paths import Paths

DECLARATION_MODE = 0o640
"""It may hold passwords in its environment tables: for the owner to write, for the owner's group to read."""


def write_declaration(paths: Paths, text: str) -> bool:
    """Create the directories of the contract and the declaration; ``False`` when there is one already.

    Raises ``StorageFailure``.
    """
    for directory, mode in (
        (paths.prefix, 0o755),
        (paths.key, 0o755),
        (paths.projects, 0o755),
        (paths.secrets, 0o700),
        (paths.run, 0o755),
        (paths.tmp, 0o755),
        (paths.logs, 0o750),
        (paths.spool, 0o751),
    ):
        make_directory(directory, mode)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(paths.declaration, flags, DECLARATION_MODE)
    except FileExistsError:
        return False
    except OSError as error:
        raise StorageFailure(f"{paths.declaration}: cannot be created: {why(error)}") from error
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            _share(descriptor, paths.key)
            file.write(text)
    except OSError as error:  # half a declaration is worse than none
        with suppress(OSError):
            paths.declaration.unlink()
        raise StorageFailure(f"{paths.declaration}: cannot be written: {error.strerror}") from error
    return True


def _share(descriptor: int, key: Path) -> None:
    """Let those read it who may look into ``key``: where an agent is installed that is its group, and not root's."""
    group = key.stat().st_gid
    if group != os.getegid():
        with suppress(PermissionError):  # somebody who is not in it
            os.fchown(descriptor, -1, group)
            os.fchmod(descriptor, DECLARATION_MODE)
