"""Phase 1 of a scan: every probe of a chunk is sent until it is answered or silence is believed.

The sweep sends nothing itself (``engine``) and never looks at a clock: whoever drives it calls ``turn`` every few
milliseconds with the time. So hours of it are tested in seconds against a model of a network. All it has to remember is
in the ledger: it may be killed at any instruction, and whoever continues asks again only what was in flight.

A probe that was answered is never sent again; only a few open ports are, as canaries. What was not answered is sent
once more in the next round, never sooner.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Literal

from agent.workers.scan.advance import Progress, ahead, fraction
from agent.workers.scan.apart import Apart
from agent.workers.scan.blind import Witness
from agent.workers.scan.canary import Canaries
from agent.workers.scan.course import Course
from agent.workers.scan.engine import Engine, Probe, Reply
from agent.workers.scan.everything import suspicious, unlikely
from agent.workers.scan.grid import Grid
from agent.workers.scan.ledger import ANSWERED, BELIEVED, MOST_SENT, SKIPPED, Ledger, decode, encode
from agent.workers.scan.pace import FLOOR, Pace
from agent.workers.scan.review import review, tells_loss
from agent.workers.scan.rounds import gap, loss, measured

BATCH: Final = 128
"""Most probes sent in one turn, so that a turn takes a few milliseconds."""

BACKLOG: Final = 256
"""Replies at once that make it likely that there are more."""

_STUBBORN: Final = 3  # how often a stretch is redone, and up to three times that while it can go slower
_DEAD: Final = 5.0  # seconds without any answer, after its canaries were given up, until the rest is not asked at all
_STALL: Final = 0.1  # seconds between two turns: this process, or this machine, was busy with something else
_REST: Final = 0.002  # shortest time between two turns when nothing can be done in between
_IDLE: Final = 0.02  # longest time between two turns, in seconds
_SLACK: Final = 0.2  # how much longer than its patience an attempt is taken to be in flight

Permit = Callable[[Sequence[Probe]], Sequence[int]]
"""Which of these probes may go now, by their places in the row, ascending: the limits that all scans share."""

Phase = Literal["start", "sending", "waiting", "review", "checks", "end", "done"]


def _anything(probes: Sequence[Probe]) -> Sequence[int]:
    return range(len(probes))


def single(port: int) -> int:
    """Of how many packets a probe of a port is, where each is of one."""
    return 1


class Sweep:
    """One chunk. ``seed`` decides the order, ``known`` are ports that were open before, in the grid or not."""

    def __init__(
        self,
        grid: Grid,
        ledger: Ledger,
        engine: Engine,
        pace: Pace,
        now: float,
        *,
        seed: bytes,
        retries: int,
        patient: bool = False,
        known: Sequence[Probe] = (),
        permit: Permit = _anything,
        packets: Callable[[int], int] = single,
    ) -> None:
        """``packets``: of how many packets a probe of a port is; all count against the rate.

        ``patient``: silence is believed after all ``retries`` and not sooner (``rounds.enough``)."""
        self.degraded = ""
        """Why what this sweep found must not be taken for all there is; empty when it may."""
        self.everything: frozenset[int] = frozenset()
        """The places of addresses that say "open" whatever they are asked."""
        self.redone = 0
        """How often canaries were missed, so that it went on at half the rate and asked a stretch again."""
        self.phase: Phase = "start"
        self._grid = grid
        self._ledger = ledger
        self._states = ledger.states
        self._engine = engine
        self._pace = pace
        self._course = Course(grid.size, seed, ledger.states)
        self._seed = seed
        self._retries = min(retries, MOST_SENT - 2)
        self._patient = patient
        self._permit = permit
        self._packets = packets
        places = len(grid.addresses)
        self._windows = bytearray(grid.size)
        self._finished = [True] * places
        self._opens = [0] * places
        self._attempts = [0] * 8
        self._answered = 0
        self._skipped = 0
        self._sent = 0
        self._until = self._turned = now
        self._began = now
        self._furthest = 0.0
        self._misses = 0
        self._heard = now
        self._apart = Apart(known)
        self._canaries = Canaries()
        self._review: Iterator[None] = iter(())
        self._stopped: float | None = None
        self._resume()

    def _resume(self) -> None:
        """Take up what the ledger says; what was in flight goes back to not sent in this round."""
        self._course.round, self._course.settled, sent = self._ledger.place
        self._course.take_back(self._course.settled, sent)
        width = self._grid.width
        for place in range(len(self._grid.addresses)):
            for byte, count in self._ledger.tally(place * width, (place + 1) * width).items():
                if byte >= ANSWERED:
                    self._count(byte, place, count)
                elif byte == SKIPPED:
                    self._skipped += count
                elif byte < BELIEVED:
                    self._finished[place] = False

    def _count(self, byte: int, place: int, count: int) -> None:
        self._answered += count
        if tells_loss(byte):
            self._attempts[byte & 7] += count
        if (decode(byte) or ("", ""))[0] == "open":
            self._opens[place] += count

    @property
    def witnesses(self) -> Mapping[Probe, Witness]:
        """How each canary fared, once the sweep is done."""
        return self._apart.witnesses

    @property
    def done(self) -> bool:
        return self.phase == "done"

    @property
    def open(self) -> int:
        """How many open ports were found so far."""
        return sum(self._opens)

    @property
    def loss(self) -> float:
        """Which part of what was sent to ports that answer is taken to be lost, from 0 to below 1."""
        return loss(self._attempts)

    def turn(self, now: float) -> float:
        """Do what is to be done now. Returns after how many seconds to call again, 0 for at once."""
        engine, pace = self._engine, self._pace
        if self._stopped is not None:
            self._go_on(now)
        if now - self._turned > _STALL:
            pace.stalled(now)
            self._canaries.reset()
            self._heard = now
        self._turned = now
        replies = engine.receive(now)
        for reply in replies:
            self._hear(reply)
            self._heard = now
        engine.patience = pace.patience
        if len(replies) < BACKLOG:  # else there are more, and what is not heard yet is not missing
            pace.judge(now)
        self._settle(now)
        match self.phase:
            case "start" | "checks" | "end":
                return self._ask_apart(now)
            case "sending":
                return self._send(now)
            case "waiting":
                return self._wait(now)
            case "review":
                if next(self._review, self) is self:
                    self._decide(now)
                return 0.0
            case "done":
                return _IDLE

    def hold(self, now: float) -> float:
        """Instead of ``turn``: send nothing now, only listen. Nothing that passes meanwhile is held against anybody.

        What the engine has to give up for that, so that nothing is repeated, is sent again when it goes on.
        """
        if self._stopped is None:
            self._stopped = now
            waiting, self._engine.resting = self._engine.waiting, True
            if self._engine.waiting < waiting and self.phase in ("sending", "waiting"):
                self._course.take_back(self._course.settled, self._course.cursor)
                self.phase = "sending"
        for reply in self._engine.receive(now):
            self._hear(reply)
        self._settle(now)
        return _IDLE

    def _go_on(self, now: float) -> None:
        self._stopped = None
        self._engine.resting = False
        self._turned = self._heard = now
        self._canaries.reset()
        self._pace.stalled(now)

    def _hear(self, reply: Reply) -> None:
        number = self._grid.number(reply.place, reply.port)
        apart = self._apart.asking.heard(reply)
        if number is None or (state := self._states[number]) >= ANSWERED or state == SKIPPED:
            self._canaries.heard(reply)
            return
        if apart and not state:
            return  # asked by itself before its turn came: it is asked again, and so counts in the pace
        if state <= 1 and reply.reason == "host-unreach":
            return  # the neighbour may only have been slow to be found: that is not believed the first time
        attempt = self._course.round + 1 if state in (0, BELIEVED) else state
        byte = encode(reply.state, reply.reason, attempt)
        self._states[number] = byte
        self._pace.answered(self._windows[number], reply.rtt if state <= 1 else 0.0)
        self._count(byte, reply.place, 1)
        if reply.state == "open":
            self._canaries.found((reply.place, reply.port))

    def _settle(self, now: float) -> None:
        """What was sent so long ago that no answer can come any more is behind us, whatever happens next."""
        course = self._course
        if course.settle(now - self._engine.patience - _SLACK):
            self._ledger.mark(course.round, course.settled, max(course.settled, course.position))

    def _send(self, now: float) -> float:
        course = self._course
        missed = self._canaries.missed(now, self._pace.patience)
        if missed is not None:
            self._redo(missed.position if missed.round == self._course.round else 0, now)
        if self.degraded and now - self._heard > _DEAD:
            self._ledger.mark(course.round, self._grid.size, self._grid.size)
            self._apart.check(())
            self.phase = "checks"
            return 0.0
        room = min(self._pace.allowance(now), self._engine.room, BATCH)
        if room <= 0:
            return max(_REST, min(_IDLE, self._pace.pause(now)))
        going = self._pace.going(now)
        probe = self._canaries.due(now, going, course.round, course.position, lambda one: self._permit([one]))
        if probe is not None:
            room -= 1
        batch = course.next(room)
        if not batch and course.over:
            self._canaries.close(now)
            if probe is not None:
                self._send_apart([probe], now)
            self.phase, self._until = "waiting", now + max(gap(course.round + 1), self._pace.patience)
            return _IDLE
        # A canary fares as any other probe only if it has no place of its own among them.
        if probe is not None:
            before = self._sent % (len(batch) + 1)
            self._dispatch(batch[:before], now)
            self._send_apart([probe], now)
            batch = batch[before:]
        self._dispatch(batch, now)
        if course.held or not self._engine.room:  # others have to be waited for
            return _REST
        pause = self._pace.pause(now)
        return max(_REST, min(_IDLE, pause)) if pause > 0.0 else 0.0

    def _dispatch(self, batch: list[tuple[int, int]], now: float) -> None:
        probes = [self._grid.probe(number) for _, number in batch]
        allowed = self._permit(probes) if probes else ()
        states = self._states
        # First what is told to a successor, then the packet: one that was sent and not written down would be lost.
        course = self._course
        self._ledger.mark(course.round, course.settled, course.cursor)
        for at in allowed:
            states[batch[at][1]] += 1
        taken = self._engine.send([probes[at] for at in allowed], now) if allowed else 0
        for at in allowed[taken:]:
            states[batch[at][1]] -= 1
        window = self._pace.sent(taken, now)
        self._pace.charge(sum(self._packets(probes[at][1]) - 1 for at in allowed[:taken]))
        for at in allowed[:taken]:
            self._windows[batch[at][1]] = window
        self._sent += taken
        gone = frozenset(allowed[:taken])
        course.sent(now, [one for at, one in enumerate(batch) if at not in gone])

    def _send_apart(self, probes: Sequence[Probe], now: float) -> int:
        """Send these, which ``permit`` lets go. Returns how many were taken."""
        taken = self._engine.send(probes, now)
        self._pace.charge(sum(self._packets(port) for _, port in probes[:taken]))
        self._sent += taken
        return taken

    def _ask_apart(self, now: float) -> float:
        """Ask what is asked by itself: canaries before and after, odd ports of who seems to be open everywhere."""
        apart = self._apart
        if due := apart.asking.due(now):
            due = due[: max(0, min(self._pace.allowance(now), self._engine.room, BATCH))]
            permitted = [due[at] for at in self._permit(due)] if due else []
            taken = self._send_apart(permitted, now) if permitted else 0
            apart.asking.asked(permitted[:taken], now, max(self._pace.patience, gap(1)))
            return max(_REST, min(_IDLE, self._pace.pause(now)))
        if not apart.asking.over(now):
            return _IDLE
        alive = self._canaries.alive
        match self.phase:
            case "start":
                self._canaries.alive, self.phase = apart.begun(), "sending"
            case "checks":
                self.everything, self.phase = apart.checked(alive, anybody=self._answered > 0), "end"
            case _:
                apart.ended(alive)
                self.phase = "done"
        return 0.0

    def _wait(self, now: float) -> float:
        """The round is over when nothing of it can be answered any more."""
        missed = self._canaries.missed(now, self._pace.patience)
        if missed is not None:
            self._redo(missed.position if missed.round == self._course.round else 0, now)
            return 0.0
        under_way = now < self._until or self._canaries.pending or self._engine.waiting
        if self._answered + self._skipped < self._grid.size and under_way:
            return _IDLE
        self._review = review(
            self._grid,
            self._ledger,
            self._finished,
            attempts=self._course.round + 1,
            retries=self._retries,
            elsewhere=self.loss,
            patient=self._patient,
        )
        self.phase = "review"
        return 0.0

    def _decide(self, now: float) -> None:
        self._misses = 0
        if not all(self._finished):
            self._course.begin(self._course.round + 1)
            self._ledger.mark(self._course.round, 0, 0)
            self._pace.renew(now, self.loss)
            self.phase = "sending"
            return
        self._ledger.mark(self._course.round, self._grid.size, self._grid.size)
        suspects = [
            [(place, port) for port in unlikely(self._seed, place)]
            for place, count in enumerate(self._opens)
            if suspicious(count, self._grid.width)
        ]
        # By turns, so that none has to wait for the limit of another.
        self._apart.check([probe for each in zip(*suspects, strict=True) for probe in each])
        self.phase = "checks"

    def _redo(self, position: int, now: float) -> None:
        """The canaries were not seen: go slower, and ask again whatever was not answered since."""
        self._misses += 1
        if self._misses > _STUBBORN and (self._pace.rate <= FLOOR or self._misses > 3 * _STUBBORN):
            self.degraded = self.degraded or "open ports stopped answering while it ran, however slowly it was asked"
            self._canaries.alive = []
            self._retries, self._heard = 0, now  # nobody's silence is believed any more
            return
        self.redone += 1
        self._pace.halve()
        course = self._course
        self._ledger.mark(course.round, min(course.settled, position), course.cursor)
        course.take_back(position, course.cursor)
        self.phase = "sending"

    def progress(self, now: float) -> Progress:
        """How far it is."""
        size = self._grid.size
        unanswered = size - self._answered - self._skipped
        position = self._course.position if self.phase in ("start", "sending") else size
        rest = ahead(size, position, unanswered, first=not self._course.round, again=self._retries > 0)
        rate = self._pace.measured(now)
        left = rest / max(1.0, rate or self._pace.rate) + self._pace.patience
        self._furthest = max(self._furthest, 1.0 if self.done else fraction(now - self._began, left))
        return Progress(
            self._furthest,
            self._answered,
            self.open,
            rate,
            measured(self._attempts),
            0.0 if self.done else left,
            self._sent,
        )
