"""What a child finds in its environment: an allow-list, never what this process happened to inherit."""

from __future__ import annotations

import os
import site
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import agent

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_HERE = Path(agent.__file__).resolve().parent.parent
"""Where this very version lies, as found when it began: a link on the way there may point elsewhere by now."""

_PASSED = frozenset({"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TERM"})
_LIBRARY_PATH = "LD_LIBRARY_PATH"
_LIBRARY_PATH_BEFORE = "LD_LIBRARY_PATH_ORIG"  # where PyInstaller's bootloader keeps what it replaced


def frozen() -> bool:
    """Whether this program runs as a PyInstaller bundle."""
    return bool(getattr(sys, "frozen", False))


def base_environment(source: Mapping[str, str]) -> dict[str, str]:
    """The part of ``source`` that any child may see: PATH (a default one if missing), user, locale, zone, terminal.

    Nothing else passes: not the notify socket, watchdog and listening sockets that systemd gave to us, not the dynamic
    linker's variables. In a frozen build the bundle's own library path would make foreign programs load the bundle's
    libraries; the one from before the bundle is put back if there was one.
    """
    chosen = {name: value for name, value in source.items() if name in _PASSED or name.startswith("LC_")}
    chosen.setdefault("PATH", DEFAULT_PATH)
    if frozen() and (before := source.get(_LIBRARY_PATH_BEFORE)):
        chosen[_LIBRARY_PATH] = before
    return chosen


def own_program() -> list[str]:
    """The command that starts this program again, in this version; its arguments follow."""
    return [os.path.realpath(sys.executable)] if frozen() else [sys.executable, "-P", "-m", "agent"]


class Program(NamedTuple):
    """A version of this program: how to start it, by a path without links, and the variables that only it needs."""

    argv: list[str]
    variables: dict[str, str]


def installed_program() -> Program:
    """What a new start would execute now: this version, or the one that has been installed in its place.

    An installed form lies in ``lib/agent/VERSION`` with the link ``current`` beside it; a source tree may be reached by
    a link of any name.
    """
    if frozen():
        own = Path(os.path.realpath(sys.executable))
        current = own.parent.parent / "current" / own.name
        return Program([str(current.resolve() if current.exists() else own)], {})
    return Program(own_program(), _source_variables(Path(agent.__file__).parent.parent.resolve()))


def running_program() -> Program:
    """This version: ``installed_program`` as long as nothing else has been installed."""
    return Program(own_program(), {} if frozen() else _source_variables(_HERE))


def fresh_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """``environ`` for another version of this program to begin in: without what a frozen build has put there."""
    kept = {name: value for name, value in environ.items() if not name.startswith("_PYI_") and name != _LIBRARY_PATH}
    before = kept.pop(_LIBRARY_PATH_BEFORE, None)
    if not frozen() and _LIBRARY_PATH in environ:
        before = environ[_LIBRARY_PATH]
    return kept if before is None else {**kept, _LIBRARY_PATH: before}


def own_environment() -> dict[str, str]:
    """What ``own_program`` needs besides ``base_environment``, and foreign programs must not get.

    A frozen build hands its bundle on: library path and bootloader variables, or the worker would load the host's
    libraries. From a source tree it is PYTHONPATH, unless the package is installed.
    """
    if frozen():
        names = [name for name in os.environ if name.startswith(("_PYI_", _LIBRARY_PATH))]
        return {name: os.environ[name] for name in names}
    return _source_variables(_HERE)


def _source_variables(root: Path) -> dict[str, str]:
    inherited = os.environ.get("PYTHONPATH")
    if root not in map(Path, site.getsitepackages()):
        return {"PYTHONPATH": f"{root}:{inherited}" if inherited else str(root)}
    return {"PYTHONPATH": inherited} if inherited else {}
