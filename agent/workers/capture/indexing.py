"""The index process, as the capture worker keeps it: started, watched, and told which segment it had better leave."""

from __future__ import annotations

from collections.abc import Mapping

from agent.telemetry import breakdown
from agent.workers.companion import Companion, Report

SEGMENT = "X_SEGMENT"  # of agent.workers.index.worker, which is not loaded here
SUSPECT = "SERVICE_SUSPECT"
SINCE = "SERVICE_SINCE"


class Indexing:
    """The companion that indexes. One that dies twice over the same segment is told to leave that one.

    ``since``: what it counts, it counts of segments that begin then or later, nanoseconds since the epoch.
    """

    def __init__(self, report: Report, since: int) -> None:
        self._since = since
        self._last: str | None = None
        self._companion = Companion("index", report, variables=self._variables)

    def start(self) -> None:
        """Start it; from then on it is kept running."""
        self._companion.start()

    def nudge(self) -> None:
        """A segment has been closed."""
        self._companion.nudge()

    def tend(self) -> None:
        """Look after it. Call once a second or so."""
        self._companion.tend()

    async def stop(self) -> None:
        """End it when nothing more will be written, so that it can finish what was written last."""
        await self._companion.stop()

    @property
    def figures(self) -> dict[str, int | float | str | None]:
        """What it told last."""
        return dict(self._companion.figures)

    @property
    def cut(self) -> dict[str, int]:
        """By interface: how many packets it found to be cut to the snaplen."""
        told = breakdown.decode(self._companion.said.get(breakdown.FIELD)) or {}
        return {name: figures["cut"] for name, figures in told.items() if isinstance(figures.get("cut"), int)}

    def _variables(self) -> Mapping[str, str]:
        before, self._last = self._last, self._companion.said.get(SEGMENT)
        since = {SINCE: str(self._since)}
        return {**since, SUSPECT: self._last} if self._last and self._last == before else since
