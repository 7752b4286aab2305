"""``lib/agent/install.json``: exactly what was laid below a prefix, and for it elsewhere.

Before anything is laid, the record names it: so whatever an interrupted installation left is known to be ours, and can
be finished or taken back. A path that is about to be replaced stands there twice, as it was and as it will be. At the
end, what is there is what is named.

Whoever takes an installation back removes what the record names. So it is believed only where nobody but root and the
user who asks could have written it, and only about places where this program lays anything.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Literal

import msgspec

from agent.errors import RuntimeFailure
from agent.installation.entry import Entry, within
from agent.linux.rooted import directory
from agent.linux.systemd import UNITS

LIBRARY = "lib/agent"
"""Below the prefix: the record, the trees, and ``current``."""

RECORD = "install.json"
RECORD_MODE = 0o644

ELSEWHERE = (
    *(UNITS, "/etc/sysusers.d", "/etc/tmpfiles.d"),
    *("/usr/local/bin/agentctl", "/usr/local/lib/systemd/catalog", "/usr/local/share/man/man1/agentctl.1"),
    "/usr/local/share/bash-completion/completions/agentctl",
    "/usr/local/share/zsh/site-functions/_agentctl",
    "/etc/fish/completions/agentctl.fish",
)
"""Where anything is laid outside of the prefix."""

DATA = ("key", "run", "tmp", "spool", "log")
"""The directories of the contract below a prefix, which systemd-tmpfiles makes."""

KEPT = ("key", "spool", "log")
"""Those of them that outlive the program unless it is purged."""

LIMIT = 16 * 1024 * 1024
"""Bytes of a record at most; one of ours has 150 kB."""


class Record(msgspec.Struct, frozen=True):
    """What is known about one prefix.

    ``version`` is what ``current`` pointed to when an installation was last complete, ``previous`` the one before it;
    both are empty for a prefix that holds nothing but trees. ``complete``: nothing was interrupted. ``laid`` is sorted
    by path. ``data`` are the directories of the contract, ``users`` and ``groups`` the accounts, that were not there
    before us.
    """

    prefix: str
    version: str = ""
    previous: str = ""
    complete: bool = True
    laid: tuple[Entry, ...] = ()
    data: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    format: Literal[1] = 1


def library(prefix: str) -> str:
    """``PREFIX/lib/agent``."""
    return f"{prefix}/{LIBRARY}"


def place(prefix: str) -> str:
    """The path of the record."""
    return f"{library(prefix)}/{RECORD}"


def version_of(path: str, prefix: str) -> str | None:
    """The version whose tree holds ``path``; ``None`` for what belongs to no tree."""
    above = f"{library(prefix)}/"
    step = path.removeprefix(above).partition("/")[0] if path.startswith(above) else ""
    return step if re.match(r"[0-9]", step) else None


def encode(record: Record) -> bytes:
    """The text of the file."""
    return msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n"


def decode(data: bytes, prefix: str) -> Record:
    """The record in ``data``. Raises ``RuntimeFailure`` for one that cannot be believed."""
    where = place(prefix)
    try:
        record = msgspec.json.decode(data, type=Record)
    except (ValueError, RecursionError) as error:  # a DecodeError, or bytes that are no text
        raise RuntimeFailure(f"{where}: is no record that this agentctl can read: {error}") from error
    if record.prefix != prefix:
        raise RuntimeFailure(f"{where}: is the record of {record.prefix!r}; do not move an installation, install anew")
    for path in [entry.path for entry in record.laid] + list(record.data):
        _check_place(path, prefix, where)
    return record


def _check_place(path: str, prefix: str, where: str) -> None:
    parts = path.split("/")
    above = any(within(allowed, path) for allowed in (prefix, *ELSEWHERE))  # directories on the way, if we made them
    if not path.startswith("/") or {"", ".", ".."} & set(parts[1:]):
        raise RuntimeFailure(f"{where}: names {path!r}, which is no plain absolute path")
    if not above and not any(within(path, allowed) for allowed in (prefix, *ELSEWHERE)):
        raise RuntimeFailure(f"{where}: names {path!r}, where agentctl lays nothing")


def read(root: Path, prefix: str) -> Record | None:
    """The record of a prefix, below ``root``; ``None`` when there is none. Raises ``RuntimeFailure``."""
    where = place(prefix)
    try:
        with directory(root, library(prefix)) as found:
            descriptor = os.open(RECORD, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=found)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise RuntimeFailure(f"{where}: cannot be read: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > LIMIT:
            raise RuntimeFailure(f"{where}: is no record: not a regular file of at most {LIMIT} bytes")
        if status.st_uid not in (0, os.geteuid()) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise RuntimeFailure(f"{where}: others than root could have written it, so it is not believed")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return decode(file.read(LIMIT), prefix)
    finally:
        os.close(descriptor)


def named(record: Record | None) -> dict[str, tuple[Entry, ...]]:
    """What the record says of each path: one entry, or two while it is being replaced."""
    found: dict[str, tuple[Entry, ...]] = {}
    for entry in record.laid if record else ():
        found[entry.path] = (*found.get(entry.path, ()), entry)
    return found


def order(version: str) -> tuple[tuple[int, int, str], ...]:
    """A key that sorts versions: numbers as numbers, and ``0.2.0.dev1 < 0.2.0rc1 < 0.2.0 < 0.2.0+local < 0.2.0.1``.

    As PEP 440 and semver.org have it, whichever of ``.``, ``-`` and ``~`` a version is written with. Two that differ in
    nothing else have the same key.
    """
    public, plus, local = version.lower().partition("+")
    parts = [_part(part, _RANKS.get(part, _BEFORE)) for part in _PARTS.findall(public)]
    if plus:
        parts += [(_LOCAL, 0, ""), *(_part(part, _LOCAL) for part in _PARTS.findall(local))]
    return (*parts, (_END, 0, ""))


_PARTS = re.compile(r"[0-9]+|[a-z]+")
_FIRST, _BEFORE, _END, _LOCAL, _AFTER, _NUMBER = range(6)
"""What may follow the same beginning, in that order: ``_END`` is that nothing does."""
_RANKS = {"dev": _FIRST, "post": _AFTER}


def _part(part: str, rank: int) -> tuple[int, int, str]:
    """A number by its length and digits, which is its order, however long it is; a word by its rank."""
    if part.isdigit():
        digits = part.lstrip("0")
        return _NUMBER, len(digits), digits
    return rank, 0, part
