"""Whose a unit is, by its text. This loads next to nothing: the command line asks whenever nobody answers it."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from agent.linux.systemd import UNITS

_LIMIT = 65536  # bytes of a unit
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
_PROGRAM = re.compile(r"^ExecStart=[-+!@:]*(/\S*)/lib/agent/current/agentctl", re.MULTILINE)


def owner(text: str) -> str | None:
    """The prefix of the installation that a unit belongs to; ``None`` when it is none of ours."""
    found = _PROGRAM.search(text)
    return found[1] if found else None


def elsewhere(root: Path, prefix: str) -> str | None:
    """The prefix of the agent that is installed below ``root``, by its unit, when it is another one than ``prefix``.

    For a message and nothing else: nobody has looked who could have exchanged what is read.
    """
    with suppress(OSError):
        unit = os.open(f"{root}/{UNITS}/agent.service", _READ)
        try:
            found = owner(os.read(unit, _LIMIT).decode("utf-8", "replace"))
        finally:
            os.close(unit)
        if found and found != prefix and Path(f"{root}/{found}/lib/agent/install.json").is_file():  # a package has none
            return found
    return None
