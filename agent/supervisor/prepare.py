"""What a service finds in place when it starts: its spool, its settings, its heartbeat file, its secrets.

What is in place already is left alone: a full disk must not keep a service down that ran before.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

import msgspec

from agent.declaration.model import AnyService
from agent.errors import SpawnFailed
from agent.linux.files import touch, write_atomic
from agent.linux.spawn import resolve_user
from agent.paths import Paths

SECRET_LIMIT = 1024 * 1024
"""Bytes of one secret at most."""

Owner = tuple[int, int] | None
"""User and group id of a service that has its own; ``None``: it runs as the agent does."""


def prepare(service: AnyService, paths: Paths) -> int:
    """Lay everything for a start. Returns the user id that the service will run as.

    Raises ``SpawnFailed`` for an unknown user or an unreadable secret, ``OSError`` and ``StorageFailure`` when the disk
    will not have it.
    """
    owner = _owner(service)
    data = paths.data(service.name)
    data.mkdir(mode=0o750, parents=True, exist_ok=True)
    try:
        _give(data, owner, follow=True)
    except PermissionError as error:
        who = service.user or f"group {service.group}"
        why = "the agent is not permitted to act for others; its unit permits it with the drop-in privileged.conf, in"
        why += " share/doc/agent/examples"
        raise SpawnFailed(f"cannot run as {who}: {why}", permanent=True) from error
    write_settings(service, paths)
    if service.heartbeat is not None:
        heartbeat = paths.heartbeat(service.name)
        touch(heartbeat)
        _give(heartbeat, owner)
    if service.secrets and owner is not None:
        _copy_secrets(service, paths, owner)
    return os.getuid() if owner is None else owner[0]


def write_settings(service: AnyService, paths: Paths) -> None:
    """Write what ``SERVICE_CONFIG`` names. Raises as ``prepare`` does."""
    # The environment may hold secrets, and the child has it already: it does not belong in a file.
    content = msgspec.json.encode(msgspec.structs.replace(service, environment={}))
    _lay(paths.config(service.name), content, 0o640, _owner(service))


def drop_secrets(name: str, paths: Paths) -> None:
    """Remove the copies of a service's secrets: they are there only while it runs."""
    directory = paths.secret_copies(name)
    with suppress(OSError):
        for copy in directory.iterdir():
            copy.unlink()
        directory.rmdir()


def tidy(name: str, paths: Paths) -> None:
    """Take back what ``prepare`` laid, apart from data. A monitor must not find the heartbeat of a stopped service."""
    drop_secrets(name, paths)
    for path in (paths.heartbeat(name), paths.config(name)):
        with suppress(OSError):
            path.unlink()


def _owner(service: AnyService) -> Owner:
    if service.user is None and service.group is None:
        return None
    credentials = resolve_user(service.user, service.group)
    return credentials.uid, credentials.gid


def _give(path: Path, owner: Owner, *, follow: bool = False) -> None:
    """Make it the owner's, if it is not: a sandbox may forbid chown(2) even where it changes nothing."""
    if owner is not None:
        found = path.stat(follow_symlinks=follow)
        if (found.st_uid, found.st_gid) != owner:
            os.chown(path, *owner, follow_symlinks=follow)


def _copy_secrets(service: AnyService, paths: Paths, owner: tuple[int, int]) -> None:
    """A service with a user of its own cannot read the agent's secrets: it gets copies that only it can read."""
    directory = paths.secret_copies(service.name)
    directory.mkdir(mode=0o700, exist_ok=True)
    _give(directory, owner)
    for name in service.secrets:
        try:
            with paths.secret(name).open("rb") as file:
                content = file.read(SECRET_LIMIT + 1)
        except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
            raise SpawnFailed(f"cannot read secret {name}: {error.strerror}", permanent=True) from error
        if len(content) > SECRET_LIMIT:
            raise SpawnFailed(f"secret {name} is larger than {SECRET_LIMIT} bytes", permanent=True)
        _lay(directory / name, content, 0o400, owner)


def _lay(path: Path, content: bytes, mode: int, owner: Owner) -> None:
    """Write a file, unless it is as it should be."""
    if not _lies(path, content, mode, owner):
        write_atomic(path, content, mode, owner)


def _lies(path: Path, content: bytes, mode: int, owner: Owner) -> bool:
    try:
        # Not blocking and through no link: a directory of secrets belongs to the service.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    with os.fdopen(fd, "rb") as file:
        found = os.fstat(fd)
        right = stat.S_ISREG(found.st_mode) and stat.S_IMODE(found.st_mode) == mode
        right = right and (owner is None or (found.st_uid, found.st_gid) == owner)
        return right and file.read(len(content) + 1) == content
