"""Which interfaces a service captures: names, patterns, and patterns of what is left out. Pure.

Patterns are those of the shell (glob(7)): ``*``, ``?``, ``[ab]``, ``[!ab]``; what begins with ``!`` is left out, and
whatever else the list says. A pattern matches what it says: ``*`` is every interface, ``lo`` among them. Only ``any``,
which is none but libpcap's name for all together, is captured when it is written, and never matched.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from agent.declaration.capture_limits import is_interface_pattern
from agent.workers.capture.handle import ANY
from agent.workers.capture.naming import valid_interface


def named(declared: Sequence[str]) -> list[str]:
    """The interfaces that are written by name, and that no pattern leaves out."""
    return [name for name in declared if not is_interface_pattern(name) and not _left_out(name, declared)]


def open_ended(declared: Sequence[str]) -> list[str]:
    """The patterns that interfaces may match later."""
    return [text for text in declared if is_interface_pattern(text) and not text.startswith("!")]


def matched(declared: Sequence[str], present: Iterable[str]) -> list[str]:
    """Those of the interfaces that are there which a pattern asks for, and no name does; sorted."""
    patterns, names = open_ended(declared), named(declared)
    return sorted(
        name
        for name in set(present)
        if name not in names
        and name != ANY
        and valid_interface(name)
        and any(fnmatchcase(name, pattern) for pattern in patterns)
        and not _left_out(name, declared)
    )


def _left_out(name: str, declared: Sequence[str]) -> bool:
    return any(fnmatchcase(name, text[1:]) for text in declared if text.startswith("!"))
