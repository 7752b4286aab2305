"""Root, and the user to whom a prefix belongs.

An installed agent has a user of its own. Root may do everything there, and so finds nothing out by trying it, and
leaves behind what is of no use to the agent: a database that it cannot write to, a lock that it cannot take. So below
such a prefix root looks with the eyes of that user, and runs as that user.
"""

from __future__ import annotations

import builtins
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

from agent.linux import libc
from agent.linux.capabilities import keeping_through_setuid, off_files, permitted
from agent.linux.capability_sets import mask
from agent.linux.users import Credentials, resolve_user

_NEEDED = mask(["CAP_SETUID", "CAP_SETGID"])


def owner(*directories: Path) -> Credentials | None:
    """Whose the first of ``directories`` is that is there, if we are root and it is somebody else's; else ``None``."""
    if os.geteuid() != 0 or permitted() & _NEEDED != _NEEDED:
        return None
    for directory in directories:
        with suppress(OSError):
            uid = directory.stat().st_uid
            return resolve_user(str(uid), None) if uid else None
    return None


def stranger(*directories: Path) -> bool:
    """Whether we are neither root nor whose the first of ``directories`` is that is there.

    Such a person has nothing to mend anything with: the advice that helps is to turn to root.
    """
    if os.geteuid() == 0:
        return False
    for directory in directories:
        try:
            return directory.stat().st_uid != os.geteuid()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:  # not even to be looked at
            return True
    return False


@contextmanager
def seen_by(user: Credentials | None) -> Iterator[None]:
    """While the block runs, root reaches files as this user does, and as no root. Nothing changes for ``None``, nor
    within another such block for the same user.
    """
    if user is None or os.geteuid() == user.uid:
        yield
        return
    uid, gid, groups = os.geteuid(), os.getegid(), os.getgroups()
    try:
        os.setgroups(user.groups)
        os.setegid(user.gid)
        os.seteuid(user.uid)
        with _program_of(uid):
            yield
    finally:
        os.seteuid(uid)
        os.setegid(gid)
        os.setgroups(groups)


@contextmanager
def _program_of(uid: int) -> Iterator[None]:
    """While the block runs, modules are imported as ``uid``: the program may lie where nobody else can read it, such as
    the one file in root's home, which unpacks itself for root alone.
    """
    ours = builtins.__import__

    def bring(
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        known = sys.modules.get(name) if not level else None
        if known is not None and all(hasattr(known, wanted) for wanted in fromlist or ()):
            return ours(name, globals, locals, fromlist or (), level)
        eyes = os.geteuid()
        os.seteuid(uid)
        try:
            return ours(name, globals, locals, fromlist or (), level)
        finally:
            os.seteuid(eyes)

    builtins.__import__ = bring
    try:
        yield
    finally:
        builtins.__import__ = ours


def step_down(user: Credentials) -> None:
    """Root becomes this user.

    What root may do this process still may, where it says so (``capabilities.acting``), as an agent whose unit lets
    it: to run services as other users, say. But over files it has the rights of that user, or whoever may write there
    would put links in its way and have root follow them. Its children may nothing of it by themselves
    (``capabilities.withhold``).
    """
    told = libc.parent_death_signal()
    with keeping_through_setuid():
        os.setgroups(user.groups)
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
        _, held, inheritable = libc.capget()
        libc.capset(off_files(held), held, inheritable)
    if told:  # who changes its user is not told any more
        libc.prctl(libc.PR_SET_PDEATHSIG, told)
    os.environ.update(user.environment)
