"""Directories below another root, reached step by step, so that nobody can lead us elsewhere.

Whoever installs as root writes into directories by their paths, and into the image of another system with ``--root``.
A symbolic link on such a path may have been planted, and an honest one in an image means the image's own ``/etc``, not
ours. So each step is taken from the directory before it, links are resolved here, with ``/`` standing for the root that
is worked in, and whatever belongs to somebody who could exchange it under our hands is refused.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agent.errors import RuntimeFailure
from agent.linux.users import named

_STEP = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_END = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_IN = _END | os.O_NOFOLLOW
_LINKS = 40  # as path_resolution(7) has it


@contextmanager
def directory(root: Path, path: str, *, trust: bool = False) -> Iterator[int]:
    """A descriptor of the directory that an absolute ``path`` means to a system whose root is ``root``.

    Raises ``FileNotFoundError`` and ``NotADirectoryError``, and ``RuntimeFailure`` for what an other user could
    exchange: a directory or link that belongs neither to root nor to us, or a directory that everybody may write to.
    With ``trust`` that is no objection, and the directory need not be readable: to look at what is there, by a
    descriptor that is good for nothing else. ``root`` itself is taken as it is.
    """
    held = [os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)]
    try:
        _descend(held, path, trust=trust)
        end = os.dup(held[-1]) if trust else os.open(".", _END, dir_fd=held[-1])
    finally:
        for descriptor in held:
            os.close(descriptor)
    try:
        yield end
    finally:
        os.close(end)


def _descend(held: list[int], path: str, *, trust: bool) -> None:
    """Open what ``path`` leads through, on top of the root in ``held``."""
    steps = deque(path.split("/"))
    links = 0
    while steps:
        step = steps.popleft()
        if step in ("", "."):
            continue
        if step == "..":
            if len(held) > 1:
                os.close(held.pop())
            continue
        found = os.open(step, _STEP, dir_fd=held[-1])
        held.append(found)
        status = os.fstat(found)
        if not trust:
            _examine(status, step, path)
        if stat.S_ISLNK(status.st_mode):
            links += 1
            if links > _LINKS:
                raise RuntimeFailure(f"{path}: too many symbolic links on the way")
            target = os.readlink("", dir_fd=found)
            os.close(held.pop())
            if target.startswith("/"):
                while len(held) > 1:
                    os.close(held.pop())
            steps.extendleft(reversed(target.split("/")))
        elif not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)


def _examine(status: os.stat_result, step: str, path: str) -> None:
    if status.st_uid not in (0, os.geteuid()):
        raise RuntimeFailure(
            f"{path}: {step!r} on the way belongs to user {named(status.st_uid)}, who could exchange what is put "
            "there: give it to root, or choose another place"
        )
    if stat.S_ISDIR(status.st_mode) and status.st_mode & (stat.S_IWOTH | stat.S_ISVTX) == stat.S_IWOTH:
        raise RuntimeFailure(
            f"{path}: everybody may write to {step!r} on the way, and exchange what is put there: "
            "chmod o-w it, or choose another place"
        )


def stands(root: Path, path: str) -> bool:
    """Whether something stands at ``path``, be it a link to nowhere. Raises ``RuntimeFailure``."""
    above, _, name = path.rpartition("/")
    try:
        with directory(root, above) as found:
            os.stat(name, dir_fd=found, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise RuntimeFailure(f"{path}: cannot be looked for: {error.strerror}") from error
    return True


def canonical(root: Path, path: str) -> str:
    """An absolute path with every link on the way resolved, as a system whose root is ``root`` has it.

    What does not exist stays as it is. It is only a name: nobody has looked whose the links are. Raises
    ``RuntimeFailure``.
    """
    steps, links = deque(path.split("/")), 0
    found: list[str] = []
    while steps:
        step = steps.popleft()
        if step in ("", "."):
            continue
        if step == "..":
            del found[-1:]
            continue
        try:
            target = str(root.joinpath(*found, step).readlink())
        except OSError:  # no link, or nothing
            found.append(step)
            continue
        links += 1
        if links > _LINKS:
            raise RuntimeFailure(f"{path}: too many symbolic links on the way")
        if target.startswith("/"):
            found.clear()
        steps.extendleft(reversed(target.split("/")))
    return "/" + "/".join(found)


@contextmanager
def nearest(root: Path, path: str) -> Iterator[tuple[int, str]]:
    """The deepest directory on the way to ``path`` that exists: a descriptor of it, and its path."""
    while path != "/":
        with suppress(FileNotFoundError), directory(root, path) as found:
            yield found, path
            return
        path = path.rpartition("/")[0] or "/"
    with directory(root, "/") as found:
        yield found, "/"


def names(descriptor: int) -> list[str]:
    """What is in an open directory."""
    with os.scandir(descriptor) as found:
        return [entry.name for entry in found]


def remove_tree(above: int, target: str) -> None:
    """Remove ``target`` in the directory ``above``, whatever it is, and all that is in it; nothing there is fine.

    Links are removed, never followed. Nothing is removed from other file systems that are mounted inside. What lies
    deep is moved up first: no depth, however hostile, needs more than three descriptors. Raises ``OSError``.
    """
    try:
        top = os.open(target, _IN, dir_fd=above)
    except FileNotFoundError:
        return
    except OSError:  # ELOOP, ENOTDIR: no directory
        os.unlink(target, dir_fd=above)
        return
    try:
        device = os.fstat(top).st_dev
        while found := names(top):
            for child in found:
                _remove_child(top, child, device)
    finally:
        os.close(top)
    os.rmdir(target, dir_fd=above)


def _remove_child(top: int, child: str, device: int) -> None:
    """Remove a file of ``top``, or a directory of it, whose own directories become directories of ``top``."""
    status = os.stat(child, dir_fd=top, follow_symlinks=False)
    if not stat.S_ISDIR(status.st_mode):
        os.unlink(child, dir_fd=top)
        return
    inner = os.open(child, _IN, dir_fd=top)
    try:
        if os.fstat(inner).st_dev != device:
            raise OSError(errno.EBUSY, f"{child} is a mount point, and not removed: unmount it first")
        for grandchild in names(inner):
            if stat.S_ISDIR(os.stat(grandchild, dir_fd=inner, follow_symlinks=False).st_mode):
                os.rename(grandchild, f".{os.urandom(8).hex()}", src_dir_fd=inner, dst_dir_fd=top)
            else:
                os.unlink(grandchild, dir_fd=inner)
    finally:
        os.close(inner)
    os.rmdir(child, dir_fd=top)
