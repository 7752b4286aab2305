"""Doing the steps of an installation. Each file is prepared beside its place and put there in one step.

Whatever ends this process between two system calls, what is there is the old or the new of each thing, and perhaps a
scratch beside it, whose name says whose it is (``observe.scratch_of``).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from agent.errors import RuntimeFailure, StorageFailure
from agent.installation import accounts, foreign
from agent.installation.entry import DIRECTORY_MODE, File, bits, name, parent
from agent.installation.goal import Source, Sources
from agent.installation.observe import scratch_of
from agent.installation.record import RECORD, RECORD_MODE, Record, encode, library, place
from agent.installation.steps import (
    Begin,
    CreateDirectories,
    CreateUsers,
    Declare,
    DeleteUsers,
    Discard,
    End,
    IndexCatalog,
    Make,
    Note,
    Point,
    Reload,
    Remove,
    RemoveDirectory,
    RemoveTree,
    Step,
    Stop,
    Sync,
    Write,
)
from agent.installation.tree import BLOCK
from agent.linux.libc import syncfs
from agent.linux.rooted import directory, remove_tree

DECLARATION_MODE = 0o640

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_CLOEXEC
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Site(NamedTuple):
    """Where the work is done: below which root, for which prefix, and with what contents of files."""

    root: Path
    prefix: str
    sources: Sources = {}  # noqa: RUF012  # read only, as the type says


def perform(steps: Iterable[Step], site: Site) -> Iterator[Step]:
    """Do each step, and yield it when it is done. Raises ``StorageFailure`` and ``RuntimeFailure``."""
    for step in steps:
        try:
            _do(step, site)
        except OSError as error:
            raise StorageFailure(f"{_where(step, site)}: {error.strerror}") from error
        yield step


def _do(step: Step, site: Site) -> None:
    match step:
        case Begin(record):
            _begin(record, site)
        case Note(record):
            _write(place(site.prefix), encode(record), RECORD_MODE, site, replace=True, durable=True)
        case End(top):
            _end(top, site)
        case Make(entry):
            with _above(entry.path, site) as above:
                scratch = scratch_of(entry.path)
                remove_tree(above, scratch)
                os.mkdir(scratch, 0o700, dir_fd=above)
                os.chown(scratch, os.geteuid(), os.getegid(), dir_fd=above)
                os.chmod(scratch, bits(entry.mode), dir_fd=above)
                os.rename(scratch, name(entry.path), src_dir_fd=above, dst_dir_fd=above)
        case Write(entry, replace):
            tree = entry.path.startswith(f"{library(site.prefix)}/")
            source = site.sources[entry.path]
            _write(entry.path, source, bits(entry.mode), site, replace=replace, durable=not tree, sha256=entry.sha256)
        case Point(entry, replace):
            _point(entry.path, entry.target, site, replace=replace)
        case Declare(path, group):
            _declare(path, group, site)
        case Discard(path) | RemoveTree(path):
            with _above(path, site) as above:
                remove_tree(above, name(path))
        case Remove(path):
            with _above(path, site) as above, suppress(FileNotFoundError):
                os.unlink(name(path), dir_fd=above)
        case RemoveDirectory(path):
            with _above(path, site) as above, suppress(FileNotFoundError):
                os.rmdir(name(path), dir_fd=above)
        case Sync(path):
            with directory(site.root, path) as descriptor:
                syncfs(descriptor)
        case CreateUsers(files):
            foreign.create_users(site.root, files)
        case CreateDirectories(files):
            foreign.create_directories(site.root, files)
        case DeleteUsers(users, groups):
            foreign.delete_users(site.root, users, groups)
        case Reload():
            foreign.reload()
        case IndexCatalog():
            foreign.index_catalog(site.root)
        case Stop(units):
            foreign.stop(units)


def _where(step: Step, site: Site) -> str:
    match step:
        case Make(entry) | Write(entry) | Point(entry):
            return entry.path
        case Declare() | Discard() | Remove() | RemoveDirectory() | RemoveTree() | Sync():
            return step.path
    return place(site.prefix)


@contextmanager
def _above(path: str, site: Site) -> Iterator[int]:
    with directory(site.root, parent(path)) as descriptor:
        yield descriptor


def _write(
    path: str,
    source: Source,
    mode: int,
    site: Site,
    *,
    replace: bool,
    durable: bool,
    sha256: str | None = None,
    group: int | None = None,
) -> None:
    with _above(path, site) as above:
        scratch = scratch_of(path)
        remove_tree(above, scratch)
        written = os.open(scratch, _CREATE, 0o600, dir_fd=above)
        try:
            try:
                found = _copy(source, written)
                if sha256 not in (None, found):
                    raise RuntimeFailure(f"{path}: what was to be put there changed while it was read")
                os.fchown(written, os.geteuid(), os.getegid() if group is None else group)
                os.fchmod(written, mode)
                if durable:
                    os.fsync(written)
            finally:
                os.close(written)
            _settle(scratch, name(path), above, replace=replace)
        except BaseException:
            remove_tree(above, scratch)
            raise
        if durable:
            os.fsync(above)


def _copy(source: Source, written: int) -> str:
    """Write the contents; returns their digest."""
    total = hashlib.sha256()
    for block in _blocks(source):
        total.update(block)
        view = memoryview(block)
        while view:
            view = view[os.write(written, view) :]
    return total.hexdigest()


def _blocks(source: Source) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source
        return
    descriptor = os.open(source, _READ)
    try:
        while block := os.read(descriptor, BLOCK):
            yield block
    finally:
        os.close(descriptor)


def _settle(scratch: str, target: str, above: int, *, replace: bool) -> None:
    """Give a scratch its name: in place of what has it, or, by link(2), only if nothing has."""
    if replace:
        os.rename(scratch, target, src_dir_fd=above, dst_dir_fd=above)
    else:
        os.link(scratch, target, src_dir_fd=above, dst_dir_fd=above, follow_symlinks=False)
        os.unlink(scratch, dir_fd=above)


def _point(path: str, target: str, site: Site, *, replace: bool) -> None:
    with _above(path, site) as above:
        if replace:
            scratch = scratch_of(path)
            remove_tree(above, scratch)
            os.symlink(target, scratch, dir_fd=above)
            os.rename(scratch, name(path), src_dir_fd=above, dst_dir_fd=above)
        else:
            os.symlink(target, name(path), dir_fd=above)
        os.fsync(above)


def _declare(path: str, group: str, site: Site) -> None:
    number = accounts.gid(site.root, group)
    if number is None:
        raise RuntimeFailure(f"{path}: there is no group {group} that could read it")
    with suppress(FileExistsError):  # an operator's own came first
        _write(path, site.sources[path], DECLARATION_MODE, site, replace=False, durable=True, group=number)


def _begin(record: Record, site: Site) -> None:
    """Prepare the missing directories with the record in the last of them, and let all appear by one rename."""
    missing: list[str] = []
    path = library(site.prefix)
    while True:
        try:
            with directory(site.root, path):
                break
        except FileNotFoundError:
            missing.insert(0, path)
            path = parent(path)
    if not missing:
        _write(place(site.prefix), encode(record), RECORD_MODE, site, replace=True, durable=True)
        return
    with _above(missing[0], site) as above:
        scratch = scratch_of(missing[0])
        remove_tree(above, scratch)
        held = [above]
        try:
            for step in [scratch, *map(name, missing[1:])]:
                os.mkdir(step, 0o700, dir_fd=held[-1])
                held.append(os.open(step, _OPEN_DIRECTORY, dir_fd=held[-1]))
                os.fchmod(held[-1], bits(DIRECTORY_MODE))
            written = os.open(RECORD, _CREATE, 0o600, dir_fd=held[-1])
            try:
                _copy(encode(record), written)
                os.fchmod(written, RECORD_MODE)
                os.fsync(written)
            finally:
                os.close(written)
            for descriptor in reversed(held[1:]):
                os.fsync(descriptor)
        finally:
            for descriptor in held[1:]:
                os.close(descriptor)
        os.rename(scratch, name(missing[0]), src_dir_fd=above, dst_dir_fd=above)
        os.fsync(above)


def _end(top: str | None, site: Site) -> None:
    """Let the record vanish, and the directories that go with it, by one rename."""
    with directory(site.root, library(site.prefix)) as descriptor:
        syncfs(descriptor)  # that everything else is gone is on the disk before the record of it is
        if top is None:
            os.unlink(RECORD, dir_fd=descriptor)
            os.fsync(descriptor)
            return
    with _above(top, site) as above:
        scratch = scratch_of(top)
        remove_tree(above, scratch)
        os.rename(name(top), scratch, src_dir_fd=above, dst_dir_fd=above)
        os.fsync(above)
        remove_tree(above, scratch)


def written(steps: Iterable[Step]) -> list[File]:
    """The files that steps write."""
    return [step.entry for step in steps if isinstance(step, Write)]
