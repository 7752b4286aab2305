"""What a service finds in place when it starts: its spool, its settings, its heartbeat file, its secrets."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import msgspec

from agent.declaration.model import AgentSettings, AnyService
from agent.errors import SpawnFailed
from agent.linux.files import write_atomic
from agent.linux.spawn import resolve_user
from agent.paths import Paths

SECRET_LIMIT = 1024 * 1024
"""Bytes of one secret at most."""


def prepare(service: AnyService, settings: AgentSettings, paths: Paths) -> int:
    """Lay everything for a start. Returns the user id that the service will run as.

    Raises ``SpawnFailed`` for an unknown user or an unreadable secret, ``OSError`` when the disk will not have it.
    """
    uid, gid = os.getuid(), os.getgid()
    owner: tuple[int, int] | None = None
    if service.user is not None or service.group is not None:
        credentials = resolve_user(service.user, service.group)
        uid, gid = credentials.uid, credentials.gid
        owner = (uid, gid)
    data = paths.data(service.name)
    data.mkdir(mode=0o750, parents=True, exist_ok=True)
    if owner is not None:
        os.chown(data, uid, gid)
    _write_settings(service, paths.config(service.name), owner)
    if service.heartbeat is not None:
        heartbeat = paths.heartbeat(service.name)
        heartbeat.touch(mode=0o644)
        if owner is not None:
            os.chown(heartbeat, uid, gid)
    if service.secrets and owner is not None:
        _copy_secrets(service, paths, owner)
    return uid


def _write_settings(service: AnyService, path: Path, owner: tuple[int, int] | None) -> None:
    # The environment may hold secrets, and the child has it already: it does not belong in a file.
    content = msgspec.json.encode(msgspec.structs.replace(service, environment={}))
    try:
        if path.read_bytes() == content and owner is None:
            return
    except OSError:
        pass
    write_atomic(path, content, mode=0o640, owner=owner)


def _copy_secrets(service: AnyService, paths: Paths, owner: tuple[int, int]) -> None:
    """A service with a user of its own cannot read ``key/secrets``: it gets copies that only it can read."""
    directory = paths.secret_copies(service.name)
    directory.mkdir(mode=0o700, exist_ok=True)
    os.chown(directory, *owner)
    for name in service.secrets:
        try:
            with (paths.secrets / name).open("rb") as file:
                content = file.read(SECRET_LIMIT + 1)
        except OSError as error:
            raise SpawnFailed(f"cannot read secret {name}: {error.strerror}", permanent=True) from error
        if len(content) > SECRET_LIMIT:
            raise SpawnFailed(f"secret {name} is larger than {SECRET_LIMIT} bytes", permanent=True)
        write_atomic(directory / name, content, mode=0o400, owner=owner)


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
