"""What is said of a declaration that cannot be read: of its file, of its TOML, of a kind that is missing. Pure."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from agent.declaration.schema import KINDS, OF_KIND, Kind
from agent.declaration.sources import AS_ROOT, Unreadable
from agent.declaration.wording import listed, plain, printable, shown
from agent.paths import Paths

_WHERE = re.compile(r" \((?:at line (\d+), column (\d+)|at end of document)\)$")


def remedy(refusal: Unreadable, paths: Paths) -> str:
    """What to do about a declaration that is not there, or not for this user."""
    file = paths.declaration
    if refusal.withheld and not str(refusal).endswith(AS_ROOT):
        return f"; or hand it over: LoadCredential={file.name}:{named(file)}"
    return f"; `{printable(paths.typed('init'))}` writes a first one" if refusal.missing and paths.own else ""


def advice(raw: dict[str, Any]) -> str:
    """How the kind of a service would have to be written."""
    guess = next((kind for kind, keys in OF_KIND.items() if not keys.keys().isdisjoint(raw)), None)
    return f'write kind = "{guess}"' if guess else f"write kind = {listed(shown(kind) for kind in KINDS)}"


def named(path: Path) -> str:
    """A path as messages show it: a file may be called anything."""
    return printable(str(path))


_FIXED = {"capabilities": "a {kind} is given CAP_NET_RAW where the agent holds it, and needs no other; leave this out"}
"""Of keys that are settled for some kinds: why nobody need say more."""


def _elsewhere() -> dict[Kind | None, dict[str, str]]:
    """For each kind, the keys that only other kinds know, and what to say about them."""
    return {
        kind: {
            key: _FIXED.get(key, f"{key} belongs to kind {other}, and this is a {{kind}}").format(kind=kind)
            for other in KINDS
            if other != kind
            for key in OF_KIND[other]
        }
        for kind in KINDS
    }


ELSEWHERE = _elsewhere()


def syntax_error(message: str, text: str) -> tuple[str, int]:
    """tomllib's words and the line in them."""
    match = _WHERE.search(message)
    if match is None:
        return f"not valid TOML: {plain(message)}", 0
    words = printable(message[: match.start()][:200])
    if match[1] is None:
        return f"not valid TOML: {words} at the end of the file", text.count("\n") + (not text.endswith("\n"))
    return f"not valid TOML: {words} (column {match[2]})", int(match[1])
