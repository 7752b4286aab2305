"""What can be laid, as data: directories, files and symbolic links, by the path they have on the installed system."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Annotated

import msgspec

Mode = Annotated[str, msgspec.Meta(pattern=r"^[0-7]{4}$")]
"""Permission bits in octal, as chmod(1) takes them: people read records and manifests."""

Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
"""A SHA-256 in hexadecimal."""

DIRECTORY_MODE = "0755"


class Directory(msgspec.Struct, frozen=True, tag_field="kind", tag="directory"):
    """A directory. One that was there before is used as it is and never recorded as laid."""

    path: str
    mode: Mode = DIRECTORY_MODE


class File(msgspec.Struct, frozen=True, tag_field="kind", tag="file"):
    """A regular file."""

    path: str
    mode: Mode
    sha256: Digest


class Link(msgspec.Struct, frozen=True, tag_field="kind", tag="link"):
    """A symbolic link; ``target`` is its text."""

    path: str
    target: str


class Strange(msgspec.Struct, frozen=True, tag_field="kind", tag="strange"):
    """Something that is never laid, and stands where it is observed: ``what`` is "a socket", "a device"."""

    path: str
    what: str


Entry = Directory | File | Link
Found = Entry | Strange


def bits(mode: Mode) -> int:
    """``"0755"`` as the number that chmod(2) takes."""
    return int(mode, 8)


def same(one: Found, other: Found) -> bool:
    """Whether two are the same in kind and content. Modes do not count: a changed one makes no other file."""
    match one, other:
        case File(), File():
            return one.sha256 == other.sha256
        case Link(), Link():
            return one.target == other.target
        case Directory(), Directory():
            return True
    return False


def describe(found: Found) -> str:
    """What stands there, for a message: "a file"."""
    match found:
        case Directory():
            return "a directory"
        case File():
            return "a file"
        case Link():
            return f"a link to {found.target}"
        case Strange():
            return found.what


def parents(paths: Iterable[str]) -> list[str]:
    """Every directory above ``paths``, without the root, those above first."""
    above = {str(parent) for path in paths for parent in PurePosixPath(path).parents}
    return sorted(above - {"/", "."})


def name(path: str) -> str:
    """The last part of a path."""
    return path.rpartition("/")[2]


def parent(path: str) -> str:
    """What ``path`` lies in."""
    return path.rpartition("/")[0] or "/"


def within(path: str, directory: str) -> bool:
    """Whether ``path`` is ``directory`` or lies below it."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")
