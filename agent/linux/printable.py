"""Names that the kernel hands on as somebody chose them: of processes, cgroups, mounts and interfaces.

They are bytes, of any value but a few (prctl(2) PR_SET_NAME, mkdir(2)), so what stands in /proc need be no UTF-8, and
may hold line breaks and whatever a terminal obeys. ``proc_text`` reads such a file without a failure and so that its
names can be handed back to the kernel; ``printable`` makes of a name what can be shown, stored and sent as JSON.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

LONGEST: Final = 128
"""Characters of a name that are kept by ``name_of``. The kernel's own are shorter; programs write longer ones."""


def proc_text(path: Path) -> str:
    """The text of a file of /proc; bytes that are no UTF-8 are as ``os.fsdecode`` has them. Raises ``OSError``.

    Its lines are those of ``split("\\n")``: ``splitlines`` breaks at characters too that a name may hold.
    """
    return os.fsdecode(path.read_bytes())


def printable(text: str) -> str:
    """One line that can be shown: what Python calls unprintable is written as its escape, ``\\x1b`` or ``\\u202e``.

    A byte that was no UTF-8 is written as that byte, ``\\xff``.
    """
    return text if text.isprintable() else "".join(one if one.isprintable() else _escape(one) for one in text)


def name_of(text: str) -> str:
    """The beginning of a name, printable."""
    return printable(text[:LONGEST])[:LONGEST]


def _escape(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
