"""What is told of the steps of an installation: a line for each thing that matters to a person, a tree as one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from agent.cli.guard import complain
from agent.cli.text import safe
from agent.errors import RuntimeFailure
from agent.installation.entry import Link
from agent.installation.install import Outcome, Refused
from agent.installation.record import library, version_of
from agent.installation.steps import (
    CreateDirectories,
    CreateUsers,
    Declare,
    DeleteUsers,
    IndexCatalog,
    Point,
    Reload,
    Remove,
    RemoveTree,
    Step,
    Stop,
    Write,
)

VERBS = {
    "lay": "laid",
    "link": "linked",
    "make": "made",
    "write": "wrote",
    "replace": "replaced",
    "stop": "stopped",
    "reload": "reloaded",
    "remove": "removed",
    "delete": "deleted",
}
"""What would be done, and what was."""

WIDTH = max(map(len, VERBS.values()))


class Line(NamedTuple):
    """``what`` is a path or a name; ``counted``: one of many files that make one line together."""

    verb: str
    what: str
    counted: bool = False


class Progress:
    """Prints lines as steps are done, or, with ``dry_run``, would be."""

    def __init__(self, prefix: str, *, dry_run: bool, show: Callable[[str], None]) -> None:
        self._prefix = prefix
        self._dry_run = dry_run
        self._show = show
        self._line: Line | None = None
        self._count = 0

    def __call__(self, step: Step) -> None:
        """One more step."""
        line = described(step, self._prefix)
        if line is None:
            return
        if line != self._line or not line.counted:
            self.close()
        self._line = line
        self._count += 1
        if not line.counted:
            self.close()

    def close(self) -> None:
        """No more of what was counted."""
        if self._line is not None:
            verb = self._line.verb if self._dry_run else VERBS[self._line.verb]
            count = f" ({self._count} file{'' if self._count == 1 else 's'})" if self._line.counted else ""
            self._show(safe(f"{verb.ljust(WIDTH)}  {self._line.what}{count}"))
        self._line, self._count = None, 0


def described(step: Step, prefix: str) -> Line | None:
    """The line of a step; ``None`` for what only serves another."""
    match step:
        case Write() | Point() if tree := _tree(step.entry.path, prefix):
            return Line("lay", tree, counted=True)
        case Remove(path) if tree := _tree(path, prefix):
            return Line("remove", tree, counted=True)
        case Write(entry, replace):
            return Line("replace" if replace else "write", entry.path)
        case Point(Link(path, target)):
            return Line("link", f"{path} -> {target}")
        case Declare(path):
            return Line("write", path)
        case CreateUsers(new=True):
            return Line("make", "user and group agent (systemd-sysusers)")
        case CreateDirectories():
            return Line("make", f"directories below {prefix} (systemd-tmpfiles)")
        case Reload():
            return Line("reload", "systemd")
        case IndexCatalog():
            return Line("reload", "the journal's catalog")
        case Stop(units):
            return Line("stop", ", ".join(units))
        case Remove(path):
            return Line("remove", path)
        case RemoveTree(path):
            return Line("remove", f"{path} and all that was in it")
        case DeleteUsers(users, groups):
            return Line(
                "delete", ", ".join([*(f"user {user}" for user in users), *(f"group {group}" for group in groups)])
            )
    return None


def _tree(path: str, prefix: str) -> str | None:
    version = version_of(path, prefix)
    return f"{library(prefix)}/{version}" if version else None


def document(outcome: Outcome) -> dict[str, Any]:
    """What ``--json`` prints. Records are left out: they stand in ``install.json``."""
    shown: dict[str, Any] = msgspec.to_builtins(outcome)
    for step in shown["steps"]:
        step.pop("record", None)
    return {**shown, "changed": bool(outcome.steps) and not outcome.dry_run}


def refuse(error: Refused) -> RuntimeFailure:
    """Print everything that stands in the way but the last, which is the error to raise."""
    for line in error.objections[:-1]:
        complain(f"agentctl: {line}")
    return RuntimeFailure(error.objections[-1])
