"""Segments that others have closed in a store: an earlier capture, or processes beside this one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from agent.workers.capture import adoption
from agent.workers.capture.adoption import Report
from agent.workers.capture.catalogue import ACCOUNT
from agent.workers.capture.naming import parse_name, valid_interface
from agent.workers.capture.retention import Stored

_MOST_TOLD = 1000


class Finder:
    """Looks below ``directory``. ``knows`` tells whether a closed segment, by its begin and interface, is counted."""

    def __init__(
        self, directory: Path, clock: Callable[[], int], knows: Callable[[int, str], bool], report: Report
    ) -> None:
        self._directory = directory
        self._clock = clock
        self._knows = knows
        self._report = report
        self._looking: Iterator[Stored | None] | None = None
        self._told: set[str] = set()

    def adopt(self) -> list[Stored]:
        """What is there at the start: see ``adoption``. Raises ``OSError``."""
        return adoption.adopt(self._directory, self._report_once)

    def look(self, *, anew: bool) -> Iterator[Stored | None]:
        """What others have closed and not told of, or have left open when they ended: from where the last look ended.

        From the start when there is none, or it is to be ``anew``. ``None`` now and then, so that it can be left.
        """
        if self._looking is None or anew:
            self._looking = adoption.discover(self._directory, self._knows, self._report_once)
        for segment in self._looking:
            yield segment if segment is not None and not self._knows(segment.begin, segment.interface) else None
        self._looking = None

    def closed(self, name: str) -> Stored | None:
        """The segment ``INTERFACE/NAME``, which another process has closed; ``None`` if it is none, or known."""
        interface, _, file = name.partition("/")
        parsed = parse_name(file)
        if parsed is None or not valid_interface(interface) or self._knows(parsed[0], interface):
            return None
        path = self._directory / interface / file
        try:
            status = path.stat()
        except OSError:
            return None
        try:
            beside = path.with_suffix(ACCOUNT).stat().st_size
        except OSError:
            beside = 0
        end = max(parsed[0], self._clock(), status.st_mtime_ns)
        return Stored(parsed[0], interface, end, status.st_size + beside, indexed=False)

    def _report_once(self, kind: str, message: str) -> None:
        """Report what is looked at again and again, and stays as it is."""
        if kind == "segment_unreadable":
            if message in self._told or len(self._told) >= _MOST_TOLD:
                return
            self._told.add(message)
        self._report(kind, message)
