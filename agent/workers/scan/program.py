"""The host's nmap: where it is, what it may do here, and which of its scripts may be run.

nmap is a package of the host, neither part of this program nor ever downloaded. Its scripts are programs in Lua that
run with the rights of the scan, so only those of the package are run, by name, and none that tries passwords, harms,
or tells third parties of a target.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.errors import ScanFailure
from agent.linux.capability_sets import NET_RAW
from agent.linux.spawn import base_environment
from agent.linux.sweep import MARK
from agent.workers.scan.argv import nmap_environment, privileges

REFUSED: Final = frozenset({"brute", "dos", "exploit", "external", "fuzzer", "intrusive", "malware"})
"""Categories of nmap's scripts of which none is run, whatever is declared."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
_ENTRY = re.compile(r'Entry \{ filename = "([^"]{1,80})\.nse", categories = \{([^}]{0,400})\} \}', re.ASCII)
_CATEGORY = re.compile(r'"([a-z]{1,20})"', re.ASCII)
_LARGEST = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ScriptFile:
    """One of nmap's scripts as it was on this host when it was chosen. ``sha256`` is in hexadecimal."""

    name: str
    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Program:
    """How nmap is started here. ``unprivileged`` says why it may not send raw packets; empty when it may.

    ``data`` is the directory of its scripts and tables, ``capabilities`` what it is given (as in ``SpawnRequest``).
    """

    path: str
    environment: Mapping[str, str]
    unprivileged: str
    data: Path | None
    capabilities: tuple[str, ...] | None

    @property
    def privileged(self) -> bool:
        return not self.unprivileged


def find_nmap(environment: Mapping[str, str] = os.environ) -> Program:
    """The nmap on the PATH of ``environment``. Raises ``ScanFailure`` when there is none."""
    base = base_environment(environment)
    found = shutil.which("nmap", path=base["PATH"])
    if found is None:
        raise ScanFailure("nmap is not installed: apt-get install nmap")
    path = Path(found).absolute()
    privileged, why_not = privileges(Path("/proc/self/status").read_text("ascii", "replace"))
    data = next((place for place in _places(path) if place.is_dir()), None)
    variables = nmap_environment(base, privileged=privileged, data_directory=str(data) if data else None)
    if mark := environment.get(MARK):  # an nmap that outlives us is recognised by it
        variables[MARK] = mark
    # As root nmap has it without that.
    handed_on = (NET_RAW,) if privileged and os.geteuid() != 0 else None
    return Program(str(path), variables, why_not, data, handed_on)


def _places(program: Path) -> tuple[Path, ...]:
    """Where nmap's files may be: beside the program as it was found, and as it really is."""
    return (program.parent.parent / "share" / "nmap", program.resolve().parent.parent / "share" / "nmap")


def choose_scripts(names: Sequence[str], data: Path | None) -> tuple[ScriptFile, ...]:
    """The files of the scripts ``names``, in ascending order.

    Raises ``ScanFailure`` for a name that is none of a script of this host's nmap, and for one that must not be run:
    it is in a category of ``REFUSED``, not in ``safe``, or its file could have been changed by somebody else.
    """
    if not names:
        return ()
    if data is None:
        raise ScanFailure("scripts: nmap's directory of scripts was not found beside it (share/nmap)")
    directory = data / "scripts"
    known = _categories(directory / "script.db")
    return tuple(_chosen(name, directory, known) for name in sorted(set(names)))


def _chosen(name: str, directory: Path, known: Mapping[str, frozenset[str]]) -> ScriptFile:
    if not _NAME.fullmatch(name) or name not in known:
        raise ScanFailure(f"scripts: {name[:64]!r} is no script of nmap's in {directory}")
    bad = sorted(known[name] & REFUSED)
    if bad or "safe" not in known[name]:
        why = f"is {' and '.join(bad)}" if bad else "is not safe"
        raise ScanFailure(f"scripts: {name} is not run: nmap says that it {why}")
    path = directory / f"{name}.nse"
    return ScriptFile(name, str(path), hashlib.sha256(_owned(path)).hexdigest())


def _categories(database: Path) -> dict[str, frozenset[str]]:
    """The categories of each script, by nmap's own list of them."""
    text = _owned(database).decode("utf-8", "replace")
    return {match[1]: frozenset(_CATEGORY.findall(match[2])) for match in _ENTRY.finditer(text)}


def _owned(path: Path) -> bytes:
    """The content of a regular file that only root, or who runs this, can have written."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST:
                raise ScanFailure(f"scripts: {path} is not a file of nmap's")
            if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
                raise ScanFailure(f"scripts: {path} is not run: others than root can write to it")
            return file.read(_LARGEST)
    except OSError as error:
        raise ScanFailure(f"scripts: {path} cannot be read: {error.strerror}") from error
