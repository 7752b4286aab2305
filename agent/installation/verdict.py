"""Why another version of this program cannot be used, in its own words, which anybody may have written."""

from __future__ import annotations

import json
from contextlib import suppress

LENGTH = 300
"""Characters of a line that are kept."""


def failed_part(said: bytes) -> str:
    """The first part that failed, by what ``selftest --json`` printed; empty when that does not tell."""
    with suppress(ValueError, KeyError, TypeError, StopIteration, RecursionError):
        failed = next(
            part for part in json.loads(said.decode("utf-8", "replace"))["parts"] if part["verdict"] == "fail"
        )
        return last_line(f"{failed['name']}: {failed['finding']}".encode("utf-8", "replace"))
    return ""


def last_line(said: bytes) -> str:
    """The last line that is not blank, fit for a message; empty when there is none."""
    lines = [line for line in said.decode("utf-8", "replace").splitlines() if line.strip()]
    return "".join(char if char.isprintable() else " " for char in lines[-1])[:LENGTH] if lines else ""
