"""Users and groups of the system that is worked on: this one, or the image below another root.

An image is asked by its files: passwd(5), group(5). Its name service is not ours to run.
"""

from __future__ import annotations

import grp
import os
import pwd
from contextlib import suppress
from pathlib import Path

from agent.errors import RuntimeFailure
from agent.linux.rooted import directory

HERE = Path("/")


def uid(root: Path, user: str) -> int | None:
    """The number of a user; ``None`` when there is none."""
    if root == HERE:
        with suppress(KeyError):
            return pwd.getpwnam(user).pw_uid
        return None
    return _number(root, "passwd", user)


def gid(root: Path, group: str) -> int | None:
    """The number of a group; ``None`` when there is none."""
    if root == HERE:
        with suppress(KeyError):
            return grp.getgrnam(group).gr_gid
        return None
    return _number(root, "group", group)


def _number(root: Path, database: str, wanted: str) -> int | None:
    try:
        with directory(root, "/etc") as etc:
            file = os.open(database, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=etc)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RuntimeFailure(f"/etc/{database} below {root}: cannot be read: {error.strerror}") from error
    with os.fdopen(file, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            name, _, number, *_ = [*line.split(":"), "", "", ""]
            if name == wanted and number.strip().isdigit():
                return int(number)
    return None
