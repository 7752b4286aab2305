"""Containment by cgroup v2: whatever a service starts stays in its cgroup, and can be counted, limited and killed.

The tree that ``discover`` builds, with the interface files of Linux' admin-guide/cgroup-v2.rst::

    BASE/                    our unit's delegated cgroup, or BASE/agent-HASH where no systemd manages the machine
    ├── supervisor/          ourselves: processes live in leaves only, once controllers are enabled
    └── service.NAME/        one for each service
"""

from __future__ import annotations

import errno
import os
import zlib
from contextlib import suppress
from pathlib import Path

from agent.linux import libc, systemd
from agent.linux.cgroup_place import Mount, Unusable, counters, flat, home, members, parse_membership, read, ruling
from agent.linux.printable import proc_text
from agent.linux.process import Pidfd

_CONTROLLERS = ("cpu", "memory", "pids")
_OWN_LEAF = "supervisor"  # the name that units pass to DelegateSubgroup=, systemd.resource-control(5)
_SERVICE = "service."  # no interface file of the kernel starts so
_PERIOD = 100_000  # microseconds, the kernel's default period in cpu.max


def discover(prefix: Path) -> CgroupTree | None:
    """Set up the tree for the agent on ``prefix`` and move this process to its place in it.

    ``None`` where no cgroup is ours to use; ``explain`` tells why.
    """
    try:
        mount, directory = _site(prefix)
        with ruling():
            _probe(directory)
            return CgroupTree(mount, directory)
    except (OSError, Unusable):
        return None


def explain(prefix: Path) -> str:
    """One line for a person: which cgroup the agent would use from where we are, or why it can use none."""
    try:
        _, directory = _site(prefix)
        _probe(directory)
    except Unusable as reason:
        return str(reason)
    except OSError as error:
        return f"no cgroup can be created: {error.filename}: {error.strerror}"
    return f"cgroup v2 at {directory}"


def _site(prefix: Path) -> tuple[Mount, Path]:
    """The mount and the directory of our tree, which may not exist yet. Raises ``Unusable`` and ``OSError``."""
    mount, here = home()
    if here.name == _OWN_LEAF:
        here = here.parent
    if systemd.booted():
        if not _delegated(here):
            raise Unusable(f"systemd has not delegated {here} to us; a unit needs Delegate=cpu memory pids")
        return mount, here
    name = f"agent-{zlib.crc32(os.fsencode(prefix)):08x}"
    return mount, here if here.name == name else here / name


def _delegated(directory: Path) -> bool:
    """Whether systemd gave this cgroup away: it marks it so (https://systemd.io/CGROUP_DELEGATION)."""
    for attribute in ("user.delegate", "trusted.delegate"):
        with suppress(OSError):
            if os.getxattr(directory, attribute) == b"1":
                return True
    return False


def _probe(directory: Path) -> None:
    """Try out what we need: to create a cgroup, kill by it (Linux 5.14) and remove it. Leaves nothing behind."""
    existing = directory if directory.is_dir() else directory.parent
    trial = existing / f"agent-probe-{os.getpid()}"
    trial.mkdir(exist_ok=True)
    try:
        if not (trial / "cgroup.kill").exists():
            raise Unusable("this kernel has no cgroup.kill; Linux 5.14 or later is needed")
    finally:
        trial.rmdir()


class CgroupTree:
    """The cgroups of one agent. ``controllers`` are those that can limit a service here."""

    def __init__(self, mount: Mount, directory: Path) -> None:
        self._mount = mount
        self.directory = directory
        directory.mkdir(exist_ok=True)
        self._leave_inner_node()
        if directory.parent.joinpath("cgroup.procs").exists():
            _enable(directory.parent)
        self.controllers = _enable(directory)

    def service(self, name: str) -> Cgroup:
        """The cgroup of a service; a new one, unless processes are in the old one. Raises ``OSError``.

        New, because the kernel counts the kills of a cgroup, compares that with the count of the one that clones, and
        so kills whoever is born by ``CLONE_INTO_CGROUP`` where there was a kill before (seen on Linux 6.18;
        ``kill_seq`` in kernel/cgroup/cgroup.c).
        """
        directory = self.directory / (_SERVICE + name)
        with ruling():
            _remove(directory)
            directory.mkdir(exist_ok=True)
        return Cgroup(self._mount, directory)

    def held(self, name: str) -> Cgroup:
        """The cgroup of a service that may have processes, as it is; made if there is none. Raises ``OSError``."""
        directory = self.directory / (_SERVICE + name)
        with ruling():
            directory.mkdir(exist_ok=True)
        return Cgroup(self._mount, directory)

    def leftovers(self) -> list[str]:
        """Names of the services whose cgroups exist: right after ``discover``, those of an agent before us."""
        with suppress(OSError):
            return sorted(
                entry.name.removeprefix(_SERVICE)
                for entry in os.scandir(self.directory)
                if entry.is_dir() and entry.name.startswith(_SERVICE)
            )
        return []

    def remove(self) -> None:
        """At our end: remove what is empty. The rest, our own leaf included, waits for our successor or for systemd."""
        with suppress(OSError), ruling():
            _remove(self.directory)

    def _leave_inner_node(self) -> None:
        """Move ourselves to a leaf, unless we live in the root of all cgroups, where no such rule holds."""
        _, here = home()
        if here in (self.directory, self.directory.parent) and (here / "cgroup.type").exists():
            leaf = self.directory / _OWN_LEAF
            leaf.mkdir(exist_ok=True)
            (leaf / "cgroup.procs").write_text("0")


def _remove(top: Path) -> None:
    """Remove it and the cgroups below it, as far as there are no processes in them. Mostly there is none below it."""
    with suppress(OSError):
        top.rmdir()
        return
    for directory, _, _ in os.walk(top, topdown=False):
        with suppress(OSError):
            Path(directory).rmdir()


