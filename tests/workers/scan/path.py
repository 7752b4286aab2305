"""A model of hosts at the end of a path, with a clock that only the test moves. No packet leaves the machine."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from agent.workers.scan.engine import Probe, Reply
from agent.workers.scan.grid import Grid
from agent.workers.scan.ledger import Ledger
from agent.workers.scan.pace import Pace
from agent.workers.scan.sweep import Sweep

Says = Callable[[int, int], str]
"""What the host at a place says at a port: ``open``, ``closed``, ``drop``, or nmap's reason for ``filtered``."""


class Bucket:
    def __init__(self, rate: float, burst: float) -> None:
        self.rate, self.burst, self.level, self.at = rate, burst, burst, 0.0

    def passes(self, now: float) -> bool:
        self.level = min(self.burst, self.level + (now - self.at) * self.rate)
        self.at = now
        if self.level < 1:
            return False
        self.level -= 1
        return True


@dataclass
class Path:
    """An engine. ``lost`` is the chance of each packet to get lost, ``cap`` what a device passes in probes a second,
    ``resets`` how many RSTs the hosts send a second; 0 is no limit. ``most`` is how many attempts there may be at
    once. From ``dark[0]`` to ``dark[1]`` nothing passes.
    """

    says: Says
    rtt: float = 0.01
    lost: float = 0.0
    cap: float = 0.0
    resets: float = 0.0
    most: int = 1 << 20
    dark: tuple[float, float] = (0.0, 0.0)
    seed: int = 1
    patience: float = 1.0
    trouble: str = ""
    sent: Counter[Probe] = field(default_factory=Counter)
    answered: set[Probe] = field(default_factory=set)
    repeated: Counter[Probe] = field(default_factory=Counter)
    """Probes that were sent although their answer had been received."""

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._device = Bucket(self.cap, self.cap / 5)
        self._host = Bucket(self.resets, self.resets / 5)
        self._coming: list[tuple[float, int, Reply]] = []
        self._attempts: list[float] = []
        self._number = 0
        self._resting = False

    @property
    def resting(self) -> bool:
        return self._resting

    @resting.setter
    def resting(self, rests: bool) -> None:
        """As an engine whose attempts the kernel would repeat: they are given up, and so are their answers."""
        self._resting = rests
        if rests:
            self.forget()

    @property
    def room(self) -> int:
        return self.most - len(self._attempts)

    @property
    def waiting(self) -> int:
        return len(self._attempts)

    def send(self, probes: Sequence[Probe], now: float) -> int:
        taken = probes[: max(0, self.room)]
        for probe in taken:
            self.sent[probe] += 1
            self.repeated[probe] += probe in self.answered
            heapq.heappush(self._attempts, now + self.patience)
            if (self.cap and not self._device.passes(now)) or self.dark[0] <= now < self.dark[1]:
                continue
            if self._random.random() < self.lost or (answer := self.says(*probe)) == "drop":
                continue
            if answer == "closed" and self.resets and not self._host.passes(now):
                continue
            if self._random.random() < self.lost:
                continue
            state, reason = {"open": ("open", "syn-ack"), "closed": ("closed", "reset")}.get(
                answer, ("filtered", answer)
            )
            rtt = self.rtt * self._random.uniform(1.0, 1.3)
            self._number += 1
            reply = Reply(*probe, state, reason, 64, rtt)  # type: ignore[arg-type]  # of a dict of str
            heapq.heappush(self._coming, (now + rtt, self._number, reply))
        return len(taken)

    def receive(self, now: float) -> list[Reply]:
        replies = []
        while self._coming and self._coming[0][0] <= now:
            replies.append(heapq.heappop(self._coming)[2])
            self.answered.add(replies[-1][:2])
        while self._attempts and self._attempts[0] <= now:
            heapq.heappop(self._attempts)
        return replies

    def fileno(self) -> int:
        return -1

    def forget(self) -> None:
        self._coming.clear()
        self._attempts.clear()

    def close(self) -> None:
        self.forget()


def run(
    sweep: Sweep, now: float, *, until: float = 3600.0, each: Callable[[float], object] = lambda now: None
) -> float:
    """Turn it until it is done, a millisecond or more at a time; returns the time by then."""
    while not sweep.done and now < until:
        now += max(0.001, sweep.turn(now))
        each(now)
    return now


def made(grid: Grid, ledger: Ledger, path: Path, rate: float, **more: object) -> Sweep:
    options = {"seed": b"seed", "retries": 4, **more}
    return Sweep(grid, ledger, path, Pace(rate, 0.0), 0.0, **options)  # type: ignore[arg-type]  # handed on
