"""How fast to send, learned from what comes back. Pure: time is handed in.

What is sent within a short while is a window, and each answer is counted for the window that its probe was sent in.
The part of a window that is answered is its yield. While more probes a second bring as many more answers, the yield
stays what it was, whatever part of the packets is lost by chance, and the rate is raised. When something on the path
(a device with a limit, a slow host) has had enough, answers stay behind: then the rate goes below what was delivered.
If that does not bring the yield back, it was not the rate, and what is seen now is the yield of this path.

Where hardly anybody answers nothing can be learned, and the declared rate is all there is to go by. That it is not too
much, the canaries tell (``canary``), who halve it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

FIRST: Final = 500.0
"""Probes a second before anything is known."""

FLOOR: Final = 50.0
"""The rate is never learned below this, in probes a second."""

WINDOW: Final = 0.05
"""Shortest window in seconds. It lasts a round trip at least."""

TELLING: Final = 40
"""Answers that must be expected of a window before its yield is judged."""

SILENT: Final = 0.02
"""A yield below this teaches nothing."""

_BURST = 0.02  # seconds of sending that may be made up for when the loop was late
_UNSURE = 0.1  # the yield was measured on few: so much of it may have been luck
_FALLEN = 0.75  # of the yield that is known: below it, something is wrong
_BELOW = 0.85  # of the rate that was delivered, to be away from the edge
_STEP = 1.1
_CREEP = 1.01
_EVIDENCE = 200  # probes that must have been sent before silence is believed to be that of the targets
PATIENCE: Final = (0.3, 3.0)
"""Least and most seconds for which an answer is waited for."""
_UNKNOWN = 1.0  # patience before any answer came, in seconds


@dataclass(slots=True)
class Window:
    """What was sent from ``began`` until ``ended``, and how many of that was answered. ``number`` is below 250."""

    number: int
    began: float
    ended: float = 0.0
    sent: int = 0
    answered: int = 0


class Pace:
    """``ceiling`` is the declared rate, in probes a second, and never exceeded; ``first`` is the one to begin with."""

    def __init__(self, ceiling: float, now: float, first: float = FIRST) -> None:
        self.ceiling = ceiling
        self.rate = min(ceiling, first)
        self.saturated = False
        """Whether the path has shown how much it carries."""
        self._limit = ceiling
        self._doubling = True
        self._yield: float | None = None
        self._learned_sent = 0
        self._learned_answered = 0
        self._tokens = 1.0
        self._filled = now
        self._window = Window(0, now)
        self._windows: dict[int, Window] = {0: self._window}
        self._closed: deque[Window] = deque()
        self._sum_sent = 0
        self._sum_answered = 0
        self._sum_time = 0.0
        self._since = now
        self._trial: tuple[float, float, float] | None = None
        self._round_trip: float | None = None
        self._variation = 0.0
        self._recent: deque[tuple[float, int]] = deque()

    @property
    def patience(self) -> float:
        """Seconds after which no answer is to be expected any more."""
        if self._round_trip is None:
            return _UNKNOWN
        return min(PATIENCE[1], max(PATIENCE[0], 2 * self._round_trip + 4 * self._variation))

    @property
    def silent(self) -> bool:
        """Whether too few answer to learn anything from it."""
        return self._yield is not None and self._yield < SILENT

    def allowance(self, now: float) -> int:
        """How many probes may be sent now."""
        passed = max(0.0, now - self._filled)
        self._filled = now
        self._tokens = min(self._tokens + passed * self.rate, max(1.0, self.rate * _BURST))
        return int(self._tokens)

    def pause(self, now: float) -> float:
        """Seconds from now until another probe may be sent."""
        missing = 1.0 - self._tokens - max(0.0, now - self._filled) * self.rate
        return max(0.0, missing / self.rate)

    def sent(self, count: int, now: float) -> int:
        """That many were sent now. Returns the number of their window, to be given to ``answered``."""
        self._tokens -= count
        self._window.sent += count
        if self._recent and now - self._recent[-1][0] < 0.1:
            self._recent[-1] = (self._recent[-1][0], self._recent[-1][1] + count)
        else:
            self._recent.append((now, count))
        return self._window.number

    def charge(self, count: int) -> None:
        """That many were sent besides, canaries say: they count against the rate and teach nothing."""
        self._tokens -= count

    def answered(self, window: int, rtt: float) -> None:
        """The first answer came to a probe of that window, after ``rtt`` seconds (0: unknown)."""
        if (found := self._windows.get(window)) is not None:
            found.answered += 1
        if rtt > 0:
            if self._round_trip is None:
                self._round_trip, self._variation = rtt, rtt / 2
            else:  # as RFC 6298 does, slower, for there are more samples
                self._variation += (abs(rtt - self._round_trip) - self._variation) / 16
                self._round_trip += (rtt - self._round_trip) / 32

    def measured(self, now: float) -> float:
        """Probes sent per second over the last second."""
        while self._recent and now - self._recent[0][0] > 1.0:
            self._recent.popleft()
        if not self._recent:
            return 0.0
        return sum(count for _, count in self._recent) / max(0.2, now - self._recent[0][0])

    def going(self, now: float) -> float:
        """The rate that it really goes at: limits of others may hold it far below its own. At least 1 a second."""
        return max(1.0, min(self.rate, self.measured(now)))

    def halve(self) -> None:
        """Go at half the rate, and be careful from now on."""
        self.rate = max(min(FLOOR, self.ceiling), self.rate / 2)
        self._limit = self.rate
        self._doubling = False
        self.saturated = True

    def renew(self, now: float, lost: float) -> None:
        """Another round: other probes are sent, of which another part is answered. ``lost`` of the last was lost."""
        if lost > 0.3:  # more than chance takes: what was the yield of this path was that of too high a rate
            self.halve()
        self._yield = None
        self._learned_sent = self._learned_answered = 0
        self._trial = None
        self._forget(now)

    def stalled(self, now: float) -> None:
        """Nobody looked for a while: what was answered late, was only heard late."""
        self._forget(now)

    def judge(self, now: float) -> None:
        """Look at what was sent long enough ago. To be called every few milliseconds."""
        length = max(WINDOW, self._round_trip or 0.0)
        window = self._window
        if now - window.began >= length and window.sent:
            window.ended = now
            self._closed.append(window)
            number = (window.number + 1) % 250
            self._windows.pop(number, None)
            self._window = self._windows[number] = Window(number, now)
        elif not window.sent:
            window.began = now
        lag = 0.02 + (1.5 * self._round_trip + 2 * self._variation if self._round_trip is not None else 0.3)
        while self._closed and (age := now - self._closed[0].ended) >= lag:
            window = self._closed[0]
            if age < self.patience and window.answered < _FALLEN * (self._yield or 1.0) * window.sent:
                break  # good news is believed at once, bad news when no more answers can come
            self._closed.popleft()
            if window.began >= self._since:
                self._consider(window, now)

    def _consider(self, window: Window, now: float) -> None:
        if self._yield is None:
            self._learned_sent += window.sent
            self._learned_answered += window.answered
            if self._learned_answered < TELLING and self._learned_sent < _EVIDENCE:
                return
            self._yield = self._learned_answered / self._learned_sent
            self._grow(window)
            return
        if self.silent:
            self._learned_sent += window.sent
            self._learned_answered += window.answered
            self._yield = self._learned_answered / self._learned_sent
            self._grow(window)
            return
        self._sum_sent += window.sent
        self._sum_answered += window.answered
        self._sum_time += window.ended - window.began
        expected = self._yield * self._sum_sent
        if expected < TELLING:
            return
        sent, answered, took = self._sum_sent, self._sum_answered, self._sum_time
        self._sum_sent = self._sum_answered = 0
        self._sum_time = 0.0
        share = answered / sent
        if self._trial is not None:
            self._learn_from_trial(share)
        chance = 3 * (expected * max(_UNSURE, 1 - self._yield) + 1) ** 0.5
        if answered < _FALLEN * expected and expected - answered > chance:
            self._retreat(share, answered / took, now)
        else:
            self._yield = max(self._yield, 0.9 * self._yield + 0.1 * share)
            self._grow(window)

    def _grow(self, window: Window) -> None:
        actual = window.sent / max(1e-6, window.ended - window.began)
        if actual < 0.6 * self.rate:
            return  # something else holds it up: a higher number would mean nothing
        if self._doubling:
            self.rate = min(self.ceiling, max(self.rate, 2 * min(actual, self.rate)))
        else:  # what was too much once is tried again, carefully: the path may have been busy
            self.rate = min(self.ceiling, self.rate * (_STEP if self.rate < self._limit else _CREEP))

    def _retreat(self, share: float, delivered: float, now: float) -> None:
        """So many answers a second is what the path carries; go below the rate that brings them."""
        known = self._yield or 1.0
        self._trial = (share, self.rate, known)
        self.rate = max(min(FLOOR, self.ceiling), min(self.rate, _BELOW * delivered / known))
        self._limit = self.rate
        self._doubling = False
        self.saturated = True
        self._forget(now)

    def _learn_from_trial(self, share: float) -> None:
        """The rate was lowered: did that help?"""
        assert self._trial is not None  # noqa: S101 - for the type checker
        before, rate, known = self._trial
        self._trial = None
        if share < before + 0.3 * (known - before):
            self._yield = max(share, 1e-6)
            self.rate = self._limit = min(self.ceiling, rate)
            self.saturated = False

    def _forget(self, now: float) -> None:
        """What was sent up to now tells nothing about what is sent from now on."""
        self._closed.clear()
        self._sum_sent = self._sum_answered = 0
        self._sum_time = 0.0
        self._since = now
        number = (self._window.number + 1) % 250
        self._windows.pop(number, None)
        self._window = self._windows[number] = Window(number, now)
