"""``.env`` and ``env_file``: one ``NAME=value`` per line.

::

    # a comment
    PLAIN=value            # white space around a value is dropped, and so is a comment after white space
    export EXPORTED=value  # as a shell script would have it
    SINGLE='taken as it is, $ and # too'
    DOUBLE="with \\n \\r \\t \\" \\\\ and \\$ as escapes"

Values are literal: there is no interpolation inside these files, and no value goes on over the end of its line.
"""

from __future__ import annotations

import re
from typing import NamedTuple

LONGEST = 128 * 1024 - 1
"""Characters of ``NAME=value``: the kernel passes no longer one to a program (MAX_ARG_STRLEN, execve(2))."""

_ASSIGNMENT = re.compile(r"(?:export[ \t]+)?([^=\s]*)[ \t]*=[ \t]*(.*)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SINGLE = re.compile(r"'([^']*)'(.*)")
_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)"(.*)')
_COMMENT = re.compile(r"[ \t]*(?:#.*)?")
_INLINE_COMMENT = re.compile(r"(?:^|[ \t])#")
_ESCAPE = re.compile(r"\\(.)")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$", "'": "'"}


class Mistake(NamedTuple):
    """What is wrong on one line; lines count from 1. ``name`` is the variable that has no value because of it."""

    line: int
    text: str
    name: str = ""


def parse_env(text: str) -> tuple[dict[str, str], list[Mistake]]:
    """The variables (the last assignment of a name wins) and every line that is none."""
    variables: dict[str, str] = {}
    mistakes: list[Mistake] = []
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        match = _ASSIGNMENT.fullmatch(line)
        if match is None:
            mistakes.append(Mistake(number, "not an assignment; write NAME=value"))
        elif not _NAME.fullmatch(match[1]):
            # Nor is this told: a key of several lines has "=" at the ends of some.
            mistakes.append(Mistake(number, "no variable's name before the =; use letters, digits and _"))
        elif len(line) > LONGEST:
            mistakes.append(Mistake(number, f"longer than {LONGEST} characters", match[1]))
        elif "\0" in line:
            mistakes.append(Mistake(number, "holds a NUL character, which no variable can", match[1]))
        else:
            value = _value(match[2])
            if isinstance(value, str):
                variables[match[1]] = value
            else:
                mistakes.append(Mistake(number, value[0], match[1]))
    return variables, mistakes


def _value(text: str) -> str | tuple[str]:
    """The value, or in a tuple what is wrong with it. The text itself is never told: it may be a secret."""
    if text[:1] in ("'", '"'):
        match = (_SINGLE if text[0] == "'" else _DOUBLE).fullmatch(text)
        if match is None:
            return (f"the {text[0]} that opens the value is not closed on this line",)
        if not _COMMENT.fullmatch(match[2]):
            return ("text after the closing quote; only a comment may stand there",)
        if text[0] == "'":
            return match[1]
        unknown = next((found[1] for found in _ESCAPE.finditer(match[1]) if found[1] not in _ESCAPES), None)
        if unknown is not None:
            return (r"an unknown escape in double quotes; known are \n \r \t \" \\ \$, or use single quotes",)
        return _ESCAPE.sub(lambda found: _ESCAPES[found[1]], match[1])
    comment = _INLINE_COMMENT.search(text)
    return (text[: comment.start()] if comment else text).rstrip()
