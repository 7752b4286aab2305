"""Whether an installation can be laid where it is to go, asked before anything is touched."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from agent.errors import RuntimeFailure, StorageFailure
from agent.installation.entry import parent, within
from agent.installation.goal import Source, Sources
from agent.installation.record import library
from agent.installation.steps import (
    Begin,
    Discard,
    End,
    Make,
    Note,
    Point,
    Remove,
    RemoveDirectory,
    RemoveTree,
    Step,
    Write,
)
from agent.linux.rooted import directory, nearest

MACHINES = {3: "i686", 40: "armv7l", 62: "x86_64", 183: "aarch64", 243: "riscv64"}
"""``e_machine`` of elf(5), in the words of uname(2)."""

PROGRAMS = (
    ("/usr/lib/systemd", "systemd"),
    ("/lib/systemd", "systemd"),
    ("/usr/bin", "env"),
    ("/bin", "ls"),
    ("/bin", "busybox"),
)
"""Programs that tell which machine a system is for: one of them is in every one."""

MARGIN = 4 * 1024 * 1024
"""Bytes that are to be free beyond what is laid: records, directories, and the first lines of logs."""

_HERE = Path("/")


def check_machine(machine: str, root: Path) -> None:
    """Raise ``RuntimeFailure`` when programs for ``machine``, as uname(2) has it, do not run below ``root``."""
    there = os.uname().machine if root == _HERE else machine_of(root)
    if there is not None and there != machine:
        where = "this machine" if root == _HERE else f"the system below {root}"
        raise RuntimeFailure(f"this agentctl is for {machine}, and {where} is {there}: get the agentctl for {there}")


def machine_of(root: Path) -> str | None:
    """The machine that the programs below ``root`` are for; ``None`` when there are none that tell."""
    for above, program in PROGRAMS:
        with suppress(OSError), directory(root, above) as descriptor:
            file = os.open(program, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=descriptor)
            try:
                header = os.read(file, 20)
            finally:
                os.close(file)
            if found := machine_in(header):
                return found
    return None


def machine_in(header: bytes) -> str | None:
    """The machine that a program is for, by its first 20 bytes; ``None`` when it is no ELF program."""
    if not header.startswith(b"\x7fELF") or len(header) < 20:
        return None
    number = int.from_bytes(header[18:20], "big" if header[5] == 2 else "little")
    return MACHINES.get(number, f"ELF machine {number}")


def check_disks(steps: Iterable[Step], prefix: str, root: Path, sources: Sources, *, writing: bool) -> None:
    """Raise ``StorageFailure`` when a file system that ``steps`` write to is read-only or has no room for them.

    Another prefix is no way out where the directory is not below it: units and links for everybody go to their places.

    The prefix has to be where programs can be executed, too; and with ``writing`` this user has to be who may.
    """
    needed: dict[str, tuple[int, int]] = {}  # by directory: bytes, files
    for step in steps:
        if isinstance(step, Make | Write | Point):
            size = size_of(sources[step.entry.path]) if isinstance(step, Write) else 0
            bytes_, files = needed.get(parent(step.entry.path), (0, 0))
            needed[parent(step.entry.path)] = (bytes_ + size, files + 1)
        elif isinstance(step, Begin):
            needed.setdefault(prefix, (0, 0))
    disks: dict[int, _Demand] = {}
    for path, (bytes_, files) in needed.items():
        with nearest(root, path) as (descriptor, found):
            figures, device = os.fstatvfs(descriptor), os.fstat(descriptor).st_dev
            programs = root == _HERE and path.startswith(f"{prefix}/lib")
            below = within(path, prefix)
            instead = ", or change --prefix" if below else ", then try again"
            _check_access(descriptor, found, programs=programs, writing=writing, instead=instead)
            before = disks.get(device, _Demand(found, figures, 0, 0, below=below))
            blocks = -(-bytes_ // figures.f_frsize) + files
            disks[device] = before._replace(
                bytes=before.bytes + blocks * figures.f_frsize, files=before.files + files, below=before.below or below
            )
    for demand in disks.values():
        _check_room(demand)


def check_removable(steps: Iterable[Step], prefix: str, root: Path) -> None:
    """Raise ``StorageFailure`` when a file system that ``steps`` remove from is read-only, or not this user's."""
    places = {
        parent(step.path) for step in steps if isinstance(step, Discard | Remove | RemoveDirectory | RemoveTree)
    } | {library(prefix) for step in steps if isinstance(step, Note | End)}
    for path in sorted(places):
        with nearest(root, path) as (descriptor, found):
            _check_access(descriptor, found, programs=False, writing=True, instead=", then try again")


class _Demand(NamedTuple):
    """What one file system is to take, and what it said of itself; ``path`` is on it. ``below``: some goes below the
    prefix.
    """

    path: str
    figures: os.statvfs_result
    bytes: int
    files: int
    below: bool


def _check_access(descriptor: int, path: str, *, programs: bool, writing: bool, instead: str) -> None:
    flags = os.fstatvfs(descriptor).f_flag
    if flags & os.ST_RDONLY:
        raise StorageFailure(f"{path}: its file system is mounted read-only: remount it{instead}")
    if programs and flags & os.ST_NOEXEC:
        raise StorageFailure(f"{path}: no program can be executed there, it is mounted noexec: change --prefix")
    if writing and not os.access(".", os.W_OK | os.X_OK, dir_fd=descriptor, effective_ids=True):
        raise StorageFailure(f"{path}: this user may not write there; run it as root{instead}")


def _check_room(demand: _Demand) -> None:
    figures, wanted = demand.figures, demand.bytes + MARGIN
    instead = "or change --prefix" if demand.below else "then try again"
    free = figures.f_bavail * figures.f_frsize
    if free < wanted:
        raise StorageFailure(
            f"{demand.path}: {_mebibytes(wanted)} are needed there, and {_mebibytes(free)} are free: "
            f"make room, {instead}"
        )
    if figures.f_files and figures.f_favail < demand.files:
        raise StorageFailure(
            f"{demand.path}: {demand.files} files are to be laid, and {figures.f_favail} inodes are free: "
            f"remove files, {instead}"
        )


def size_of(source: Source) -> int:
    """Bytes of the contents. Raises ``StorageFailure``."""
    if isinstance(source, bytes):
        return len(source)
    try:
        return source.stat().st_size
    except OSError as error:
        raise StorageFailure(f"{source}: cannot be read: {error.strerror}") from error


def _mebibytes(count: int) -> str:
    return f"{count / 1024 / 1024:.1f} MiB"
