"""Trees that take long to make: each is made once, and kept until what it is made by changes."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path


def kept(place: Path, name: str, recipe: bytes, make: Callable[[Path], None]) -> Path:
    """The tree ``name`` in ``place`` of this recipe, made by ``make`` if it is not there; others of that name go.

    Several processes may ask at once. What ``make`` has left unfinished is not believed.
    """
    made = place / f"{name}-{hashlib.sha256(recipe).hexdigest()[:16]}"
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            for old in place.glob(f"{name}-*"):
                shutil.rmtree(old)
            partial = made.with_name(f"{made.name}.partial")
            make(partial)
            partial.rename(made)
    return made
