"""Ports that are known to be open, asked again and again to see whether the scan itself still sees. Pure.

A port that does not answer may be filtered, or the scan may have become blind: too fast for a device on the way, shut
out by a firewall, unplugged. Only what is known to answer can tell the two apart. So canaries are asked before anything
else, eight times in each stretch of the sweep, under its full load, and once more at its end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from agent.workers.scan.engine import Probe, Reply

MOST: Final = 4
"""Canaries of one chunk, of those that are found while it is swept."""

KNOWN: Final = 16
"""Canaries of one chunk, of those that are known from before."""

EACH: Final = 8
"""How often canaries are asked in one stretch."""

STRETCH: Final = 0.5
"""Seconds, at the least."""

TRIES: Final = 3
_TELLING, _FEWEST = 4, 3  # asked fewer times than that, it takes that none was answered
_SEEN = 0.5  # below this part of them answered, the stretch is not to be believed
_SHARE = 0.05  # of the rate may go to canaries


class Asking:
    """A few probes that are asked apart from the others, each up to ``tries`` times, one patience apart."""

    def __init__(self, probes: Iterable[Probe], tries: int = TRIES) -> None:
        self.answers: dict[Probe, str] = {}
        """The state of each that was answered."""
        self._left = dict.fromkeys(probes, (0, 0.0))  # how often it was asked, and until when that may be answered
        self._tries = tries

    def due(self, now: float) -> list[Probe]:
        """What to ask now, what was asked least first."""
        due = [probe for probe, (tried, until) in self._left.items() if tried < self._tries and now >= until]
        return sorted(due, key=lambda probe: self._left[probe][0])

    def asked(self, probes: Iterable[Probe], now: float, patience: float) -> None:
        """These of what is due were sent."""
        for probe in probes:
            self._left[probe] = (self._left[probe][0] + 1, now + patience)

    def heard(self, reply: Reply) -> bool:
        """Whether it was asked here."""
        if (probe := (reply.place, reply.port)) in self._left:
            del self._left[probe]
            self.answers[probe] = reply.state
            return True
        return probe in self.answers

    def over(self, now: float) -> bool:
        """Whether each was answered, or asked as often as it may be."""
        return all(tried >= self._tries and now >= until for tried, until in self._left.values())

    @property
    def silent(self) -> list[Probe]:
        """Those that were not answered so far."""
        return list(self._left)


@dataclass(slots=True)
class Stretch:
    """A piece of the sweep: from which ``position`` of which round on it was sent, and how canaries fared in it."""

    round: int
    position: int
    began: float
    ended: float = 0.0
    asked: int = 0
    seen: int = 0


@dataclass(slots=True)
class Canaries:
    """The canaries of a sweep under way. ``alive`` are those that answered."""

    alive: list[Probe] = field(default_factory=list)
    _stretches: list[Stretch] = field(default_factory=list)
    _waiting: dict[Probe, list[Stretch]] = field(default_factory=dict)
    _last: float = 0.0
    _turn: int = 0

    def found(self, probe: Probe) -> None:
        """An open port was found: it may be a canary. Those of different hosts are preferred."""
        if (len(self.alive) < MOST and probe[0] not in {place for place, _ in self.alive}) or (
            not self.alive[1:] and probe not in self.alive
        ):
            self.alive.append(probe)

    def due(
        self,
        now: float,
        rate: float,
        round_number: int,
        position: int,
        may: Callable[[Probe], object] = lambda probe: True,
    ) -> Probe | None:
        """The one to ask now while ``rate`` probes a second really go. The sweep is at ``position``: a new stretch may
        begin there. One that ``may`` not go now was not asked: it is the turn of the next, as soon as that may."""
        if not self.alive:
            return None
        length = max(STRETCH, EACH / (_SHARE * rate))
        current = self._stretches[-1] if self._stretches else None
        over = current is None or current.ended > 0.0 or now - current.began >= length
        at = self._last + length / EACH
        if not over and now < at:
            return None
        self._turn += 1
        probe = self.alive[self._turn % len(self.alive)]
        if not may(probe):
            return None
        if current is None or over:
            if current is not None and not current.ended:
                current.ended = now
            current = Stretch(round_number, position, now)
            self._stretches.append(current)
            self._last = now
        else:
            self._last = max(at, now - length / EACH)
        current.asked += 1
        self._waiting.setdefault(probe, []).append(current)
        return probe

    def heard(self, reply: Reply) -> bool:
        """Whether the reply is that of a canary."""
        probe = (reply.place, reply.port)
        if waiting := self._waiting.get(probe):
            stretch = waiting.pop()  # the one asked last: answers to those before it may have been lost
            stretch.seen += reply.state != "filtered"  # that a port has been closed shows a way that is open
            return True
        return probe in self.alive

    def close(self, now: float) -> None:
        """The round ends: so does the stretch."""
        if self._stretches and not self._stretches[-1].ended:
            self._stretches[-1].ended = now

    def missed(self, now: float, patience: float) -> Stretch | None:
        """The stretch in which most of them went unanswered, once; what was sent in it and since has to be redone."""
        while self._stretches and (first := self._stretches[0]).ended and now - first.ended >= patience:
            self._stretches.pop(0)
            for waiting in self._waiting.values():
                waiting[:] = [stretch for stretch in waiting if stretch is not first]
            least = _SEEN * first.asked if first.asked >= _TELLING else 1
            if first.asked >= _FEWEST and first.seen < least:
                self.reset()
                return first
        return None

    @property
    def pending(self) -> bool:
        """Whether a stretch is still to be judged."""
        return bool(self._stretches)

    def reset(self) -> None:
        """Begin a new stretch, whatever becomes of what was asked."""
        self._stretches.clear()
        self._waiting.clear()
