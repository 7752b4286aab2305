"""The drop-ins of jobs where systemd looks for them: what is there, and whether it is as declared.

Only what begins with our mark is ours. All else that could be in the way belongs to an operator, or to the agent of
another prefix, and is left alone.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from agent.declaration.model import Declaration
from agent.errors import RuntimeFailure, StorageFailure
from agent.installation.timers import DROP_IN, JobUnits, Suffix, differing, mark, parse_place, place, render, unit
from agent.linux.files import make_directory, write_atomic
from agent.paths import Paths

UNITS = Path("/etc/systemd/system")
"""Where the units of this machine's administrator are, systemd.unit(5)."""

UNIT_PATH = (
    *("etc/systemd/system.control", "run/systemd/system.control", "etc/systemd/system", "run/systemd/system"),
    *("usr/local/lib/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"),
)
"""Where systemd looks for units, the first that has one wins (systemd.unit(5); what generators make left out)."""

SUFFIXES: tuple[Suffix, ...] = ("timer", "service")
WANTS = "timers.target.wants"
"""What lies in here is started at boot: this is what ``systemctl enable`` makes of ``WantedBy=timers.target``."""

STAMPS = "var/lib/systemd/timers"
"""Where systemd remembers when a timer with ``Persistent=`` elapsed last, ``systemctl clean`` in systemctl(1)."""

LARGEST = 64 * 1024
"""Bytes of a drop-in that are read. Ours have 32 calendars of 400 characters at most."""


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


def look(units: Path, prefix: Path) -> dict[str, There]:
    """The jobs that have drop-ins with the mark of ``prefix`` below ``units``, and what of each is there."""
    first = mark(prefix)
    names = set()
    with suppress(OSError):
        for entry in units.iterdir():
            if (found := parse_place(entry.name)) and _ours(units / place(*found), first) is not None:
                names.add(found[0])
    return {name: there(units, prefix, name) for name in sorted(names)}


def there(units: Path, prefix: Path, name: str) -> There:
    """What lies there of one job."""
    first = mark(prefix)
    timer, service = (_ours(units / place(name, suffix), first) for suffix in SUFFIXES)
    return There(timer, service, os.path.lexists(_link(units, name)))


def out_of_sync(declaration: Declaration, paths: Paths, units: Path = UNITS) -> list[str]:
    """The jobs whose units are not as declared: new ones, changed ones, and those that are to go. By name."""
    wanted = render(declaration, paths.prefix)
    found = look(units, paths.prefix)
    return differing(wanted, {name: lies.units for name, lies in found.items()})


def template(root: Path, suffix: Suffix) -> Path:
    """The template of jobs that systemd would use, as a path below ``root``. Raises ``RuntimeFailure``."""
    for directory in UNIT_PATH:
        if (root / directory / f"agent-job@.{suffix}").exists():
            return Path("/", directory, f"agent-job@.{suffix}")
    where = f"{root / 'etc/systemd/system'} or wherever else systemd looks"
    raise RuntimeFailure(f"agent-job@.{suffix} is not in {where}: it comes with an installation (agentctl install)")


def check(units: Path, prefix: Path, names: Iterable[str]) -> None:
    """See that what is to be written for these jobs replaces nothing of somebody else's. Raises ``RuntimeFailure``."""
    first = mark(prefix)
    for name in names:
        for suffix in SUFFIXES:
            path = units / place(name, suffix)
            if os.path.lexists(path) and _ours(path, first) is None:
                what = "was not made by this agent; move what you need of it to another file beside it, and remove it"
                raise RuntimeFailure(f"{path}: {what}")


def write(units: Path, name: str, texts: JobUnits, timer_template: Path) -> None:
    """Lay the drop-ins of a job, and enable its timer. Raises ``StorageFailure``."""
    for suffix, text in zip(SUFFIXES, texts, strict=True):
        path = units / place(name, suffix)
        make_directory(path.parent)
        write_atomic(path, text, durable=True)
    link = _link(units, name)
    if not os.path.lexists(link):
        make_directory(link.parent)
        with _changing(link), suppress(FileExistsError):
            link.symlink_to(timer_template)


def remove(units: Path, name: str) -> None:
    """Take all that back, the drop-in of the timer last: as long as that is there, it is known what else is to go.

    Raises ``StorageFailure``.
    """
    for path in (_link(units, name), *(units / place(name, suffix) for suffix in reversed(SUFFIXES))):
        with _changing(path):
            path.unlink(missing_ok=True)
        if path.name == DROP_IN:
            with suppress(OSError):  # an operator has something else in there
                for unfinished in path.parent.glob(f".{DROP_IN}.*"):
                    unfinished.unlink()
                path.parent.rmdir()


def forget(root: Path, name: str) -> None:
    """Have systemd not know when the timer of a job elapsed last, lest it makes up for that when it is declared again.

    As ``systemctl clean --what=state``, which wants the timer stopped and persistent still. Raises ``StorageFailure``.
    """
    stamp = root / STAMPS / f"stamp-{unit(name, 'timer')}"
    with _changing(stamp):
        stamp.unlink(missing_ok=True)


def _link(units: Path, name: str) -> Path:
    return units / WANTS / unit(name, "timer")


@contextmanager
def _changing(path: Path) -> Iterator[None]:
    """Make one line about ``path`` of an ``OSError``."""
    try:
        yield
    except OSError as error:
        raise StorageFailure(f"{path}: cannot be changed: {error.strerror}") from error


def _ours(path: Path, first: str) -> str | None:
    """The text of a drop-in that begins with our mark; ``None`` for whatever else is there, and for nothing."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        regular = stat.S_ISREG(os.fstat(fd).st_mode)
        text = os.read(fd, LARGEST).decode("utf-8", "replace") if regular else ""
    except OSError:
        return None
    finally:
        os.close(fd)
    return text if text.startswith(f"{first}\n") else None
