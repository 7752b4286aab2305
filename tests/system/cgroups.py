"""A cgroup for each container: two in one would be each other's.

The kernel takes back everything of a process that was killed but a cgroup that is empty: the next container does.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

PREFIX = "agent-test-"


def _hierarchy() -> Path:
    """Where the second version of cgroups is mounted: beside the first (hybrid), or alone."""
    hybrid = Path("/sys/fs/cgroup/unified")
    return hybrid if hybrid.is_dir() else Path("/sys/fs/cgroup")


def new_cgroup() -> Path | None:
    """A new one; ``None`` where systemd runs the machine: it is the one to make them there."""
    if Path("/run/systemd/system").is_dir():
        return None
    for stale in _hierarchy().glob(f"{PREFIX}*"):
        owner = stale.name.removeprefix(PREFIX).partition("-")[0]
        if not Path("/proc", owner).exists():
            remove_cgroup(stale)
    return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=_hierarchy()))


def in_cgroup(cgroup: Path | None) -> tuple[str, ...]:
    """What to start nspawn with so that it has a cgroup of its own."""
    if cgroup is None:
        return ("systemd-run", "--scope", "--quiet", "--collect", "--property=Delegate=yes")
    return ("sh", "-c", 'echo 0 > "$1/cgroup.procs" && shift && exec "$@"', "sh", str(cgroup))


def remove_cgroup(cgroup: Path) -> None:
    """Take it back when its processes are gone, with what nspawn made below it in both hierarchies."""
    for parent in (_hierarchy(), Path("/sys/fs/cgroup/systemd")):
        for directory, _, _ in os.walk(parent / cgroup.name, topdown=False):
            with suppress(OSError):
                Path(directory).rmdir()
