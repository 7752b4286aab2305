"""The steps of an installation, as data: each is done whole or not at all, but for those that other programs do."""

from __future__ import annotations

import msgspec

from agent.installation.entry import Directory, File, Link
from agent.installation.record import Record


class Begin(msgspec.Struct, frozen=True, tag_field="step", tag="begin"):
    """Make the directories that lead to the record, with the record in them, appear at once."""

    record: Record


class Note(msgspec.Struct, frozen=True, tag_field="step", tag="record"):
    """Write the record anew."""

    record: Record


class End(msgspec.Struct, frozen=True, tag_field="step", tag="end"):
    """Remove the record, and with it the directories from ``directory`` down to it, if they are to go."""

    directory: str | None


class Make(msgspec.Struct, frozen=True, tag_field="step", tag="directory"):
    """Make a directory."""

    entry: Directory


class Write(msgspec.Struct, frozen=True, tag_field="step", tag="file"):
    """Put a file in place. Without ``replace`` nothing may be there."""

    entry: File
    replace: bool


class Point(msgspec.Struct, frozen=True, tag_field="step", tag="link"):
    """Put a symbolic link in place. Without ``replace`` nothing may be there."""

    entry: Link
    replace: bool


class Declare(msgspec.Struct, frozen=True, tag_field="step", tag="declaration"):
    """Write the first declaration, if there is none: for root to write, and for ``group`` to read."""

    path: str
    group: str


class Discard(msgspec.Struct, frozen=True, tag_field="step", tag="discard"):
    """Remove what an interrupted step left."""

    path: str


class Remove(msgspec.Struct, frozen=True, tag_field="step", tag="remove"):
    """Remove a file or link."""

    path: str


class RemoveDirectory(msgspec.Struct, frozen=True, tag_field="step", tag="remove directory"):
    """Remove an empty directory."""

    path: str


class RemoveTree(msgspec.Struct, frozen=True, tag_field="step", tag="remove data"):
    """Remove a directory of the contract, and all that is in it."""

    path: str


class Sync(msgspec.Struct, frozen=True, tag_field="step", tag="sync"):
    """Have everything that was written below ``path`` on the disk before anything leads to it."""

    path: str


class CreateUsers(msgspec.Struct, frozen=True, tag_field="step", tag="users"):
    """systemd-sysusers, on these of its configuration files. ``new``: some of the accounts are not there yet."""

    files: tuple[str, ...]
    new: bool = True


class CreateDirectories(msgspec.Struct, frozen=True, tag_field="step", tag="directories"):
    """systemd-tmpfiles --create, on these of its configuration files."""

    files: tuple[str, ...]


class DeleteUsers(msgspec.Struct, frozen=True, tag_field="step", tag="delete users"):
    """Delete accounts that were made by us."""

    users: tuple[str, ...]
    groups: tuple[str, ...]


class Reload(msgspec.Struct, frozen=True, tag_field="step", tag="reload"):
    """systemctl daemon-reload."""


class IndexCatalog(msgspec.Struct, frozen=True, tag_field="step", tag="catalog"):
    """journalctl --update-catalog."""


class Stop(msgspec.Struct, frozen=True, tag_field="step", tag="stop"):
    """systemctl stop; names may be patterns."""

    units: tuple[str, ...]


Step = (
    Begin
    | Note
    | End
    | Make
    | Write
    | Point
    | Declare
    | Discard
    | Remove
    | RemoveDirectory
    | RemoveTree
    | Sync
    | CreateUsers
    | CreateDirectories
    | DeleteUsers
    | Reload
    | IndexCatalog
    | Stop
)
