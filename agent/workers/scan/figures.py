"""How far a scan is, as ``agentctl status`` and the live bar show it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from agent.workers.scan.advance import Progress
from agent.workers.scan.identify import Progress as Learned

Phase = Literal["discovery", "ports", "services"]

_DISCOVERY = 0.1
"""Which part of the time of a chunk its discovery is taken to be, where ports are asked after it."""


@dataclass(slots=True)
class Figures:
    """``hosts_underway`` and ``ports_open`` are of the chunk at hand. ``rate`` is in probes a second, ``lost`` from 0
    to 1, ``left`` is in seconds and of the phase at hand; ``sent`` and ``answered`` count since this process began."""

    phase: Phase = "discovery"
    hosts_underway: float = 0.0
    ports_open: int = 0
    rate: float = 0.0
    lost: float = 0.0
    left: float = 0.0
    sent: int = 0
    answered: int = 0
    nmap_version: str = ""
    _hosts: int = 0

    def begin(self, hosts: int) -> None:
        """A chunk of so many addresses."""
        self._hosts, self.phase, self.left = hosts, "discovery", 0.0

    def discovering(self, fraction: float, only: bool) -> None:
        """``only``: nothing comes after it."""
        self.hosts_underway = self._hosts * fraction * (1.0 if only else _DISCOVERY)

    def sweeping(self, progress: Progress, part: int, parts: int) -> None:
        """Part number ``part`` of ``parts``."""
        self.phase = "ports"
        fraction = (part + progress.fraction) / parts
        self.hosts_underway = self._hosts * (_DISCOVERY + (1 - _DISCOVERY) * fraction)
        self.ports_open = progress.open
        self.rate, self.lost, self.left = progress.rate, progress.lost, progress.left

    def again(self, progress: Progress) -> None:
        """A second look at what was in doubt."""
        self.phase = "ports"
        self.rate, self.lost, self.left = progress.rate, progress.lost, progress.left

    def swept(self, sent: int, answered: int, lost: float) -> None:
        """A sweep is done, however quick it was."""
        self.phase = "ports"
        self.sent += sent
        self.answered += answered
        self.phase, self.lost, self.left = "ports", lost, 0.0

    def learning(self, learned: Learned) -> None:
        """Services are being identified."""
        self.phase, self.rate = "services", 0.0
        self.nmap_version = learned.nmap_version or self.nmap_version

    def end(self) -> None:
        """The chunk is stored: from now on it counts as done."""
        self.hosts_underway, self.ports_open = 0.0, 0
