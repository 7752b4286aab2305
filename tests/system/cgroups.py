"""A cgroup for each container: two in one would be each other's.

nspawn stands in it alone, since only a cgroup without processes passes controllers on to those below it. The kernel
takes back everything of a process that was killed but a cgroup that is empty: the next container does.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

PREFIX = "agent-test-"

_HAS_SYSTEMD = Path("/run/systemd/system").is_dir()
"""Then it is asked for a scope, and nobody else makes or removes cgroups."""

_STEP_ASIDE = 'mkdir "$1/aside" && echo 0 > "$1/aside/cgroup.procs" && shift && exec "$@"'
_STEP_IN = 'echo 0 > "$1/cgroup.procs" && shift && exec "$@"'


def _hierarchy() -> Path:
    """Where the second version of cgroups is mounted: beside the first (hybrid), or alone."""
    hybrid = Path("/sys/fs/cgroup/unified")
    return hybrid if hybrid.is_dir() else Path("/sys/fs/cgroup")


def new_cgroup() -> Path:
    """A new one, or where it will be when ``outside`` has run."""
    top = _hierarchy()
    if _HAS_SYSTEMD:
        return top / "system.slice" / f"{PREFIX}{os.urandom(4).hex()}.scope"
    for stale in top.glob(f"{PREFIX}*"):
        owner = stale.name.removeprefix(PREFIX).partition("-")[0]
        if not Path("/proc", owner).exists():
            remove_cgroup(stale)
    # What there is to limit with is passed on; nspawn and the systemd in the container do the same.
    controllers = (top / "cgroup.controllers").read_text().split()
    (top / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in controllers))
    return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=top))


def outside(cgroup: Path) -> tuple[str, ...]:
    """What to start a command with that will enter a container's namespaces."""
    if not _HAS_SYSTEMD:
        return ()
    scope = ("systemd-run", "--scope", "--quiet", "--collect", "--property=Delegate=yes", f"--unit={cgroup.name}")
    return (*scope, "sh", "-c", _STEP_ASIDE, "sh", str(cgroup))


def inside(cgroup: Path) -> tuple[str, ...]:
    """What to start nspawn with, once in there."""
    return ("sh", "-c", _STEP_IN, "sh", str(cgroup))


def remove_cgroup(cgroup: Path) -> None:
    """Take it back when its processes are gone, with what nspawn made below it in both hierarchies."""
    for parent in () if _HAS_SYSTEMD else (_hierarchy(), Path("/sys/fs/cgroup/systemd")):
        for directory, _, _ in os.walk(parent / cgroup.name, topdown=False):
            with suppress(OSError):
                Path(directory).rmdir()
