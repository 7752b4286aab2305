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
_LIBRARIES = "lib"  # as build.spec has it
_BUNDLE = ("_PYI_", _LIBRARY_PATH)  # how the names of all that a bundle keeps in its environment begin


def frozen() -> bool:
    """Whether this program runs as a PyInstaller bundle."""
    return bool(getattr(sys, "frozen", False))


def one_file() -> bool:
    """Whether this is the one file that a person downloads, which runs unpacked in a temporary directory.

    The installed form has its libraries in ``lib`` beside the executable.
    """
    return frozen() and Path(getattr(sys, "_MEIPASS", "")) != Path(sys.executable).parent / _LIBRARIES


def base_environment(source: Mapping[str, str]) -> dict[str, str]:
    """The part of ``source`` that any child may see: PATH (a default one if missing), user, locale, zone, terminal.

    Nothing else passes: not the notify socket, watchdog and listening sockets that systemd gave to us, and not the
    dynamic linker's variables, with which foreign programs would load a bundle's libraries. A service that needs a
    library path declares it.
    """
    chosen = {name: value for name, value in source.items() if name in _PASSED or name.startswith("LC_")}
    chosen.setdefault("PATH", DEFAULT_PATH)
    return chosen


def own_program() -> list[str]:
    """The command that starts this program again, in this version; its arguments follow.

    A bundle names the file that is running, with symbolic links resolved (its bootloader reads /proc/self/exe): an
    agent starts workers of its own version, wherever ``current`` points by then.
    """
    return [sys.executable] if frozen() else [sys.executable, "-P", "-m", "agent"]


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
        own = Path(sys.executable)
        current = own.parent.parent / "current" / own.name
        return Program([str(current.resolve() if current.exists() else own)], {})
    return Program(own_program(), _source_variables(Path(agent.__file__).parent.parent.resolve()))


def running_program() -> Program:
    """This version: ``installed_program`` as long as nothing else has been installed."""
    return Program(own_program(), {} if frozen() else _source_variables(_HERE))


def own_environment() -> dict[str, str]:
    """What ``own_program`` needs besides ``base_environment``, and foreign programs must not get.

    A frozen build hands its bundle on: library path and bootloader variables, or the worker would load the host's
    libraries. From a source tree it is PYTHONPATH, unless the package is installed.
    """
    if frozen():
        return {name: value for name, value in os.environ.items() if name.startswith(_BUNDLE)}
    return _source_variables(_HERE)


def _source_variables(root: Path) -> dict[str, str]:
    # Without the version that runs: in a row of versions each would be named.
    named = [place for place in os.environ.get("PYTHONPATH", "").split(":") if place not in ("", str(root), str(_HERE))]
    if root not in map(Path, site.getsitepackages()):
        named.insert(0, str(root))
    return {"PYTHONPATH": ":".join(named)} if named else {}


def fresh_environment(source: Mapping[str, str]) -> dict[str, str]:
    """``source`` as it was before this bundle: for an execve(2) of another version of this program, which has its own.

    With our bootloader's variables it would take our libraries for its own.
    """
    if not frozen():
        return dict(source)
    fresh = {name: value for name, value in source.items() if not name.startswith(_BUNDLE)}
    if before := source.get(_LIBRARY_PATH_BEFORE):
        fresh[_LIBRARY_PATH] = before
    return fresh
