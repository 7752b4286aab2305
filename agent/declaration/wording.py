"""How a value, a key or a near miss is put into a message: always on one line, always short, never raw.

A declaration is hostile input. Whatever of it is quoted back at a person goes through ``shown`` first, so that no
message holds a line break, a terminal escape or a megabyte.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_LONGEST = 60


def shown(value: object) -> str:
    """``value`` as it would be written in TOML, on one line, at most about 60 characters of it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{plain(value)}"'
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list | tuple):
        return "a list" if value else "an empty list"
    if isinstance(value, int) and value.bit_length() > 200:
        return "a number of more than 60 digits"
    return plain(str(value))


def plain(text: str) -> str:
    """``text`` without what would break a line or a terminal, cut to about 60 characters."""
    return printable(text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…")


def printable(text: str) -> str:
    """``text`` with everything escaped that is not printable."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def dotted(path: Sequence[str | int]) -> str:
    """The dotted key of a message. Positions in a list are left out: the message itself tells the item."""
    keys = [part for part in path if isinstance(part, str)]
    return ".".join(key if _BARE_KEY.fullmatch(key) and len(key) <= _LONGEST else shown(key) for key in keys)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The one of ``known`` that ``word`` was most likely meant to be, if any is near."""
    import difflib  # only a mistake needs it

    found = difflib.get_close_matches(word[:_LONGEST].lower(), list(known), n=1, cutoff=0.6)
    return found[0] if found else None


def listed(words: Iterable[str], last: str = "or") -> str:
    """``a, b or c``."""
    *head, tail = words
    return f"{', '.join(head)} {last} {tail}" if head else tail
