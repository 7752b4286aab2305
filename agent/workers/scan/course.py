"""The course of a sweep through the probes of a chunk, round after round in one order: what was sent, and what waits.

What the ledger needs of it to continue is the round, up to where it is settled, and up to where it was sent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

from agent.workers.scan.permute import Permutation

_LOOK: Final = 4096  # positions of the order that one step looks at
_MOST_HELD = 1024  # probes that may wait for a limit while others are looked for behind them

Numbered = tuple[int, int]
"""A position in the order, and the number of the probe that stands there."""


class Course:
    """``states`` are the bytes of the ledger: how often each probe was sent, as long as that is a small number."""

    def __init__(self, size: int, seed: bytes, states: memoryview) -> None:
        """``seed`` decides the order of the ``size`` probes."""
        self.round = 0
        self.settled = 0
        """Up to where no answer can come any more."""
        self.cursor = 0
        """Up to where probes were looked at."""
        self._size = size
        self._order = Permutation(size, seed)
        self._states = states
        self._held: list[Numbered] = []
        self._in_flight: deque[tuple[float, int]] = deque()
        self._turn_to(0)

    @property
    def position(self) -> int:
        """Up to where this round's probes were taken by the engine."""
        return self._held[0][0] if self._held else self.cursor

    @property
    def held(self) -> bool:
        """Whether some probes wait for a limit."""
        return bool(self._held)

    @property
    def over(self) -> bool:
        """Whether the whole order was looked at."""
        return self.cursor >= self._size

    def begin(self, number: int) -> None:
        """Begin round ``number``."""
        self.round = number
        self._turn_to(0)

    def take_back(self, position: int, sent: int) -> None:
        """Go back to ``position``: what was sent from there on, up to ``sent``, and not answered, is sent again."""
        waiting, states = self.round + 1, self._states
        for number in self._order.items(position, sent):
            if states[number] == waiting:
                states[number] = self.round
        self._turn_to(position)

    def _turn_to(self, position: int) -> None:
        self.cursor = position
        self._upcoming = self._order.items(position, self._size)
        self._held.clear()
        self._in_flight.clear()
        self.settled = min(self.settled, position)

    def settle(self, old: float) -> bool:
        """What was sent up to the time ``old`` is behind us; whether that is news."""
        settled = self.settled
        while self._in_flight and self._in_flight[0][0] <= old:
            settled = min(self._in_flight.popleft()[1], self.position)
        news, self.settled = settled != self.settled, settled
        return news

    def next(self, room: int) -> list[Numbered]:
        """At most so many that are to be sent now.

        Others are looked for behind those that have to wait, or one target at its limit would hold up all.
        """
        full = len(self._held) >= _MOST_HELD
        again = self._held[: room if full else -(-room // 2)]
        batch = again + (self._further(room - len(again)) if not full else [])
        self._held = self._held[len(again) :]
        return batch

    def _further(self, most: int) -> list[Numbered]:
        found: list[Numbered] = []
        states, number_of_round, upcoming = self._states, self.round, self._upcoming
        position = self.cursor
        end = min(self._size, position + _LOOK)
        while len(found) < most and position < end:
            number = next(upcoming)
            if states[number] <= number_of_round:
                found.append((position, number))
            position += 1
        self.cursor = position
        return found

    def sent(self, now: float, left: Iterable[Numbered]) -> None:
        """All that ``next`` gave went out, but for those that are ``left``."""
        if waiting := list(left):
            self._held = sorted([*self._held, *waiting])
        self._in_flight.append((now, self.position))
