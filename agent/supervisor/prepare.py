"""What a service finds in place when it starts: its spool, its settings, its heartbeat file, its secrets.

What is in place already is left alone: a full disk must not keep a service down that ran before.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from agent.declaration.model import AnyService
from agent.errors import SpawnFailed
from agent.linux.capabilities import acting
from agent.linux.capability_sets import mask
from agent.linux.files import touch, write_atomic
from agent.linux.give import give, is_directory, is_file
from agent.linux.spawn import resolve_user
from agent.paths import Paths

SECRET_LIMIT = 1024 * 1024
"""Bytes of one secret at most."""

_READ = mask(["CAP_DAC_READ_SEARCH"])

EXAMPLES = "share/doc/agent/examples"
"""Where drop-ins to copy are: below the prefix, or below ``/usr`` where a package brought them."""

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
    if owner is not None:
        _give_to(service, data, owner, is_directory)
    write_settings(service, paths)
    with suppress(FileNotFoundError):  # it was for the run before
        paths.ended(service.name).unlink()
    if service.heartbeat is not None:
        heartbeat = paths.heartbeat(service.name)
        touch(heartbeat)
        if owner is not None:
            _give_to(service, heartbeat, owner, is_file)
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
    for path in (paths.heartbeat(name), paths.config(name), paths.triggers(name), paths.ended(name)):
        with suppress(OSError):
            path.unlink()


def _owner(service: AnyService) -> Owner:
    if service.user is None and service.group is None:
        return None
    credentials = resolve_user(service.user, service.group)
    return credentials.uid, credentials.gid


def _give_to(service: AnyService, path: Path, owner: tuple[int, int], kind: Callable[[int], bool]) -> None:
    """Let its user have it. Raises ``SpawnFailed`` where trying again would not help."""
    try:
        give(path, *owner, kind)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ELOOP, errno.EINVAL):
            raise
        why = f"{path}: {error.strerror}"
        if error.errno == errno.EPERM:
            why = "the agent is not permitted to act for others; its unit permits it with the drop-in privileged.conf"
            why += f", in {EXAMPLES}"
        raise SpawnFailed(f"cannot run as {service.user or f'group {service.group}'}: {why}", permanent=True) from error


def _copy_secrets(service: AnyService, paths: Paths, owner: tuple[int, int]) -> None:
    """A service with a user of its own cannot read the agent's secrets: it gets copies that only it can read.

    The directory stays ours: in one of the service's own we would follow the service's links.
    """
    directory = paths.secret_copies(service.name)
    if not directory.is_dir():
        directory.mkdir(0o700)
        directory.chmod(0o711)  # to be passed through, and not looked into
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
        # Not blocking and through no link. What was given away we may otherwise not read again.
        with acting(_READ):
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    with os.fdopen(fd, "rb") as file:
        found = os.fstat(fd)
        right = stat.S_ISREG(found.st_mode) and stat.S_IMODE(found.st_mode) == mode
        right = right and (owner is None or (found.st_uid, found.st_gid) == owner)
        return right and file.read(len(content) + 1) == content
