"""Whose a cgroup is, by its path: which systemd unit, which container, which service of an agent.

Names are those that systemd.unit(5), systemd-nspawn(1), docker, podman, containerd, CRI-O and LXC give. What another
program has named by itself is told as it is.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from agent.linux.cgroup_place import parse_mounts
from agent.linux.printable import name_of, proc_text

MOST = 20_000
"""Cgroups that are looked at for one by its number."""

_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]{1,255}\.(?:service|scope|socket|mount|swap)", re.ASCII)
_OURS = re.compile(r"service\.([a-z][a-z0-9_]*)", re.ASCII)  # agent.linux.cgroup
_ESCAPE = re.compile(rb"\\x([0-9a-fA-F]{2})")
_ID = r"([0-9a-f]{64})"
_CONTAINERS = tuple(
    (kind, re.compile(pattern, re.ASCII))
    for kind, pattern in (
        ("docker", rf"docker-{_ID}\.scope"),
        ("podman", rf"libpod-(?:conmon-)?{_ID}(?:\.scope)?"),
        ("containerd", rf"cri-containerd-{_ID}\.scope"),
        ("crio", rf"crio-{_ID}\.scope"),
        ("nspawn", r"systemd-nspawn@([^/]{1,64})\.service"),
        ("machine", r"machine-([^/]{1,64})\.scope"),
        ("lxc", r"lxc\.payload\.([^/]{1,64})"),
        ("lxc", r"lxc-([^/]{1,64})"),
    )
)
_FULL = re.compile(_ID, re.ASCII)
_BY_PARENT = {"docker": "docker", "lxc": "lxc", "libpod_parent": "podman"}
"""A directory whose children are containers, where cgroupfs and not systemd makes them."""


class Owner(NamedTuple):
    """Each is empty where the path does not tell. ``container`` is ``docker/0123456789ab``: the kind, and its name,
    printable, or the first 12 digits of its id. ``service`` is that of an agent.
    """

    unit: str = ""
    container: str = ""
    service: str = ""

    @property
    def words(self) -> str:
        """The nearest of them, for people; empty when there is none."""
        if self.service:
            return f"service {self.service}"
        return self.container or self.unit


NOBODY = Owner()


def owner_of(path: str) -> Owner:
    """Whose the cgroup of that path is, as ``proc_text`` has it. The innermost name of each kind counts."""
    unit = container = service = ""
    above = ""
    for part in path.split("/"):
        if _UNIT.fullmatch(part) and (part != "init.scope" or not unit):
            unit = part
        if ours := _OURS.fullmatch(part):
            service = ours[1]
        container = _container(part, above) or container
        above = part
    return Owner(unit, container, service)


def _container(part: str, above: str) -> str:
    for kind, pattern in _CONTAINERS:
        if match := pattern.fullmatch(part):
            name = _unescape(match[1])
            return f"{kind}/{name[:12] if _FULL.fullmatch(name) else name_of(name)}"
    kind = _BY_PARENT.get(above, "")
    if kind:
        name = part.removeprefix("libpod-")
        if _FULL.fullmatch(name):
            return f"{kind}/{name[:12]}"
        return f"lxc/{name_of(part[:64])}" if kind == "lxc" and part else ""
    return ""


def _unescape(name: str) -> str:
    """As systemd-escape(1) --unescape: it writes bytes."""
    return os.fsdecode(_ESCAPE.sub(lambda digits: bytes((int(digits[1], 16),)), os.fsencode(name)))


def paths_of(wanted: set[int], mountinfo: str | None = None) -> dict[int, str]:
    """The paths of cgroups (v2) by their numbers, which are those of the inodes of their directories, as far as they
    are found below what is mounted here, as ``os.fsdecode`` has them. ``mountinfo`` is the text of
    /proc/self/mountinfo.
    """
    found: dict[int, str] = {}
    try:
        mounts = parse_mounts(proc_text(Path("/proc/self/mountinfo")) if mountinfo is None else mountinfo)
    except OSError:
        return found
    left = MOST
    for root, point in mounts:
        beyond = "" if root == "/" else root
        todo = [(point, beyond)]
        try:
            number = Path(point).stat().st_ino
        except OSError:
            continue
        if number in wanted:
            found[number] = beyond or "/"
        while todo and left > 0 and len(found) < len(wanted):
            directory, path = todo.pop()
            try:
                with os.scandir(directory) as entries:
                    below = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
            except OSError:  # it is gone
                continue
            left -= len(below)
            for entry in below:
                if entry.inode() in wanted:
                    found[entry.inode()] = f"{path}/{entry.name}"
                todo.append((entry.path, f"{path}/{entry.name}"))
    return found
