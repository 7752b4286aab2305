"""Users and groups by name, as a child is to become them."""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass
from functools import lru_cache

from agent.errors import SpawnFailed


@dataclass(frozen=True, slots=True)
class Credentials:
    """Whom a child runs as. ``groups`` are all its supplementary groups, the primary one included."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    name: str
    shell: str

    @property
    def environment(self) -> dict[str, str]:
        """The variables that login(1) derives from the user."""
        return {"HOME": self.home, "USER": self.name, "LOGNAME": self.name, "SHELL": self.shell}

    @property
    def current(self) -> bool:
        """Whether this process already has exactly these ids, so that nothing needs to be changed."""
        return (self.uid, self.gid) == (os.geteuid(), os.getegid()) and set(self.groups) == {*os.getgroups(), self.gid}


def resolve_user(user: str | None, group: str | None) -> Credentials:
    """Look up ``user`` (default: who we are) and ``group`` (default: the user's own), each a name or a number.

    Raises ``SpawnFailed``, permanent, for one that does not exist. A numeric uid need not be in the user database.
    """
    entry = _user(user)
    gid = _group(group) if group is not None else entry.pw_gid
    groups = os.getgrouplist(entry.pw_name, gid) if user is not None else [gid]
    return Credentials(entry.pw_uid, gid, tuple(sorted(set(groups))), entry.pw_dir, entry.pw_name, entry.pw_shell)


@lru_cache(maxsize=256)
def named(uid: int) -> str:
    """A user for a message: ``joe (1000)``, or the number alone where it has no name.

    Looked up once: a directory service may be slow, and the agent names whomever it refuses.
    """
    try:
        return f"{pwd.getpwuid(uid).pw_name} ({uid})"
    except KeyError:
        return str(uid)


def group_name(gid: int) -> str:
    """What a group is called; its number when it is in no database."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _number(text: str) -> int | None:
    """The id that ``text`` spells; ``None`` when it is a name. The highest one means "no change" to chown(2)."""
    if text.isascii() and text.isdigit() and len(text) <= 10 and int(text) < 2**32 - 1:
        return int(text)
    return None


def _user(user: str | None) -> pwd.struct_passwd:
    uid = os.geteuid() if user is None else _number(user)
    try:
        return pwd.getpwnam(user or "") if uid is None else pwd.getpwuid(uid)
    except (KeyError, ValueError):
        if uid is None:
            raise SpawnFailed(f"no such user: {user}; create it or change `user`", permanent=True) from None
    gid = os.getegid() if user is None else uid
    return pwd.struct_passwd((str(uid), "x", uid, gid, "", "/", "/bin/sh"))


def _group(group: str) -> int:
    if (gid := _number(group)) is not None:
        return gid
    try:
        return grp.getgrnam(group).gr_gid
    except (KeyError, ValueError):
        raise SpawnFailed(f"no such group: {group}; create it or change `group`", permanent=True) from None
