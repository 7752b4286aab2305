"""What a child finds in its environment: an allow-list, never what this process happened to inherit."""

from __future__ import annotations

import os
import site
import sys
from collections.abc import Mapping
from pathlib import Path

import agent

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_PASSED = frozenset({"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TERM"})
_LIBRARY_PATH = "LD_LIBRARY_PATH"
_LIBRARY_PATH_BEFORE = "LD_LIBRARY_PATH_ORIG"  # where PyInstaller's bootloader keeps what it replaced
_BUNDLE = ("_PYI_", _LIBRARY_PATH)  # how the names of all that a bundle keeps in its environment begin


def frozen() -> bool:
    """Whether this program runs as a PyInstaller bundle."""
    return bool(getattr(sys, "frozen", False))


def one_file() -> bool:
    """Whether this is the one file that a person downloads, which runs unpacked in a temporary directory.

    The installed form has its libraries beside the executable.
    """
    unpacked = str(getattr(sys, "_MEIPASS", ""))
    return frozen() and Path(unpacked).parent != Path(sys.executable).parent


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
    """The command that starts this program again; its arguments follow.

    A bundle names the file that is running, with symbolic links resolved (its bootloader reads /proc/self/exe): an
    agent starts workers of its own version, wherever ``current`` points by then.
    """
    return [sys.executable] if frozen() else [sys.executable, "-P", "-m", "agent"]


def own_environment() -> dict[str, str]:
    """What ``own_program`` needs besides ``base_environment``, and foreign programs must not get.

    A frozen build hands its bundle on: library path and bootloader variables, or the worker would load the host's
    libraries. From a source tree it is PYTHONPATH, unless the package is installed.
    """
    if frozen():
        return {name: value for name, value in os.environ.items() if name.startswith(_BUNDLE)}
    root = str(Path(agent.__file__).parent.parent)
    inherited = os.environ.get("PYTHONPATH")
    if root not in site.getsitepackages():
        return {"PYTHONPATH": f"{root}:{inherited}" if inherited else root}
    return {"PYTHONPATH": inherited} if inherited else {}


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
