"""Where ``agentctl drift`` has its four sources from: the declaration, this host, and the stores below the prefix."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from agent.cli.stores import place
from agent.declaration.load import load
from agent.errors import StorageFailure
from agent.linux.owner import owner, seen_by
from agent.paths import Paths

if TYPE_CHECKING:
    from agent.workers.watch.drift import Judged
    from agent.workers.watch.standing import Noticed, Standing


class Source:
    """Reads them when asked, each store with the eyes of the user whose it is."""

    def __init__(self, paths: Paths) -> None:
        """Raises ``DeclarationError``."""
        self._paths = paths
        with seen_by(owner(*paths.owned)):
            self._declared = load(paths, os.environ)
        self._segments: dict[tuple[str, str], list[tuple[float, Path]]] = {}

    def judge(self, now: float) -> Judged:
        """Everything, as it is at ``now``, unix seconds."""
        from agent.declaration.sections import declared as what_is_declared
        from agent.workers.watch.drift import judge
        from agent.workers.watch.gather import Watched, gather, stores

        standing, noticed, notes = self._stood()
        declaration = self._declared
        watched = Watched(
            tuple(declaration.expects.values()),
            what_is_declared(declaration.services),
            declaration.agent.server,
        )
        with seen_by(owner(*self._paths.owned)):
            stored = stores(self._paths.spool)
        gathered = gather(watched, self._seen, now, noticed=noticed, stored=stored)
        judged = judge(gathered.sources, now)
        rows = [replace(row, since=standing[row.key].since) if row.key in standing else row for row in judged.rows]
        return judged._replace(rows=rows, notes=[*notes, *gathered.notes, *judged.notes])

    def segment(self, capture: str, interface: str, at: float) -> Path | None:
        """The segment of a capture that should hold a packet of that time; ``None`` when it is not stored any more."""
        key = (capture, interface)
        if key not in self._segments:
            self._segments[key] = self._stored(capture, interface)
        begun = [path for begin, path in self._segments[key] if begin <= at]
        return begun[-1] if begun and at <= self._end(capture, begun[-1]) else None

    def _stored(self, capture: str, interface: str) -> list[tuple[float, Path]]:
        from agent.workers.capture.catalogue import within
        from agent.workers.capture.naming import valid_interface

        if not valid_interface(interface):
            return []
        with self._seen(capture) as directory:
            try:
                return sorted((one.begin / 1e9, one.path) for one in within(directory, interface))
            except OSError:  # the row is there without it
                return []

    def _end(self, capture: str, path: Path) -> float:
        """No packet in a segment is from after that, unix seconds."""
        from agent.workers.capture import account
        from agent.workers.capture.catalogue import ACCOUNT
        from agent.workers.capture.naming import OPEN

        if path.suffix == OPEN:
            return float("inf")
        with self._seen(capture):
            known = account.read(path.with_suffix(ACCOUNT))
            if known is not None and known.reason != "recovered":  # of such a one it is not known
                return known.closed / 1e9
            try:
                return path.stat().st_mtime
            except OSError:  # removed since
                return 0.0

    @contextmanager
    def _seen(self, name: str) -> Iterator[Path]:
        with place(self._paths, name).seen() as directory:
            yield directory

    def _stood(self) -> tuple[Standing, Noticed | None, list[str]]:
        """What the watch knows of before: since when, above all."""
        from agent.declaration.sections import WATCH
        from agent.workers.watch import standing

        with self._seen(WATCH) as directory:
            try:
                kept = standing.read(directory / standing.NAME)
            except StorageFailure as error:
                return {}, None, [str(error)]
        return ({}, None, []) if kept is None else (kept.standing, kept.noticed, [])
