"""The indexes of open segments. They are the index process's; they count, and go when there is one of the whole."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from agent.workers.capture.catalogue import TAIL


class Tails:
    """Known by the segments whose they are."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[Path, int]] = {}

    @property
    def bytes(self) -> int:
        """Bytes of all of them."""
        return sum(size for _, size in self._known.values())

    def look(self, parts: Iterable[Path]) -> None:
        """Look how large those of these open segments are."""
        for part in parts:
            tail = part.with_suffix(TAIL)
            try:
                self._known[part] = tail, tail.stat().st_size
            except OSError:
                self._known[part] = tail, 0

    def renamed(self, part: Path, path: Path) -> None:
        """The segment has another name now. Its tail keeps that which it has."""
        if (tail := self._known.pop(part, None)) is not None:
            self._known[path] = tail

    def drop(self, path: Path) -> None:
        """It is of no use to anybody any more."""
        tail, _ = self._known.pop(path, (None, 0))
        if tail is not None:
            with suppress(OSError):
                tail.unlink()
