"""The files of ``systemd/``: where each goes, with the prefix and the program's place put in. Pure.

They are written for the prefix ``/srv``. Another one is put in for whole words only: ``/srv/key`` and ``-/srv`` become
others, ``/srv2`` and ``/data/srv`` do not. A prefix is of letters that mean nothing to systemd in any place
(``prefix.py``), so nothing has to be quoted.

Formats: systemd.unit(5), sysusers.d(5), tmpfiles.d(5).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from agent.errors import RuntimeFailure
from agent.installation.record import DATA, library
from agent.linux.systemd import UNITS as UNITS  # with those below, for whoever lays files
from agent.paths import DEFAULT_PREFIX

SYSUSERS = "/etc/sysusers.d"
TMPFILES = "/etc/tmpfiles.d"
CATALOG = "/usr/local/lib/systemd/catalog"
"""Where journald looks for explanations of messages that are not the distribution's: journalctl(1)."""

SHIPPED_UNITS = ("/usr/lib/systemd/system", "/lib/systemd/system")
"""Where a package has its units."""

EXAMPLES = "share/doc/agent/examples"
"""Below the prefix: drop-ins that nobody uses before an operator puts them in place."""

KINDS = (".service", ".socket", ".timer", ".slice", ".target", ".path", ".mount", ".automount")

_WORD = r"(?<![\w.}}~/]){path}(?![\w-]|\.\w)"


class Unit(NamedTuple):
    """One file, as it is to be laid."""

    path: str
    text: str


class Claim(NamedTuple):
    """A directory that tmpfiles.d wants to be there. ``mode`` is 0 where it is not said."""

    path: str
    mode: int
    user: str
    group: str


class Accounts(NamedTuple):
    """Names that sysusers.d wants to exist."""

    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


def units(directory: Path, prefix: str) -> list[Unit]:
    """Every file of ``directory``, as it goes to a system with that prefix. Raises ``RuntimeFailure``."""
    try:
        files = [(file.name, file.read_text(encoding="utf-8")) for file in sorted(directory.iterdir())]
    except (OSError, UnicodeDecodeError) as error:
        raise RuntimeFailure(f"{directory}: the units that belong to agentctl cannot be read: {error}") from error
    return [Unit(destination(name, prefix), placed(text, prefix)) for name, text in files]


def destination(name: str, prefix: str) -> str:
    """Where a file of ``systemd/`` goes. What is none of what systemd reads by itself is an example."""
    for ending, where in ((".sysusers.conf", SYSUSERS), (".tmpfiles.conf", TMPFILES)):
        if name.endswith(ending):
            return f"{where}/{name.removesuffix(ending)}.conf"
    if name.endswith(KINDS):
        return f"{UNITS}/{name}"
    if name.endswith(".catalog"):
        return f"{CATALOG}/{name}"
    return f"{prefix}/{EXAMPLES}/{name}"


def placed(text: str, prefix: str, program: str | None = None) -> str:
    """``text`` with its words below ``/srv`` put below ``prefix``, those of the program itself below ``program``.

    ``program`` is what holds ``current``, ``PREFIX/lib/agent`` when left out.
    """
    moved = {library(DEFAULT_PREFIX): program or library(prefix), DEFAULT_PREFIX: prefix}
    pattern = "|".join(f"({_WORD.format(path=re.escape(path))})" for path in moved)
    return re.sub(pattern, lambda found: moved[found[0]], text)


def claims(text: str) -> list[Claim]:
    """The directories that a text of tmpfiles.d makes. Lines with specifiers are left to systemd alone."""
    found = []
    for kind, path, *rest in _lines(text):
        if kind[0] in "dDqQv" and "%" not in path:
            mode, user, group = [*(word.lstrip("~:") for word in rest[:3]), "", "", ""][:3]
            bits = int(mode, 8) if re.fullmatch(r"[0-7]{3,4}", mode) else 0
            found.append(Claim(path, bits, "" if user == "-" else user, "" if group == "-" else group))
    return found


def accounts(text: str) -> Accounts:
    """The users and groups that a text of sysusers.d makes. A user has a group of the same name."""
    users, groups = [], []
    for kind, name, *_ in _lines(text):
        if kind[0] == "u":
            users.append(name)
        if kind[0] in "ug":
            groups.append(name)
    return Accounts(tuple(users), tuple(groups))


def _lines(text: str) -> list[list[str]]:
    """The words of each line that has at least two and is no comment."""
    return [words for line in text.splitlines() if len(words := line.split()) > 1 and not line.lstrip().startswith("#")]


def data(prefix: str) -> tuple[str, ...]:
    """The directories of the contract below ``prefix``."""
    return tuple(f"{prefix}/{name}" for name in DATA)
