"""The programs of systemd and of the accounts that an installation needs, and that they are there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Container, Iterable, Sequence
from pathlib import Path

from agent.errors import RuntimeFailure, SpawnFailed
from agent.installation.steps import CreateDirectories, CreateUsers, DeleteUsers, IndexCatalog, Reload, Step, Stop
from agent.linux.environment import DEFAULT_PATH
from agent.linux.spawn import SpawnRequest, base_environment, run

TIMEOUT = 60.0
"""Seconds that any of them may take, but for stopping services."""

STOP_TIMEOUT = 300.0
"""Seconds for all services to stop; systemd kills each after its own TimeoutStopSec."""

NOT_LOADED = 5
"""How systemctl exits when a unit is not loaded: then nothing of it runs."""

NO_SUCH_ACCOUNT = 6
"""How userdel and groupdel exit when there is nothing to delete."""

_HERE = Path("/")

_NEEDED = {
    CreateUsers: ("systemd-sysusers",),
    CreateDirectories: ("systemd-tmpfiles",),
    Reload: ("systemctl",),
    IndexCatalog: ("journalctl",),
    Stop: ("systemctl",),
    DeleteUsers: ("userdel", "groupdel"),
}


def check(steps: Iterable[Step]) -> None:
    """Raise ``RuntimeFailure`` when a program is missing that one of ``steps`` runs."""
    needed = {program for step in steps for program in _NEEDED.get(type(step), ())}
    missing = sorted(program for program in needed if shutil.which(program, path=_environment()["PATH"]) is None)
    if missing:
        package = "passwd" if set(missing) <= {"userdel", "groupdel"} else "systemd"
        raise RuntimeFailure(f"{' and '.join(missing)} cannot be found; on Debian: apt install {package}")


def create_users(root: Path, files: Sequence[str]) -> None:
    """Make the accounts that these files of sysusers.d declare."""
    _run(["systemd-sysusers", *_rooted("--root", root), *files])


def create_directories(root: Path, files: Sequence[str]) -> None:
    """Make the directories that these files of tmpfiles.d declare."""
    _run(["systemd-tmpfiles", "--create", *_rooted("--root", root), *files])


def delete_users(root: Path, users: Sequence[str], groups: Sequence[str]) -> None:
    """Delete accounts; those that are gone already do not matter."""
    for user in users:
        _run(["userdel", *_rooted("--prefix", root), user], fine=(0, NO_SUCH_ACCOUNT))
    for group in groups:
        _run(["groupdel", *_rooted("--prefix", root), group], fine=(0, NO_SUCH_ACCOUNT))


def reload() -> None:
    """Make systemd read its units again."""
    _run(["systemctl", "daemon-reload"])


def index_catalog(root: Path) -> None:
    """Have journalctl take in, or forget, what explains our messages."""
    _run(["journalctl", "--update-catalog", *_rooted("--root", root)])


def stop(units: Sequence[str]) -> None:
    """Stop units, and have systemd forget that any of them failed. Those that are not loaded do not matter.

    Timers and sockets go first: one that elapsed in between would start its service, and cancel the stop of the slice.
    """
    starting = [unit for unit in units if unit.endswith((".timer", ".socket"))]
    for some in (starting, [unit for unit in units if unit not in starting]):
        if some:
            _run(["systemctl", "stop", *some], fine=(0, NOT_LOADED), timeout=STOP_TIMEOUT)
    _run(["systemctl", "reset-failed", *units], fine=range(256))


def _rooted(option: str, root: Path) -> list[str]:
    """``option`` with the image that is worked on, if it is one. userdel(8) takes no ``--prefix=DIR``."""
    return [] if root == _HERE else [option, str(root)]


def _environment() -> dict[str, str]:
    """As for any foreign program; the system's own directories are looked into whatever PATH says."""
    found = base_environment(os.environ)
    return {**found, "PATH": f"{found['PATH']}:{DEFAULT_PATH}"}


def _run(argv: Sequence[str], *, fine: Container[int] = (0,), timeout: float = TIMEOUT) -> None:
    try:
        done = run(SpawnRequest(argv=argv, environment=_environment(), umask=0o022), timeout)
    except SpawnFailed as error:
        raise RuntimeFailure(str(error)) from error
    if done.timed_out:
        raise RuntimeFailure(f"{' '.join(argv)}: did not end within {timeout:.0f} s")
    if done.status.code is None or done.status.code not in fine:
        said = [line.strip() for line in done.stderr.decode("utf-8", "replace").splitlines() if line.strip()]
        raise RuntimeFailure(f"{' '.join(argv)}: {said[-1] if said else done.status}")
