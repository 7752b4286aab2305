"""``agentctl timers sync``: systemd's timers become those that are declared, and those only.

It may be interrupted anywhere: what is to be done is found out from what is there and what systemd says, so the next
one goes on. Runs that are under way are never disturbed, as stopping a timer does not stop what it started.

Three things systemd does that decide the order of steps. When it reads a timer anew whose calendar was changed, it
counts from when that elapsed last, so that a new time which lies in between starts the job at once: such a timer is
stopped before, and started after. (One that has a period now is better not stopped: it then goes on from the last run.)
A timer without a drop-in goes by the times of the template: one that is to go is stopped before its drop-in is removed.
And it writes down when a persistent timer elapsed. That is removed once the timer has been read as one that is not
persistent, or else it might be written again; and before a timer becomes persistent, or else a time would be made up
for at which it was not.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from agent.declaration.model import Declaration, Scheduler
from agent.errors import RuntimeFailure, UsageError
from agent.installation import timer_changes, timer_files
from agent.installation.lock import only_one
from agent.installation.perform import Site
from agent.installation.timer_files import HERE, There
from agent.installation.timers import JobUnits, has_calendar, is_persistent, render, unit
from agent.linux import systemctl, systemd
from agent.linux.rooted import canonical
from agent.paths import Paths


class SyncReport(msgspec.Struct, kw_only=True):
    """What was done, or with ``dry_run`` would be: names of jobs. ``problems`` are lines about what systemd refused."""

    scheduler: Scheduler
    dry_run: bool
    started: list[str]
    changed: list[str]
    removed: list[str]
    unchanged: int
    problems: list[str] = []


class Live(NamedTuple):
    """What systemd has in force: whether a timer is active, whose units it knows from older files, and how it went."""

    active: bool = True
    stale: bool = False
    """It has to read the units anew; ``stale_times``: that of the timer, too."""
    stale_times: bool = False
    failed: bool = False


class Work(NamedTuple):
    """What there is to do, by names of jobs: what is told of it, and then in detail."""

    started: list[str]
    changed: list[str]
    removed: list[str]
    unchanged: list[str]
    write: list[str]
    forget: list[str]
    stop: list[str]
    start: list[str]


def plan(wanted: Mapping[str, JobUnits], found: Mapping[str, There], live: Mapping[str, Live]) -> Work:
    """Compare what is wanted with the files that were found, and with what systemd has in force. Pure.

    Of a job that ``live`` does not know systemd is taken to have in force what the files say.
    """
    work = Work([], [], [], [], [], [], [], [])
    for name in sorted(wanted.keys() | found.keys()):
        want, lies, state = wanted.get(name), found.get(name), live.get(name, Live())
        if want is None:
            work.removed.append(name)
            if state.active:
                work.stop.append(name)
            continue
        written = lies is None or lies.units != want
        moved = lies is None or lies.timer != want.timer or state.stale_times
        if written:
            work.write.append(name)
        if lies is not None and is_persistent(want.timer) and not is_persistent(lies.timer or ""):
            work.forget.append(name)
        if state.active and moved and has_calendar(want.timer):
            work.stop.append(name)
        if name in work.stop or not state.active:
            work.start.append(name)
        if lies is None or not state.active:
            work.started.append(name)
        elif written or state.stale:
            work.changed.append(name)
        else:
            work.unchanged.append(name)
    return work


def sync(declaration: Declaration, paths: Paths, root: Path | None = None, *, dry_run: bool = False) -> SyncReport:
    """Make it so; below another ``root`` only the files, for a system that does not run now.

    Raises ``UsageError`` when there is no such root, ``RuntimeFailure`` when this cannot be done here, or something
    that is not ours is in the way, and nothing has changed then; ``StorageFailure`` when a file cannot be written.
    """
    if root is not None and not root.is_dir():
        raise UsageError(f"--root {root}: is no directory")
    where = HERE if root is None else root
    paths = paths._replace(prefix=Path(canonical(where, str(paths.prefix))))  # as the agent is installed
    wanted = render(declaration, paths.prefix)
    if dry_run:
        work, _ = _survey(wanted, where, paths, is_live=root is None and systemd.booted())
        return _report(declaration, work, dry_run=True)
    if not wanted and not timer_files.look(where, paths.prefix):
        return _report(declaration, plan({}, {}, {}), dry_run=False)
    if root is None:
        _check_here()
    site = Site(where, str(paths.prefix))
    with only_one(where, site.prefix, wait=True):
        work, live = _survey(wanted, where, paths, is_live=root is None)
        timer_files.check(where, paths.prefix, work.write)
        templates = [timer_files.template(where, suffix) for suffix in timer_files.SUFFIXES if wanted]
        report = _report(declaration, work, dry_run=False)
        doing = _Doing(report.problems, is_live=root is None)
        doing.ask("stop", *(unit(name, "timer") for name in work.removed if name in work.stop))
        for name in work.removed:
            timer_changes.forget(site, name)
            timer_changes.remove(site, name)
        for name in work.write:
            if name in work.forget:
                timer_changes.forget(site, name)
            timer_changes.lay(site, name, wanted[name], templates[0])
        doing.ask("stop", *(unit(name, "timer") for name in wanted if name in work.stop))
        if work.write or work.removed or any(state.stale for state in live.values()):
            doing.ask("daemon-reload")
        for name, texts in wanted.items():
            if not is_persistent(texts.timer):  # not earlier: systemd may have written down another time
                timer_changes.forget(site, name)
        doing.ask("start", *(unit(name, "timer") for name in work.start))
        doing.ask("reset-failed", *(unit(name, "service") for name in work.removed if live[name].failed))
    return report


class _Doing:
    """Asks systemd for one thing after the other; what it refuses keeps nothing else from being done."""

    def __init__(self, problems: list[str], *, is_live: bool) -> None:
        self._problems = problems
        self._is_live = is_live

    def ask(self, verb: str, *names: str) -> None:
        """Nothing is asked where there is no systemd, or of no unit."""
        if not self._is_live or not (names or verb == "daemon-reload"):
            return
        try:
            systemctl.call(verb, *names)
        except RuntimeFailure as error:
            self._problems.append(str(error))


def _survey(wanted: Mapping[str, JobUnits], root: Path, paths: Paths, *, is_live: bool) -> tuple[Work, dict[str, Live]]:
    found = timer_files.look(root, paths.prefix)
    names = sorted(wanted.keys() | found.keys())
    live = _live(names) if is_live else {name: Live() for name in names}
    return plan(wanted, found, live), live


def _live(names: list[str]) -> dict[str, Live]:
    asked = [unit(name, suffix) for name in names for suffix in timer_files.SUFFIXES]
    told = systemctl.show(asked, ("ActiveState", "NeedDaemonReload")) if asked else {}
    return {
        name: Live(
            active=told[unit(name, "timer")]["ActiveState"] == "active",
            stale=any(told[unit(name, suffix)]["NeedDaemonReload"] == "yes" for suffix in timer_files.SUFFIXES),
            stale_times=told[unit(name, "timer")]["NeedDaemonReload"] == "yes",
            failed=told[unit(name, "service")]["ActiveState"] == "failed",
        )
        for name in names
    }


def _report(declaration: Declaration, work: Work, *, dry_run: bool) -> SyncReport:
    return SyncReport(
        scheduler=declaration.agent.scheduler,
        dry_run=dry_run,
        started=work.started,
        changed=work.changed,
        removed=work.removed,
        unchanged=len(work.unchanged),
    )


def _check_here() -> None:
    if not systemd.booted():
        what = "with --root DIR the files are written for a system that it does run"
        raise RuntimeFailure(f"systemd does not run this machine ({systemd.RUNNING} does not exist); {what}")
    if os.geteuid() != 0:
        raise RuntimeFailure(f"only root may change the units in {systemd.UNITS}; --dry-run shows what would be done")
