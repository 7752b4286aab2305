"""Where a process is among the cgroups (v2), and what their files say: cgroups(7), Linux' admin-guide/cgroup-v2.rst."""

from __future__ import annotations

import errno
import functools
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from agent.linux.capabilities import acting
from agent.linux.capability_sets import mask
from agent.linux.printable import printable, proc_text

_LIMITS = ("memory.max", "pids.max", "cpu.max")
_BLOCK = 64 * 1024
_OVERRIDE = mask(["CAP_DAC_OVERRIDE"])


@dataclass(frozen=True, slots=True)
class Mount:
    """Where cgroup2 is mounted, and which cgroup that mount shows as its root."""

    root: str
    point: Path

    def directory(self, cgroup: str) -> Path | None:
        """The directory of a cgroup named as in /proc/PID/cgroup; ``None`` when this mount does not show it."""
        if self.root != "/" and cgroup != self.root and not cgroup.startswith(self.root + "/"):
            return None
        inside = cgroup if self.root == "/" else cgroup[len(self.root) :]
        return None if ".." in inside.split("/") else self.point / inside.lstrip("/")


class Unusable(Exception):
    """There is no cgroup to use here; the text says why."""


def parse_mounts(mountinfo: str) -> list[tuple[str, str]]:
    """``(root, mount point)`` of each cgroup2 file system in the text of /proc/PID/mountinfo, proc_pid_mountinfo(5)."""
    found = []
    for line in mountinfo.split("\n"):
        mount, _, rest = line.partition(" - ")
        fields = mount.split(" ")
        if rest.split(" ")[0] == "cgroup2" and len(fields) >= 5:
            found.append((_unescape(fields[3]), _unescape(fields[4])))
    return found


def parse_membership(cgroup: str) -> str | None:
    """The cgroup v2 path in the text of /proc/PID/cgroup, cgroups(7); ``None`` when the process is in none."""
    for line in cgroup.split("\n"):
        if line.startswith("0::/"):
            return line[3:].removesuffix(" (deleted)")
    return None


def _unescape(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def home() -> tuple[Mount, Path]:
    """The cgroup we are in now. Raises ``Unusable`` and ``OSError``."""
    own = parse_membership(proc_text(Path("/proc/self/cgroup")))
    mounts = _mounts()
    if own is None or not mounts:
        raise Unusable("no cgroup v2 is mounted; mount one, or boot without systemd.unified_cgroup_hierarchy=0")
    for mount in mounts:
        here = mount.directory(own)
        if here is not None and here.is_dir():
            return mount, here
    raise Unusable(f"our cgroup {printable(own)} is outside of every cgroup v2 mount we can see")


@functools.cache
def _mounts() -> list[Mount]:
    return [Mount(root, Path(point)) for root, point in parse_mounts(proc_text(Path("/proc/self/mountinfo")))]


def ruling() -> AbstractContextManager[None]:
    """Within, we may do in cgroups of root's what we are permitted to: an agent that root runs is not their owner.

    Nobody can put a link into this file system.
    """
    return acting(_OVERRIDE)


@contextmanager
def visiting(cgroup: int) -> Iterator[bool]:
    """Be in that cgroup (an open directory) ourselves while the block runs: what it starts is born there.

    Yields ``False``, and moves nobody, when a limit is in force there, because it would strike us too; when it is
    frozen, since whoever enters it stops; or when we could not find back.
    """
    back: int | None = None
    with suppress(OSError, Unusable), ruling():
        if not limited(cgroup) and _content(cgroup, "cgroup.freeze") != b"1":
            back = os.open(home()[1] / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
    if back is None:
        yield False
        return
    try:
        with ruling():
            procs = os.open("cgroup.procs", os.O_WRONLY | os.O_CLOEXEC, dir_fd=cgroup)
            try:
                os.write(procs, b"0")
            finally:
                os.close(procs)
        try:
            yield True
        finally:
            with ruling():
                os.write(back, b"0")
    finally:
        os.close(back)


def limited(cgroup: int) -> bool:
    """Whether a limit is in force in that cgroup (an open directory) itself."""
    return any((text := _content(cgroup, name)) and not text.startswith(b"max") for name in _LIMITS)


def limits_here() -> tuple[int | None, float | None, int | None]:
    """Bytes of memory, processors, and tasks that the cgroup which we are in ourselves may take at most."""
    with suppress(OSError, Unusable):
        _, here = home()
        memory, pids = read(here / "memory.max"), read(here / "pids.max")
        quota, _, period = read(here / "cpu.max").partition(" ")
        return (
            int(memory) if memory.isdigit() else None,
            int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else None,
            int(pids) if pids.isdigit() else None,
        )
    return None, None, None


def _content(cgroup: int, name: str) -> bytes:
    """What ``read`` tells, without a path: this is asked four times for each of many starts."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=cgroup)
    except OSError:
        return b""
    try:
        return os.read(fd, 64).strip()
    finally:
        os.close(fd)


def read(file: Path) -> str:
    """An interface file without its newline; empty when it is not there."""
    try:
        return _whole(file).strip()
    except OSError:
        return ""


def _whole(file: Path) -> str:
    """As read_text(), in half the time: a look at all services reads hundreds."""
    fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return b"".join(iter(lambda: os.read(fd, _BLOCK), b"")).decode()
    finally:
        os.close(fd)


def members(directory: Path) -> list[int]:
    """The processes that are in that cgroup itself, none if it is gone; zombies are not counted. Raises ``OSError``."""
    try:
        listed = _whole(directory / "cgroup.procs")
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):  # the last: it holds threads, not processes
            return []
        raise
    # Those of another PID namespace are shown as 0.
    return [pid for text in listed.split() if (pid := int(text)) > 0]


def counters(file: Path) -> dict[str, int]:
    """A flat-keyed interface file; empty when it is not there."""
    return flat(read(file))


def flat(text: str) -> dict[str, int]:
    try:
        return {key: int(value) for key, value in (line.split() for line in text.splitlines())}
    except ValueError:
        return {}
