"""Installing and taking back, from the question to the last step. What is shown of it is the caller's affair."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from agent.errors import AgentError, AlreadyRunning, RuntimeFailure, StorageFailure, UsageError
from agent.installation import foreign, goal, ground, prefix
from agent.installation.entry import within
from agent.installation.lock import only_one
from agent.installation.objections import objections, older
from agent.installation.observe import foreign_units, observe, processes_of, shipped_units, users_of
from agent.installation.perform import Site, perform
from agent.installation.plan import Plan, retreat
from agent.installation.plan import install as plan_install
from agent.installation.plan import uninstall as plan_uninstall
from agent.installation.record import Record, library, read
from agent.installation.steps import DeleteUsers, RemoveTree, Step, Stop
from agent.installation.tree import PROGRAM, Tree, laid, verify
from agent.linux.files import PrefixLock
from agent.linux.rooted import canonical, directory
from agent.paths import Paths

HERE = Path("/")

Tell = Callable[[Step], None]
"""Is told each step when it is done."""


class Outcome(msgspec.Struct, frozen=True):
    """What was done, or with ``dry_run`` would have been. Without steps everything was as it should be.

    ``before`` and ``version`` are the versions that ``current`` points to, empty for none. ``kept`` are paths that stay
    although they would go. ``running`` are processes that still execute another version. ``users`` were there before
    anything was installed, and the service runs as them.
    """

    prefix: str
    root: str
    before: str
    version: str
    dry_run: bool
    steps: tuple[Step, ...]
    kept: tuple[str, ...] = ()
    running: tuple[int, ...] = ()
    users: tuple[str, ...] = ()


class Refused(RuntimeFailure):
    """Something stands in the way. ``objections`` has a line for each thing that does."""

    def __init__(self, objections: list[str]) -> None:
        self.objections = objections
        super().__init__("\n".join(objections))


def install(
    tree: Tree,
    where: str,
    root: Path = HERE,
    *,
    force: bool = False,
    dry_run: bool = False,
    wait: bool = False,
    tell: Tell | None = None,
) -> Outcome:
    """Install ``tree`` below the prefix ``where`` of the system below ``root``; with ``wait`` once nobody else does.

    What fails half-way is taken back. Raises ``UsageError`` and ``RuntimeFailure`` before anything is touched, and
    after that ``RuntimeFailure`` and ``StorageFailure``.
    """
    _check_image(root)
    where = _real(where, root)
    _check_user(dry_run, "installing makes a user and units")
    ground.check_machine(tree.manifest.machine, root)
    verify(tree)
    aim, sources = goal.whole(tree, where)
    with _alone(root, where, dry_run, wait=wait):
        seen = observe(root, where, aim)
        installed = older(aim, seen)
        if installed and not force:
            raise UsageError(
                f"{installed} is installed below {where}, and this is {aim.version}: --force goes back to it"
            )
        _object(
            objections(
                aim,
                seen,
                foreign_units=foreign_units(aim, seen, root),
                shipped=shipped_units(aim, root),
                force=force,
            )
        )
        plan = plan_install(aim, seen)
        foreign.check(plan.steps)
        ground.check_disks(plan.steps, where, root, sources, writing=not dry_run)
        if not dry_run:
            _carry_out(plan.steps, Site(root, where, sources), seen.record, aim, tell)
        using = users_of(root, where, seen.record.laid if seen.record else ())
        return Outcome(
            prefix=where,
            root=str(root),
            before=seen.record.version if seen.record else "",
            version=aim.version,
            dry_run=dry_run,
            steps=tuple(plan.steps),
            kept=tuple(plan.kept),
            running=tuple(pid for version, pids in using.items() if version != aim.version for pid in sorted(pids)),
            users=tuple(sorted(seen.users & set(aim.accounts.users) - set(seen.record.users if seen.record else ()))),
        )


def lay(tree: Tree, where: str, tell: Tell | None = None) -> Path:
    """Lay only the tree below ``where``, as whoever this process is, and return its program.

    What is there already, and whole, is used. Raises as ``install``.
    """
    where = str(Path(where).absolute()).rstrip("/")
    aim, sources = goal.tree_only(tree, where)
    with only_one(HERE, where, wait=True):
        seen = observe(HERE, where, aim)
        _object(objections(aim, seen, foreign_units={}, shipped=(), force=False))
        plan = plan_install(aim, seen)
        ground.check_disks(plan.steps, where, HERE, sources, writing=True)
        _carry_out(plan.steps, Site(HERE, where, sources), seen.record, aim, tell)
    return Path(aim.place) / PROGRAM


def uninstall(
    where: str, root: Path = HERE, *, purge: bool = False, dry_run: bool = False, tell: Tell | None = None
) -> Outcome:
    """Take back what was laid below ``where``; with ``purge`` what was changed since, and all data, too.

    Raises as ``install``.
    """
    _check_image(root)
    where = _real(where, root)
    with _alone(root, where, dry_run):
        record = read(root, where)
        if record and (record.users or any(not within(entry.path, where) for entry in record.laid)):
            _check_user(dry_run, "units and accounts are taken back")
        seen = observe(root, where, None)
        # Without a record there is nothing, or what an interruption of the last step left.
        plan = plan_uninstall(seen.record, seen, purge=purge) if seen.record else Plan(retreat(None, seen), [])
        foreign.check(plan.steps)
        for step in plan.steps:
            if isinstance(step, RemoveTree) and Path(f"{root}/{step.path}").is_mount():
                raise RuntimeFailure(f"{step.path}: is a mount point, and cannot be removed: unmount it first")
        if not dry_run:
            ground.check_removable(plan.steps, where, root)
            _take_back(plan.steps, Site(root, where), seen.record, tell)
        return Outcome(
            prefix=where,
            root=str(root),
            before=seen.record.version if seen.record else "",
            version="",
            dry_run=dry_run,
            steps=tuple(plan.steps),
            kept=tuple(plan.kept),
        )


def _real(where: str, root: Path) -> str:
    """The prefix without links: so the installed program finds its own, and the sandbox is told of the real place."""
    return prefix.checked(canonical(root, prefix.checked(where)))


def _check_image(root: Path) -> None:
    if not root.is_dir():
        raise UsageError(f"--root {root}: is no directory")


def _check_user(dry_run: bool, why: str) -> None:
    if os.geteuid() != 0 and not dry_run:
        raise RuntimeFailure(f"{why}: run it as root, or see with --dry-run what it would do")


@contextmanager
def _alone(root: Path, where: str, dry_run: bool, *, wait: bool = False) -> Iterator[None]:
    """Whoever only looks need not wait."""
    if dry_run:
        yield
    else:
        with only_one(root, where, wait=wait):
            yield


def _object(found: list[str]) -> None:
    if found:
        raise Refused(found)


def _carry_out(steps: Iterable[Step], site: Site, before: Record | None, aim: goal.Goal, tell: Tell | None) -> None:
    """Do the steps; when one fails, take back what was done by then."""
    try:
        _do(steps, site, tell)
    except AgentError as error:
        try:
            _go_back(before, site, aim)
        except AgentError as second:
            ending = f"taking it back failed too ({second}); the next run goes on from there"
        else:
            ending = "everything is as it was before"
        kind = StorageFailure if isinstance(error, StorageFailure) else RuntimeFailure
        raise kind(f"{error}; {ending}") from error


def _go_back(before: Record | None, site: Site, aim: goal.Goal) -> None:
    _do(retreat(before, observe(site.root, site.prefix, aim)), site, None)
    if before is None or not before.version or not aim.whole:
        return
    with directory(site.root, f"{library(site.prefix)}/{before.version}") as place:
        old, sources = goal.whole(laid(Path(f"/proc/self/fd/{place}")), site.prefix)
        steps = plan_install(old, observe(site.root, site.prefix, old)).steps
        _do(steps, Site(site.root, site.prefix, sources), None)


def _check_left(users: Iterable[str]) -> None:
    """Raise ``RuntimeFailure`` while something runs as a user who is about to be deleted, and so could not be."""
    for user in users:
        if pids := sorted(processes_of(user)):
            raise RuntimeFailure(
                f"still running as user {user}, who is to be deleted: {_processes(pids)}; end it first, then try again"
            )


def _processes(pids: list[int]) -> str:
    return f"process {', '.join(map(str, pids[:5]))}" + (", …" if len(pids) > 5 else "")


def _take_back(steps: list[Step], site: Site, record: Record | None, tell: Tell | None) -> None:
    """Stop what systemd runs, see that nothing else runs, and only then remove anything."""
    stops = next((number for number, step in enumerate(steps, 1) if isinstance(step, Stop)), 0)
    _do(steps[:stops], site, tell)
    _check_unused(site, record)
    if site.root == HERE:
        _check_left(user for step in steps if isinstance(step, DeleteUsers) for user in step.users)
    _do(steps[stops:], site, tell)


def _do(steps: Iterable[Step], site: Site, tell: Tell | None) -> None:
    for step in perform(steps, site):
        if tell is not None:
            tell(step)


def _check_unused(site: Site, record: Record | None) -> None:
    """Raise ``RuntimeFailure`` while somebody executes the program, or an agent runs on this prefix."""
    using = users_of(site.root, site.prefix, record.laid if record else ())
    if pids := sorted(pid for those in using.values() for pid in those):
        raise RuntimeFailure(
            f"still running from below {site.prefix}: {_processes(pids)}; end it first, then try again"
        )
    lies = Paths.of(site.prefix).agent_lock
    with suppress(FileNotFoundError, NotADirectoryError), directory(site.root, str(lies.parent), trust=True) as run:
        lock = PrefixLock(Path(f"/proc/self/fd/{run}/{lies.name}"))
        if not lock.path.is_file():
            return
        try:
            lock.acquire()
        except AlreadyRunning as error:
            running = AlreadyRunning(site.prefix, error.pid)
            raise RuntimeFailure(f"{running}: stop it first, then try again") from error
        except StorageFailure:
            return
        lock.release()
