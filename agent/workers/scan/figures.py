"""How far a scan is, as ``agentctl status`` and the live bar show it. Pure.

An address is done when everything is known of it that is wanted: where services are, when those of its open ports are.
Being asked for its ports is then half of that, and the other half is what answers there; where nobody is, there is
nothing more to find out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Literal

from agent.workers.scan.advance import Progress
from agent.workers.scan.identify import Progress as Learned

Phase = Literal["discovery", "ports", "services"]

_DISCOVERY = 0.1
"""Which part of the time of a chunk its discovery is taken to be, where ports are asked after it."""

_PORTS = 0.5
"""Which part of an address is done once its ports were asked, where services are asked for after it."""

_USUAL = 15.0
"""Seconds that services take while nothing is known of that: nmap waits 6 s and more for who does not speak first."""


@dataclass(slots=True)
class _Spent:
    """What the same work at so many addresses took, in this life of the run."""

    seconds: float = 0.0
    hosts: int = 0

    def add(self, seconds: float, hosts: int) -> None:
        self.seconds += seconds
        self.hosts += hosts

    @property
    def each(self) -> float:
        """Seconds an address; 0 while there was none."""
        return self.seconds / max(1, self.hosts)


@dataclass(slots=True)
class Figures:
    """``hosts_underway`` and ``ports_open`` are of the chunk at hand, ``waiting`` are all that were swept and whose
    services are not known yet. ``rate`` is in probes a second, ``lost`` from 0 to 1 (``None``: not measured), ``left``
    is in seconds and of the sweep at hand (0: not known, or none); ``sent`` and ``answered`` count since the run began,
    as far as that was stored. ``clock`` is in seconds, and stands still while the run is held."""

    services: bool = False
    """Whether they are asked for."""
    phase: Phase = "discovery"
    hosts_underway: float = 0.0
    ports_open: int = 0
    waiting: int = 0
    rate: float = 0.0
    lost: float | None = None
    left: float = 0.0
    sent: int = 0
    answered: int = 0
    nmap_version: str = ""
    clock: Callable[[], float] = monotonic
    _hosts: int = 0
    _began: float = 0.0
    _last_part: bool = True
    _opened: int = 0
    _discovered: _Spent = field(default_factory=_Spent)
    _asked: _Spent = field(default_factory=_Spent)
    _swept: bool = False
    _partly: float = 0.0
    _highest: int = 0
    _at_hand: float = 0.0
    _pace: list[tuple[float, float]] = field(default_factory=list)

    def begin(self, hosts: int) -> None:
        """A chunk of so many addresses."""
        self._hosts, self.phase, self.rate, self.left = hosts, "discovery", 0.0, 0.0
        self._began = self.clock()

    def discovering(self, fraction: float, only: bool) -> None:
        """``only``: nothing comes after it."""
        self.hosts_underway = self._hosts * fraction * (1.0 if only else _DISCOVERY)

    def discovered(self, hosts: int) -> None:
        """Of so many addresses, those of the chunk at hand and of others, it is known who is there."""
        now = self.clock()
        self._discovered.add(now - self._began, hosts)
        self._began = now

    def sweeping(self, progress: Progress, part: int, parts: int) -> None:
        """Part number ``part`` of ``parts``."""
        self.phase = "ports"
        fraction = (part + progress.fraction) / parts
        self.hosts_underway = self._hosts * (_DISCOVERY + (1 - _DISCOVERY) * fraction)
        self.ports_open = self._opened + progress.open
        self.rate, self.lost, self.left = progress.rate, progress.lost, progress.left
        self._last_part = part + 1 == parts

    def again(self, progress: Progress) -> None:
        """A second look at some of what was in doubt; how much of that follows is not known."""
        self.phase = "ports"
        self.rate, self.lost, self.left = progress.rate, progress.lost, 0.0

    def swept(self, sent: int, answered: int, lost: float | None, opened: int = 0) -> None:
        """A sweep is done, however quick it was. ``opened``: open ports of the chunk that it found, none of which are
        stored yet."""
        self._opened += opened
        self.ports_open = self._opened
        self.sent += sent
        self.answered += answered
        self.phase, self.lost, self.left = "ports", lost, 0.0

    def all_swept(self) -> None:
        """All chunks are; what is left is services."""
        self._swept, self.rate, self.left = True, 0.0, 0.0
        if self.waiting:
            self.phase = "services"

    def learning(self, learned: Learned) -> None:
        """Services are being identified, beside the sweep or after it."""
        self.nmap_version = learned.nmap_version or self.nmap_version
        self._partly, self._at_hand = learned.partly, learned.left
        if self._swept and self.waiting:
            self.phase, self.rate = "services", 0.0
        if self.waiting:
            self._pace = [
                *(self._pace or [(self.clock(), 0.0)])[:1],
                (self.clock(), learned.hosts_done + learned.partly),
            ]

    def end(self) -> None:
        """The chunk is stored: from now on it counts as done, but for those whose services are to be found out."""
        self.hosts_underway, self.ports_open, self._opened = 0.0, 0, 0
        now = self.clock()
        self._asked.add(now - self._began, self._hosts)
        # Where nothing but a discovery was asked for, the end of many chunks follows one beginning.
        self._began, self._hosts = now, 0

    def done(self, swept: int) -> int:
        """How many addresses are done, of which so many were swept."""
        return max(0, swept - self.waiting)

    def percent(self, swept: int, total: int) -> int:
        """How much of a plan of ``total`` addresses is done, of which so many were swept; 100 when all is."""
        to_come = (1 - _PORTS) * max(0.0, self.waiting - self._partly)
        done = swept - to_come + self.hosts_underway * (_PORTS if self.services else 1.0)
        most = 99 if self.waiting or swept < total else 100
        # What is asked at length after all is less done than it seemed; nobody wants to be told of that.
        self._highest = max(self._highest, min(most, int(100 * done / max(1, total))))
        return self._highest

    def seconds_left(self, swept: int, total: int) -> float:
        """Until all addresses of a plan of ``total``, of which so many were swept, are, and in the phase of services
        until those are known, if it goes on as it goes; 0 while that is not known."""
        if self.phase != "services" or not self.waiting:
            return self._sweeps_left(swept, total) if self.left else 0.0
        if len(self._pace) < 2:
            return _USUAL
        (began, _), (_, done) = self._pace
        took, rest = self.clock() - began, max(0.0, self.waiting - self._partly)
        return max(self._at_hand, took * rest / done if done >= 1 else max(1.0, _USUAL - took))

    def _sweeps_left(self, swept: int, total: int) -> float:
        """Of the chunk at hand, and of all that follow: they take as long as the others, and as this one will have."""
        passed, left = self.clock() - self._began, self.left
        if not self._last_part:
            if not self._asked.hosts:
                return 0.0  # who knows how long UDP takes
            left = max(left, self._asked.each * self._hosts - passed)
        each = (self._asked.seconds + passed + left) / max(1, self._asked.hosts + self._hosts)
        rest = max(0, total - swept - self._hosts)
        discovered = max(0, self._discovered.hosts - self._asked.hosts - self._hosts)
        return left + rest * each + max(0, rest - discovered) * self._discovered.each
