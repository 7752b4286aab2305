"""How many packets were cut to the snaplen, by interface, since a capture began.

Nobody else can know: the kernel cuts without counting, the capturing process hands packets from libpcap to a file
without looking at one of them, and what was on the wire and what is stored of it is told in the header of each record
alone. The index process reads these anyway.

A segment is counted while it grows, and once more from its index where another process had counted it before. So it
does not matter how often the index process was started.
"""

from __future__ import annotations

from collections.abc import Iterable

from agent.workers.capture.catalogue import Segment
from agent.workers.index.head import cut_in

Identity = tuple[int, int]
"""Which file a segment is, whatever it is called by now: device and inode."""


class Tally:
    """Counts segments that begin at ``since`` or later, nanoseconds since the epoch."""

    def __init__(self, since: int) -> None:
        self._since = since
        self._settled: dict[str, int] = {}
        self._growing: dict[Identity, tuple[str, int]] = {}

    def recount(self, segments: Iterable[Segment]) -> None:
        """Count those of these that have been indexed."""
        for segment in segments:
            if segment.closed and segment.indexed and segment.begin >= self._since:
                self._settle(segment.interface, cut_in(segment.index) or 0)

    def add(self, identity: Identity, segment: Segment, cut: int) -> None:
        """So many more were found in a segment that is being indexed."""
        if segment.begin >= self._since:
            _, before = self._growing.get(identity, ("", 0))
            self._growing[identity] = segment.interface, before + cut

    def settle(self, identity: Identity) -> None:
        """No more will come of this segment."""
        interface, cut = self._growing.pop(identity, ("", 0))
        self._settle(interface, cut)

    def forget(self, identity: Identity) -> None:
        """It will be indexed anew."""
        self._growing.pop(identity, None)

    @property
    def cut(self) -> dict[str, int]:
        """By interface; those that are being written come first."""
        found: dict[str, int] = {}
        for interface, cut in self._growing.values():
            found[interface] = found.get(interface, 0) + cut
        for interface, cut in self._settled.items():
            found[interface] = found.get(interface, 0) + cut
        return found

    def _settle(self, interface: str, cut: int) -> None:
        if interface:
            self._settled[interface] = self._settled.get(interface, 0) + cut
