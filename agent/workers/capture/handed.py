"""Triggers that the agent pulls for a capture that runs as another user.

Into that user's store the agent can write nothing, and what root writes there the capture cannot read. So the agent
leaves in its own ``run/NAME.triggers`` what happened, and the capture, which looks there once a second, pulls its
trigger itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import msgspec

from agent.linux.files import edition, open_regular, write_atomic
from agent.workers.capture.pins import LARGEST, LONGEST_REASON

MOST = 16
"""Triggers in the file: what comes within a second is one event."""

SUFFIX = ".triggers"

_LONGEST = 64 * 1024


class Handed(msgspec.Struct, frozen=True):
    """Something happened ``at`` an instant, nanoseconds since the epoch."""

    at: Annotated[int, msgspec.Meta(ge=0, le=LARGEST)]
    reason: str


def place(config: Path) -> Path:
    """Where they are for the capture whose settings (``SERVICE_CONFIG``) are at ``config``."""
    return config.with_suffix(SUFFIX)


def write(path: Path, triggers: Sequence[Handed], owner: tuple[int, int]) -> None:
    """Leave these, the latest last, for whoever has this user and group id. Raises ``StorageFailure``."""
    kept = [
        Handed(one.at, one.reason[:LONGEST_REASON].encode(errors="replace").decode())  # no lone halves, for JSON
        for one in triggers[-MOST:]
    ]
    write_atomic(path, msgspec.json.encode(kept), 0o640, owner)


def read(path: Path) -> list[Handed]:
    """What was left there, as far as that can be understood."""
    try:
        with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
            return msgspec.json.decode(file.read(_LONGEST), type=list[Handed])[-MOST:]
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return []


class Mailbox:
    """What the agent leaves at ``path``, each handed to ``pull`` once, with the instant."""

    def __init__(self, path: Path, pull: Callable[[str, int], None]) -> None:
        self._path = path
        self._pull = pull
        self._seen: tuple[int, int, int] | None = None
        self._done = -1

    def look(self, since: int) -> None:
        """Hand on what is new, and happened after ``since``: of what was before nothing is kept any more."""
        current = edition(self._path)
        if current == self._seen:
            return
        self._seen = current
        for one in read(self._path):
            if one.at > max(self._done, since):
                self._done = one.at
                self._pull(one.reason, one.at)
