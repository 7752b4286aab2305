"""One installation at a time: two of them, even for different prefixes, would lay the same units and accounts."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.errors import RuntimeFailure
from agent.linux.files import flock_holder

PLACE = "run"
"""The directory, below the root, whose lock is held. Nothing has to be written for it, and nothing is left."""


@contextmanager
def only_one(root: Path, *, wait: bool = False) -> Iterator[None]:
    """While the block runs, no other process changes an installation below ``root``.

    Raises ``RuntimeFailure``, at once unless ``wait``, when another one does.
    """
    place = root / PLACE if (root / PLACE).is_dir() else root
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise RuntimeFailure(f"{place}: cannot be opened for locking: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            holder = flock_holder(descriptor)
            who = f"process {holder}" if holder else "another process"
            raise RuntimeFailure(f"{who} is just installing or uninstalling: wait for it, then try again") from None
        yield
    finally:
        os.close(descriptor)
