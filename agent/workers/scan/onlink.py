"""Probes to hosts of our own link wait until it is known that somebody is there. Pure.

The kernel finds a neighbour by ARP or neighbour discovery, which takes it some three seconds where nobody is. All that
is sent there meanwhile it keeps, and charges it to the sending socket: a single host that is not there would fill the
socket's buffer and hold up the probes to all others. So one probe makes the kernel look, and the rest wait here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final, Literal

HELD: Final = 65_536
"""Most probes that wait."""

ABSENT: Final = 10.0
"""Seconds for which a host that was not there is believed not to be, before one probe makes the kernel look again."""

LATE: Final = 5.0
"""Seconds after which it is asked what became of a search: what the kernel said of it may have been lost."""

Fate = Literal["look", "held", "absent", "full"]


class OnLink:
    """Places are those of ``Engine``; times are seconds of its clock."""

    def __init__(self) -> None:
        self.held = 0
        """How many probes wait."""
        self._searched: dict[int, tuple[float, deque[int]]] = {}  # since when, and the ports that wait
        self._absent: dict[int, float] = {}

    def ask(self, place: int, port: int, now: float) -> Fate:
        """What becomes of a probe to a neighbour that the kernel does not know.

        It is sent, to make the kernel look; it waits; nobody is there; or there is no room for more that wait.
        """
        search = self._searched.get(place)
        if search is not None:
            if self.held >= HELD:
                return "full"
            search[1].append(port)
            self.held += 1
            return "held"
        if (until := self._absent.get(place)) is not None:
            if now < until:
                return "absent"
            del self._absent[place]
        self._searched[place] = now, deque()
        return "look"

    def decided(self, place: int, now: float, *, there: bool) -> list[int]:
        """The kernel knows now. Returns the ports whose probes have waited for that."""
        if there:
            self._absent.pop(place, None)
        else:
            self._absent[place] = now + ABSENT
        search = self._searched.pop(place, None)
        if search is None:
            return []
        self.held -= len(search[1])
        return list(search[1])

    def late(self, now: float) -> Iterator[int]:
        """Places that have been looked for too long; each is told once in ``LATE`` seconds."""
        for place, (since, ports) in list(self._searched.items()):
            if now - since < LATE:
                return  # they are in the order in which they began
            del self._searched[place]
            self._searched[place] = now, ports
            yield place

    def forget(self) -> None:
        """Of nobody anything waits."""
        self._searched.clear()
        self.held = 0
