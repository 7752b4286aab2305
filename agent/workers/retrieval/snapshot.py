"""What a store holds when somebody looks, while it goes on being written: no packet twice, none left out.

A segment is renamed when it is closed, and a directory that is listed meanwhile may show it by its old name, by both,
or by none. So the open ones are opened first, after which their names do not matter, and then the store is looked at
again: what was closed during the first look is there by its new name in the second. (Unless nothing changed meanwhile.)
"""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from agent.errors import StorageFailure
from agent.linux.files import open_regular, why
from agent.linux.owner import seen_by
from agent.linux.users import Credentials
from agent.workers.capture import account
from agent.workers.capture.account import Account
from agent.workers.capture.catalogue import Segment
from agent.workers.capture.savefile import FILE_HEADER
from agent.workers.capture.timely import ALWAYS, changes, settled, timely


class Source:
    """A segment to be read. ``size`` is up to where: what is written later came after the instant.

    None of its packets is from before ``first``, as far as is known. An open one holds its files; a closed one opens
    them when they are needed. ``user``: with whose eyes root opens them, see ``agent.linux.owner``.
    """

    def __init__(self, segment: Segment, first: int, user: Credentials | None = None) -> None:
        self.segment = segment
        self._user = user
        self.first = first
        self.interface = segment.interface
        self.service = segment.path.parent.parent.name
        self.header = b""
        self.size = 0
        self._index: int | None = None
        self._fd: int | None = None

    def fd(self) -> int:
        """The descriptor of the segment. Raises ``OSError``, when it was removed meanwhile, say."""
        if self._fd is None:
            self._fd = self._opened(self.segment.path)
        if not self.header:
            self.header = os.pread(self._fd, FILE_HEADER, 0)
            self.size = os.fstat(self._fd).st_size
        return self._fd

    def hold(self) -> tuple[int, int]:
        """Open it and its index for good; returns which file it is, whatever its name. Raises ``OSError``."""
        status = os.fstat(self.fd())
        with suppress(OSError):
            self._index = self._opened(self.segment.index)
        return status.st_dev, status.st_ino

    def measure(self) -> None:
        """What was written until now belongs to it. Raises ``OSError``."""
        self.header = b""
        self.fd()

    def index(self) -> int | None:
        """A descriptor of its index, to be closed by whoever asked; ``None`` when there is none."""
        if self._index is not None:
            return os.dup(self._index)
        if not self.segment.closed or not self.segment.indexed:
            return None
        try:
            return self._opened(self.segment.index)
        except OSError:
            return None

    def account(self) -> Account | None:
        """Its account, if it has one yet."""
        with seen_by(self._user):
            return account.read(self.segment.account) if self.segment.closed else None

    def _opened(self, path: Path) -> int:
        with seen_by(self._user):
            return open_regular(path, os.O_RDONLY)

    def shut(self) -> None:
        """Close what can be opened again."""
        if self.segment.closed:
            self.close()

    def close(self) -> None:
        """Let go of everything."""
        for fd in (self._fd, self._index):
            if fd is not None:
                os.close(fd)
        self._fd = self._index = None


def snapshot(
    directory: Path,
    within: tuple[int, int] = ALWAYS,
    names: Collection[str] = (),
    user: Credentials | None = None,
) -> list[Source]:
    """The segments of the store of one service that may hold packets of ``within``, oldest first.

    ``names`` are the interfaces, or all when there is none. All that was written when this was called is in them. Root
    looks with the eyes of ``user``. Raises ``StorageFailure``.
    """
    with seen_by(user):
        return _snapshot(directory, within, names, user)


def _snapshot(
    directory: Path, within: tuple[int, int], names: Collection[str], user: Credentials | None
) -> list[Source]:
    closed: dict[Segment, Source] = {}
    held: dict[tuple[int, int], Source] = {}
    try:
        before = changes(directory)
        for found in timely(directory, within, names):
            source = Source(found.segment, found.first, user)
            if source.segment.closed:
                closed[source.segment] = source
            else:
                with suppress(FileNotFoundError):  # closed since: the second look tells how it is called now
                    held[source.hold()] = source
        if not settled(before) or changes(directory) != before:
            for found in timely(directory, within, names):
                segment = found.segment
                if segment.closed and segment not in closed and _identity(segment.path) not in held:
                    closed[segment] = Source(segment, found.first, user)
        for source in held.values():
            source.measure()
    except OSError as error:
        for source in held.values():
            source.close()
        raise StorageFailure(f"{error.filename or directory}: cannot be read: {why(error)}") from error
    return sorted([*closed.values(), *held.values()], key=lambda source: source.segment)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat(follow_symlinks=False)
    except OSError:  # it is gone already
        return None
    return status.st_dev, status.st_ino
