"""Laying and taking back the drop-ins of jobs, as whatever else is installed: by steps, below a root that nothing leads
out of (``perform``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from agent.errors import StorageFailure
from agent.installation.entry import Directory, File, Link, parent, parents
from agent.installation.perform import Site, perform
from agent.installation.steps import Discard, Make, Point, Remove, RemoveDirectory, Step, Write
from agent.installation.timer_files import STAMPS, SUFFIXES, drop_in, enabling
from agent.installation.timers import DROP_IN, JobUnits, unit
from agent.linux.rooted import directory, names, stands

MODE = "0644"


def lay(site: Site, job: str, texts: JobUnits, template: str) -> None:
    """Lay the drop-ins of a job, and enable its timer, which is that of ``template``.

    Raises ``StorageFailure`` and ``RuntimeFailure``.
    """
    sources = {drop_in(job, suffix): text.encode() for suffix, text in zip(SUFFIXES, texts, strict=True)}
    link = enabling(job)
    steps: list[Step] = [Make(Directory(path)) for path in _missing(site.root, parents([*sources, link]))]
    for path, data in sources.items():
        steps.append(Write(File(path, MODE, hashlib.sha256(data).hexdigest()), replace=True))
    if not stands(site.root, link):
        steps.append(Point(Link(link, template), replace=False))
    _do(steps, Site(site.root, site.prefix, dict(sources)))


def remove(site: Site, job: str) -> None:
    """Take all that back, the drop-in of the timer last: as long as that is there, it is known what else is to go.

    Raises ``StorageFailure`` and ``RuntimeFailure``.
    """
    _remove(site, enabling(job))
    for suffix in reversed(SUFFIXES):
        path = drop_in(job, suffix)
        _remove(site, path)
        try:
            with directory(site.root, parent(path)) as found:
                unfinished = [child for child in names(found) if child.startswith(f".{DROP_IN}.")]
        except (FileNotFoundError, NotADirectoryError):
            continue
        _do([Discard(f"{parent(path)}/{child}") for child in unfinished], site)
        with suppress(StorageFailure):  # an operator has something else in there
            _do([RemoveDirectory(parent(path))], site)


def forget(site: Site, job: str) -> None:
    """Have systemd not know when the timer of a job elapsed last, lest it makes up for that when it is declared again.

    As ``systemctl clean --what=state``, which wants the timer stopped and persistent still. Raises ``StorageFailure``
    and ``RuntimeFailure``.
    """
    _remove(site, f"{STAMPS}/stamp-{unit(job, 'timer')}")


def _remove(site: Site, path: str) -> None:
    if stands(site.root, path):
        _do([Remove(path)], site)


def _missing(root: Path, paths: list[str]) -> list[str]:
    found = []
    for path in paths:
        try:
            with directory(root, path):
                pass
        except FileNotFoundError:
            found.append(path)
    return found


def _do(steps: Iterable[Step], site: Site) -> None:
    for _ in perform(steps, site):
        pass
