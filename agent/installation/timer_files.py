"""The drop-ins of jobs where systemd looks for them: what is there, and whether it is as declared.

Only what begins with our mark is ours. All else that could be in the way belongs to an operator, or to the agent of
another prefix, and is left alone. Paths are those of the system below a root, which no link leads out of.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from agent.declaration.model import Declaration
from agent.errors import RuntimeFailure
from agent.installation.entry import name, parent
from agent.installation.timers import JobUnits, Suffix, differing, mark, parse_place, place, render, unit
from agent.linux.rooted import directory, names, stands
from agent.linux.systemd import UNITS
from agent.paths import Paths

HERE = Path("/")

UNIT_PATH = (
    *("/etc/systemd/system.control", "/run/systemd/system.control", UNITS, "/run/systemd/system"),
    *("/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"),
)
"""Where systemd looks for units, the first that has one wins (systemd.unit(5); what generators make left out)."""

SUFFIXES: tuple[Suffix, ...] = ("timer", "service")
WANTS = f"{UNITS}/timers.target.wants"
"""What lies in here is started at boot: this is what ``systemctl enable`` makes of ``WantedBy=timers.target``."""

STAMPS = "/var/lib/systemd/timers"
"""Where systemd remembers when a timer with ``Persistent=`` elapsed last, ``systemctl clean`` in systemctl(1)."""

LARGEST = 64 * 1024
"""Bytes of a drop-in that are read. Ours have 32 calendars of 400 characters at most."""

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class There(NamedTuple):
    """What lies there of a job: its drop-ins (``None``: there is none, or not by us), and whether it is enabled."""

    timer: str | None
    service: str | None
    enabled: bool

    @property
    def units(self) -> JobUnits | None:
        """Both texts; ``None`` as long as not everything is there."""
        if self.timer is None or self.service is None or not self.enabled:
            return None
        return JobUnits(self.timer, self.service)


def drop_in(job: str, suffix: Suffix) -> str:
    """The path of a drop-in of a job."""
    return f"{UNITS}/{place(job, suffix)}"


def enabling(job: str) -> str:
    """The path of the link that enables the timer of a job."""
    return f"{WANTS}/{unit(job, 'timer')}"


def look(root: Path, prefix: Path) -> dict[str, There]:
    """The jobs that have drop-ins with the mark of ``prefix`` below ``root``, and what of each is there."""
    first = mark(prefix)
    children: list[str] = []
    with suppress(OSError, RuntimeFailure), directory(root, UNITS) as units:
        children = names(units)
    jobs = {}
    for job in sorted({found[0] for child in children if (found := parse_place(child))}):
        timer, service = (_ours(root, drop_in(job, suffix), first) for suffix in SUFFIXES)
        if timer is not None or service is not None:
            jobs[job] = There(timer, service, _is_enabled(root, job))
    return jobs


def out_of_sync(declaration: Declaration, paths: Paths, root: Path = HERE) -> list[str]:
    """The jobs whose units are not as declared: new ones, changed ones, and those that are to go. By name."""
    wanted = render(declaration, paths.prefix)
    found = look(root, paths.prefix)
    return differing(wanted, {name: lies.units for name, lies in found.items()})


def template(root: Path, suffix: Suffix) -> str:
    """The template of jobs that systemd would use. Raises ``RuntimeFailure``."""
    for above in UNIT_PATH:
        if stands(root, path := f"{above}/agent-job@.{suffix}"):
            return path
    where = f"{_below(root, UNITS)} or wherever else systemd looks"
    raise RuntimeFailure(f"agent-job@.{suffix} is not in {where}: it comes with an installation (agentctl install)")


def check(root: Path, prefix: Path, jobs: Iterable[str]) -> None:
    """See that what is to be written for these jobs replaces nothing of somebody else's. Raises ``RuntimeFailure``.

    And that nobody else could exchange it: whatever there is to do, it is refused before anything has changed.
    """
    first = mark(prefix)
    drop_ins = [drop_in(job, suffix) for job in jobs for suffix in SUFFIXES]
    for above in (UNITS, WANTS, STAMPS, *map(parent, drop_ins)):
        try:
            with directory(root, above):
                pass
        except (FileNotFoundError, NotADirectoryError):
            if stands(root, above):
                raise RuntimeFailure(f"{_below(root, above)}: is no directory; move it away") from None
        except OSError as error:
            raise RuntimeFailure(f"{_below(root, above)}: cannot be opened: {error.strerror}") from error
    for path in drop_ins:
        if stands(root, path) and _ours(root, path, first) is None:
            what = "was not made by this agent; move what you need of it to another file beside it, and remove it"
            raise RuntimeFailure(f"{_below(root, path)}: {what}")


def _below(root: Path, path: str) -> Path:
    """As somebody finds it who is told of it here."""
    return root / path.lstrip("/")


def _is_enabled(root: Path, job: str) -> bool:
    with suppress(OSError, RuntimeFailure):
        return stands(root, enabling(job))
    return False


def _ours(root: Path, path: str, first: str) -> str | None:
    """The text of a drop-in that begins with our mark; ``None`` for whatever else is there, and for nothing."""
    try:
        with directory(root, parent(path)) as above:
            fd = os.open(name(path), _READ, dir_fd=above)
    except (OSError, RuntimeFailure):
        return None
    try:
        regular = stat.S_ISREG(os.fstat(fd).st_mode)
        text = os.read(fd, LARGEST).decode("utf-8", "replace") if regular else ""
    except OSError:
        return None
    finally:
        os.close(fd)
    return text if text.startswith(f"{first}\n") else None
