"""What a declaration is read from: the only part of this floor that touches the disk.

Everything is bounded, nothing is waited for (a FIFO would block an ``open`` for ever), and every way in which a file
can fail to be a text becomes one line. ``Sources`` is the seam: tests and the embedded default declaration put a
dictionary behind it.
"""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path
from typing import Protocol

from agent.declaration.wording import printable
from agent.linux.users import group_name, resolve_user

LARGEST = 1024 * 1024
"""Bytes of one file at most."""

MOST_PROJECTS = 1000

AS_ROOT = "do it as root (sudo)"
"""How a message ends about what is closed to a person who is neither root nor the agent's user, and rightly so."""


class Unreadable(Exception):
    """A file cannot be used. The text says why.

    ``missing`` when it is not there at all, ``withheld`` when it, or its directory, is closed to this user.
    """

    def __init__(self, text: str, *, missing: bool = False, withheld: bool = False) -> None:
        super().__init__(text)
        self.missing = missing
        self.withheld = withheld


class Sources(Protocol):
    """Where the files of a declaration come from, and what it needs to know of the host."""

    def read(self, path: Path) -> str:
        """The text of a file. Raises ``Unreadable``."""
        ...

    def projects(self, directory: Path) -> list[Path]:
        """The project files, sorted; none when there is no such directory. Raises ``Unreadable``."""
        ...

    def objection(self, secret: Path, *, credential: bool) -> str | None:
        """Why a file must not be used as a secret, if so. That of a ``credential`` is systemd's to protect."""
        ...

    def memory(self) -> int:
        """Bytes of memory of the host."""
        ...

    def server(self) -> str:
        """The host name."""
        ...


class Disk:
    """The real ones. A ``stranger`` is told to turn to root, and not how to open to him what is the agent's."""

    def __init__(self, *, stranger: bool = False) -> None:
        self._stranger = stranger

    def read(self, path: Path) -> str:
        try:
            with open(path, "rb", opener=_open_at_once) as stream:
                if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                    raise Unreadable("is not a regular file")
                content = stream.read(LARGEST + 1)
        except (OSError, ValueError) as error:
            raise self._unreadable(error, path) from error
        if len(content) > LARGEST:
            raise Unreadable(f"is larger than {LARGEST} bytes")
        try:
            return content.decode()
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise Unreadable(
                f"is not UTF-8: byte 0x{content[error.start]:02x} on line {line}; save it as UTF-8"
            ) from error

    def projects(self, directory: Path) -> list[Path]:
        try:
            found = sorted(path for path in directory.iterdir() if path.suffix == ".toml" and path.name[0] != ".")
        except FileNotFoundError:
            return []
        except NotADirectoryError as error:
            raise Unreadable("is not a directory") from error
        except OSError as error:
            raise self._unreadable(error, directory) from error
        if len(found) > MOST_PROJECTS:
            raise Unreadable(f"holds more than {MOST_PROJECTS} projects")
        return found

    def objection(self, secret: Path, *, credential: bool) -> str | None:
        try:
            mode = secret.stat().st_mode
        except OSError as error:
            found = self._unreadable(error, secret)
            return f"{secret} {found}{f', nor is there a credential {secret.name}' if found.missing else ''}"
        if not stat.S_ISREG(mode):
            return f"{secret} is not a regular file"
        # The group bits of a credential may be the mask of an access control list, acl(5).
        if mode & 0o077 and not credential:
            return f"{secret} is open to others (mode {stat.S_IMODE(mode):04o}); chmod 0600 it"
        if not os.access(secret, os.R_OK, effective_ids=True):
            advice = AS_ROOT if self._stranger else f"chown {_who()} {secret}, or make it a credential"
            return f"{secret} may not be read by user {_who()}: {advice}"
        return None

    def memory(self) -> int:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

    def server(self) -> str:
        return os.uname().nodename

    def _unreadable(self, error: OSError | ValueError, path: Path) -> Unreadable:
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            return Unreadable("does not exist", missing=True)
        if isinstance(error, PermissionError):
            return Unreadable(_withheld(path, stranger=self._stranger), withheld=True)
        if isinstance(error, IsADirectoryError):
            return Unreadable("is a directory")
        reason = error.strerror if isinstance(error, OSError) else None
        return Unreadable(f"cannot be read: {reason or 'not a valid path'}")


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


def _withheld(path: Path, *, stranger: bool) -> str:
    """Who may not read it, which directory on the way is closed if one is, and what would open it."""
    closed = next((one for one in reversed(path.parents) if not os.access(one, os.X_OK, effective_ids=True)), path)
    told = f"may not be read by user {_who()}"
    if closed != path:
        told += f", who may not enter {printable(str(closed))}"
    opening = AS_ROOT if stranger else _opening(closed)
    return f"{told}: {opening}" if opening else told


def _opening(closed: Path) -> str:
    """The command that lets a group of ours have it: its own group, or that of the directory in which it lies."""
    ours = {os.getegid(), *os.getgroups()}
    try:
        group, around = closed.stat().st_gid, closed.parent.stat().st_gid
    except OSError:
        return ""
    named = printable(shlex.quote(str(closed)))
    permitting = f"chmod {'g+rx' if closed.is_dir() else 'g+r'} {named}"
    if group in ours:
        return permitting
    return f"chgrp {group_name(around)} {named} && {permitting}" if around in ours else ""


def _who() -> str:
    return resolve_user(None, None).name