def _has_children(directory: Path) -> bool:
    """Whether there are cgroups below it. Each is one more link to it, so the names of its sixty files need no look."""
    with suppress(OSError):
        return directory.stat().st_nlink != 2
    return False


def _enable(directory: Path) -> frozenset[str]:
    """Let the children of a cgroup be limited, as far as it goes, and tell by which controllers they then can be.

    Other processes in the same cgroup, or a parent that does not pass a controller on, stand in the way.
    """
    control = directory / "cgroup.subtree_control"
    for controller in _CONTROLLERS:
        with suppress(OSError):
            control.write_text(f"+{controller}")
    return frozenset(read(control).split()) & frozenset(_CONTROLLERS)


class Cgroup:
    """The cgroup of one service."""

    def __init__(self, mount: Mount, directory: Path) -> None:
        self._mount = mount
        self.directory = directory
        self._fd = -1
        self._watch = -1

    def fd(self) -> int:
        """A descriptor of its directory, for ``SpawnRequest.cgroup``; it stays ours. Raises ``OSError``."""
        if self._fd < 0:
            self._fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return self._fd

    def pids(self) -> list[int]:
        """Every process in it and in the cgroups below it; zombies are not counted.

        Raises ``OSError`` when descriptors run out.
        """
        found = members(self.directory)
        if _has_children(self.directory):
            for directory, children, _ in os.walk(self.directory):
                for child in children:
                    found += members(Path(directory, child))
        return found

    def populated(self) -> bool:
        """Whether any live process is in it or below it. A cgroup that was removed is empty.

        Raises ``OSError`` when that cannot be told for want of a descriptor: to guess would mean a second worker.
        """
        try:
            text = (self.directory / "cgroup.events").read_text()
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENODEV):
                return False
            raise
        return flat(text).get("populated", 0) > 0

    def watch_fd(self) -> int:
        """A descriptor that polls readable when ``populated`` may have changed. Raises ``OSError``.

        The kernel also offers POLLPRI on cgroup.events, but a loop's readers wait for POLLIN: this is inotify(7) on
        the same file. Call ``drain_watch`` when it is readable, and then ask ``populated``.
        """
        if self._watch < 0:
            self._watch = libc.inotify(self.directory / "cgroup.events", libc.IN_MODIFY)
        return self._watch

    def drain_watch(self) -> None:
        """Forget the changes seen so far, so that the watch is quiet until the next."""
        with suppress(BlockingIOError):
            while self._watch >= 0 and os.read(self._watch, 4096):
                pass

    def signal(self, number: int) -> int:
        """Send a signal to every process in it or below it, and tell to how many it went.

        Each is held by a pidfd before its membership is looked up, so no process that got its PID since is meant.
        Raises ``OSError`` when descriptors run out.
        """
        sent = 0
        for pid in self.pids():
            held = Pidfd.open(pid)
            if held is not None:
                with held:
                    sent += pid != os.getpid() and self._holds(pid) and held.signal(number)
        return sent

    def kill(self) -> bool:
        """SIGKILL everything in it and below it at once, processes being forked meanwhile included (cgroup.kill).

        ``False`` when that could not be done, and when we are in it ourselves.
        """
        return not self._holds(os.getpid()) and self._write("cgroup.kill", "1")

    def set_limits(self, memory: int | None = None, cpus: float | None = None, pids: int | None = None) -> list[str]:
        """Put limits in force, or lift those that are ``None``; returns the names of those it could not put in force.

        ``memory`` in bytes; when it is exceeded the whole service dies, not one process at random. ``cpus`` in CPUs,
        0.01 at least. ``pids`` counts threads.
        """
        quota = "max" if cpus is None else str(max(1000, round(cpus * _PERIOD)))
        done = {
            "memory": self._write("memory.max", "max" if memory is None else str(memory)),
            "cpus": self._write("cpu.max", f"{quota} {_PERIOD}"),
            "pids": self._write("pids.max", "max" if pids is None else str(pids)),
        }
        self._write("memory.oom.group", "0" if memory is None else "1")
        wanted = {"memory": memory, "cpus": cpus, "pids": pids}
        return [name for name, value in wanted.items() if value is not None and not done[name]]

    def events(self) -> dict[str, int]:
        """How often a limit struck: ``oom_kill`` processes killed for memory, ``pids_max`` refused forks."""
        return {
            "oom_kill": counters(self.directory / "memory.events").get("oom_kill", 0),
            "pids_max": counters(self.directory / "pids.events").get("max", 0),
        }

    def remove(self) -> bool:
        """Remove it and the cgroups below it, and close its descriptors; ``False`` when processes are still in it."""
        with suppress(OSError), ruling():
            _remove(self.directory)
        if self.directory.exists():
            return False
        self.close()
        return True

    def close(self) -> None:
        """Let go of the descriptors; the cgroup stays. Twice does no harm."""
        for fd in (self._fd, self._watch):
            if fd >= 0:
                os.close(fd)
        self._fd = self._watch = -1

    def _holds(self, pid: int) -> bool:
        try:
            path = parse_membership(proc_text(Path(f"/proc/{pid}/cgroup")))
        except OSError:
            return False
        directory = self._mount.directory(path) if path is not None else None
        return directory is not None and directory.is_relative_to(self.directory)

    def _write(self, name: str, value: str) -> bool:
        """Write an interface file; ``False`` when the kernel has none of that name here or refuses the value."""
        try:
            with ruling():
                fd = os.open(self.directory / name, os.O_WRONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            os.write(fd, value.encode())
        except OSError:
            return False
        finally:
            os.close(fd)
        return True
