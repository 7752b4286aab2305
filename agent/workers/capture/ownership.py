"""Whose a store is: one that its capture and the processes beside it cannot write to would fill up, and stay full.

The process that makes the indexes holds no capability, and members of a fan-out none over files; root has, without
them, the rights of any user. A store that another user's capture left behind they cannot write to. What has no index
never goes, so packets would come in until the budget is used up, and none from then on.

Ownership alone tells nothing: permissions of a group may do, and a file server may take root for somebody else. So what
is another's is tried.
"""

from __future__ import annotations

import os
import shlex
from contextlib import ExitStack, suppress
from pathlib import Path

from agent.errors import ConfigurationError
from agent.linux.capabilities import ON_FILES, NotGranted, refraining
from agent.linux.files import open_regular
from agent.linux.users import named
from agent.workers.capture.catalogue import INDEX
from agent.workers.capture.naming import CLOSED, OPEN, parse_name, valid_interface


def check(directory: Path) -> None:
    """Refuse a store that is somebody else's. Call it before anything in there is touched.

    Raises ``ConfigurationError``, in one line that says what helps, when the directory, that of an interface in it, or
    a segment that is to be indexed is not ours, and of no use to us without capabilities.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(refraining(ON_FILES))
        except NotGranted:  # as in the shipped unit; then those beside us keep what they hold, too
            return
        with suppress(OSError):
            found = _unusable(directory)
            if found is None:
                return
            path, uid, what = found
            raise ConfigurationError(
                f"{path}: is user {named(uid)}'s, and user {named(os.geteuid())} cannot {what}"
                f"{' without capabilities, as the process that indexes does' if os.geteuid() == 0 else ''}: give the "
                f"store to that user (chown -R {os.geteuid()}: {shlex.quote(str(directory))}), or declare its user"
            )


def _unusable(directory: Path) -> tuple[Path, int, str] | None:
    """What is of no use, whose it is, and what cannot be done there. Raises ``OSError``."""
    if (uid := _forbidden(directory)) is not None:
        return directory, uid, "write there"
    for name in filter(valid_interface, os.listdir(directory)):  # noqa: PTH208  # names, and nothing else
        place = directory / name
        if place.is_symlink() or not place.is_dir():
            continue
        if (uid := _forbidden(place)) is not None:
            return place, uid, "write there"
        with suppress(OSError):
            for path in _unindexed(place):
                if (uid := _hidden(path)) is not None:
                    return path, uid, "read it"
    return None


def _unindexed(place: Path) -> list[Path]:
    names = set(os.listdir(place))  # noqa: PTH208  # names, and nothing else
    return [
        place / name
        for name in names
        if name.endswith((CLOSED, OPEN))
        and parse_name(name) is not None
        and Path(name).with_suffix(INDEX).name not in names
    ]


def _forbidden(place: Path) -> int | None:
    """Whose a directory is in which we may not make a file; ``None`` when it is ours, or we may."""
    from tempfile import TemporaryFile

    with suppress(OSError):
        uid = place.stat().st_uid
        if uid != os.geteuid():
            try:
                TemporaryFile(dir=place).close()  # without a name, where the file system has such
            except PermissionError:
                return uid
    return None


def _hidden(path: Path) -> int | None:
    """Whose a file is that we may not read; ``None`` when it is ours, or we may, or it is none."""
    with suppress(OSError):
        uid = path.lstat().st_uid
        if uid != os.geteuid():
            try:
                os.close(open_regular(path, os.O_RDONLY))
            except PermissionError:
                return uid
    return None
