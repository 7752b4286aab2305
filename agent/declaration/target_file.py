"""Files of targets (``file:/srv/key/hosts.txt``): one target a line, ``#`` begins a comment. Pure.

A file is judged when the declaration is read, and read again by the worker of each scan: an inventory that another
program writes is as new as the scan.
"""

from __future__ import annotations

from typing import NamedTuple

from agent.declaration import targets
from agent.errors import UsageError

MOST_LINES = 65_536
MOST_MISTAKES = 10
"""Mistakes of one file that are told; a file of something else has one on every line."""

_MARK = "\ufeff"  # as some editors write before the first line of UTF-8


class Line(NamedTuple):
    """``number`` counts from 1."""

    number: int
    text: str


def parse_target_file(text: str) -> tuple[list[Line], list[Line]]:
    """The targets in normal form, and what is wrong with other lines. A file names no further files."""
    found: list[Line] = []
    wrong: list[Line] = []
    # splitlines() also ends a line at a form feed or U+2028, and what is left of a comment would be scanned.
    lines = text.removeprefix(_MARK).removesuffix("\n").split("\n")
    if len(lines) > MOST_LINES:
        return [], [Line(MOST_LINES + 1, f"{len(lines)} lines are too many; write at most {MOST_LINES}")]
    for number, line in enumerate(lines, 1):
        item = line.partition("#")[0].strip()
        if not item:
            continue
        try:
            if item.startswith(targets.FILE):
                raise UsageError("a file of targets names no further file")
            found.append(Line(number, targets.host(item)))
        except UsageError as error:
            wrong.append(Line(number, str(error)))
            if len(wrong) == MOST_MISTAKES:
                break
    return found, wrong
