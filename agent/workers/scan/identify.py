"""Phase 2 of a scan: what listens on the open ports that a sweep found.

Hosts are taken up one by one as the sweep finds them, beside it. Each open TCP port is first asked by ourselves whether
it speaks at all (``speak``). Those that do are handed to nmap, several runs at a time (``detect``); those that do not
are held back, and handed to it once in a long while. What is learned of a host is noted as soon as it is
(``notebook``), so that whatever ends this loses nothing of it, and no host waits for another.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from agent.errors import ScanFailure, StorageFailure, first_failure
from agent.workers.scan.asking import FREE, Leave, ask
from agent.workers.scan.detect import USUAL, Stage, Task, affordable, at_length, parts, tasks
from agent.workers.scan.found import Host
from agent.workers.scan.knowledge import Due, Identified, Knowledge
from agent.workers.scan.notebook import Before, Heard, Notebook
from agent.workers.scan.program import Program, ScriptFile
from agent.workers.scan.results import given_as, read_host
from agent.workers.scan.speak import How, look, room_for_ports

PROCESSES: Final = 4
"""Runs of nmap at the same time. One of them does no slow work, so that there is always a way past it."""

EARLY: Final = 1.5
"""Seconds after which nmap gets the ports that have spoken, so that it need not wait for the silent ones."""

LINGER: Final = 0.4
"""Seconds for which ports wait for others like them, to be asked together."""

UNDERWAY: Final = 96
"""Most hosts begun and not done."""

SLOW_HOSTS: Final = 8
"""Hosts whose silent ports are handed to nmap in one scan; the others' turn comes the next time."""


OVERDUE: Final = 16
"""Runs at one host that may take too long. One such port among ``detect.GROUP_PORTS`` is found by nine of them; where
nearly all are like that, to ask each by itself would take hours."""


@dataclass(frozen=True, slots=True)
class Want:
    """What is to be found out. ``rate`` is in packets per second for all runs of nmap together.

    ``certificates`` is nmap's script for them, ``scripts`` are others whose words are kept; ``system`` also guesses
    operating systems, where raw packets may be sent.
    """

    rate: int
    certificates: ScriptFile | None = None
    scripts: tuple[ScriptFile, ...] = ()
    system: bool = False
    processes: int = PROCESSES


@dataclass(slots=True)
class Progress:
    """How far it is: hosts that are done; ``partly`` is what is done of those that are not, each counting from 0 to 1.
    ``left`` is in seconds: what is at hand takes that long, usually."""

    hosts_done: int = 0
    partly: float = 0.0
    left: float = 0.0
    nmap_version: str = ""


Source = Callable[[int, Collection[str]], Sequence[Host]]
"""``source(most, underway)`` gives the next hosts, up to so many, none of which is under way, or none for now."""


class Identification:
    """``run`` it, tell it when there is ``more`` to take from the source, and at last to ``finish``."""

    def __init__(
        self,
        source: Source,
        want: Want,
        program: Program,
        *,
        on_host: Callable[[Identified], None],
        clock: Callable[[str, str, int], Due] = lambda address, protocol, number: "new",
        leave: Leave = FREE,
        notes: Notebook | None = None,
        slow: Collection[str] | None = None,
        turn: Callable[[], None] = lambda: None,
        turn_every: float = 0.5,
    ) -> None:
        """``on_host`` is called once for each host, as soon as all is known of it; when this is broken off, also for
        those of which something is. ``clock`` tells of the ports that an earlier ``held`` named. ``notes`` are those of
        an earlier part of the same run. ``slow``: the addresses whose silent ports may be asked at length, if they are
        due; without it those of the first ``SLOW_HOSTS``. ``turn`` is called every ``turn_every`` seconds.
        """
        self._source = source
        self._want = want
        self._program = program
        self._on_host = on_host
        self._clock = clock
        self._leave = leave
        self._notes = notes
        self._turn = turn
        self._turn_every = turn_every
        self._known: dict[str, Knowledge] = {}
        self._ready: dict[str, list[tuple[str, int]]] = {}
        self._unrecognised: dict[str, list[tuple[str, int]]] = {}
        self._ripe = False
        self._timer: asyncio.TimerHandle | None = None
        self._quick: deque[Task] = deque()
        self._slow: deque[Task] = deque()
        self._slow_left = SLOW_HOSTS
        self._slow_hosts = slow
        self._overdue: Counter[str] = Counter()
        self._changed = asyncio.Event()
        self._more = True
        self._finished = False
        self._room = room_for_ports()
        files = [script.path for script in ((want.certificates,) if want.certificates else ()) + want.scripts]
        self._files = tuple(dict.fromkeys(files))
        self._processes = max(1, min(want.processes, want.rate))  # each sends a packet a second at least
        self._rate = max(1, want.rate // self._processes)
        self._named = frozenset(script.name for script in want.scripts)
        self._progress = Progress()
        self._until_usual: dict[int, float] = {}

    @property
    def progress(self) -> Progress:
        """As of now."""
        now = time.monotonic()
        waiting = sum(USUAL[task.stage] for task in (*self._quick, *self._slow)) / self._processes
        self._progress.left = waiting + max((until - now for until in self._until_usual.values()), default=0.0)
        self._progress.partly = sum(known.share for known in self._known.values())
        return self._progress

    def more(self) -> None:
        """The source may have more."""
        self._more = True
        self._changed.set()

    def finish(self) -> None:
        """The source will never have more than it has now."""
        self._finished = True
        self.more()

    async def run(self) -> None:
        """Identify all that there is, until it is to finish and has.

        Raises ``ScanFailure`` when nmap fails, hangs, or cannot be trusted, and whatever the callbacks raise.
        """
        try:
            async with asyncio.TaskGroup() as group:
                ticking = group.create_task(self._tick())
                async with asyncio.TaskGroup() as working:
                    working.create_task(self._take_up(working))
                    for number in range(self._processes):
                        working.create_task(self._run_all(past_slow=number == 0 and self._processes > 1))
                ticking.cancel()
        except BaseExceptionGroup as failed:
            self._break_off()
            raise first_failure(failed) from failed
        except BaseException:
            self._break_off()
            raise
        finally:
            if self._timer is not None:
                self._timer.cancel()

    async def _tick(self) -> None:
        while True:
            self._turn()
            await asyncio.sleep(self._turn_every)

    def _break_off(self) -> None:
        """Hand out what is known of hosts that are not done. That it cannot be stored is not why this ends, and must
        not seem so: an order to stop is none to fail. It is in the notes as well."""
        with suppress(StorageFailure):
            for known in self._known.values():
                if known.ports:
                    self._on_host(known.identified(complete=False))
        self._known.clear()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    async def _take_up(self, working: asyncio.TaskGroup) -> None:
        """Begin with hosts while there are any, and no more at a time than may be."""
        while True:
            await self._until(lambda: self._more and len(self._known) < UNDERWAY)
            hosts = self._source(UNDERWAY - len(self._known), self._known)
            for host in hosts:
                known = self._known[host.address] = self._recall(host)
                working.create_task(self._listen(known))
            if not hosts:
                self._more = False
                if self._finished:
                    self._changed.set()
                    return

    def _recall(self, host: Host) -> Knowledge:
        """What an earlier part of this run learned of a host."""
        known = Knowledge(host, udp=self._program.privileged)
        for fact in self._notes.read(host.address) if self._notes else ():
            if isinstance(fact, Heard):
                known.heard["tcp", fact.port] = fact.how
            elif isinstance(fact, Before):
                known.leave_out(fact.keys)
            elif fact.given_up:
                known.give_up(fact.stage, fact.keys, fact.given_up)
            else:
                with suppress(ScanFailure):  # it is a file, after all: what cannot be read is asked again
                    said = read_host(fact.element, given_as((host.address,))) if fact.element else None
                    known.told(fact.stage, fact.keys, said, fact.element, self._named)
        return known

    async def _listen(self, known: Knowledge) -> None:
        """Find out which ports of a host speak, and have nmap asked about those."""
        address = known.host.address

        def heard(address: str, port: int, how: How) -> None:
            known.heard["tcp", port] = how
            if self._notes:
                self._notes.heard(address, port, how)

        async def missing() -> None:
            permit, rate = self._leave.permit, self._leave.target_rate
            await look({address: known.to_hear}, permit=permit, heard=heard, room=self._room, rate=rate)

        if known.to_hear:
            async with asyncio.TaskGroup() as group:
                looking = group.create_task(self._leave.redo(missing))
                while not looking.done():
                    await asyncio.wait({looking}, timeout=EARLY)
                    self._go_on(known)
        known.looked = True
        self._go_on(known)

    def _go_on(self, known: Knowledge) -> None:
        """Do what follows from what is known of a host."""
        address = known.host.address
        patient = self._slow_left > 0 if self._slow_hosts is None else address in self._slow_hosts
        new = known.plan(self._clock, slow=patient)
        if new.light:
            self._ready.setdefault(address, []).extend(new.light)
        if new.deep:
            self._unrecognised.setdefault(address, []).extend(new.deep)
        if (new.light or new.deep) and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LINGER, self._ripen)
        self._slow.extend(self._light({address: new.odd}) if new.odd else ())
        if new.slow:
            self._slow_left -= 1
            self._slow.extend(tasks("slow", {address: new.slow}, most_ports=self._affordable("slow")))
        if known.done and self._known.pop(address, None) is not None:
            self._progress.hosts_done += 1
            self._on_host(known.identified(complete=True))
            if self._notes:
                self._notes.forget(address)
        self._changed.set()

    def _ripen(self) -> None:
        self._timer, self._ripe = None, bool(self._ready)
        self._slow.extend(at_length(self._unrecognised, most_ports=self._affordable("deep")))
        self._unrecognised = {}
        self._changed.set()

    def _light(self, wanted: dict[str, list[tuple[str, int]]]) -> Iterable[Task]:
        system = self._want.system and self._program.privileged
        made: list[Task] = []
        for more in (False, True):  # of whose system is known what there is to know
            some = {address: keys for address, keys in wanted.items() if bool(self._known[address].before) == more}
            hosts = {address: self._known[address].host for address in some} if system and not more else None
            made += tasks("light", some, scripts=self._files, beside=hosts, most_ports=self._affordable("light"))
        return made

    def _affordable(self, stage: Stage) -> int:
        return affordable(stage, self._leave.target_rate)

    async def _run_all(self, *, past_slow: bool) -> None:
        """Do what there is to do until nothing is left; with ``past_slow`` only what is quick."""

        def at_hand() -> bool:
            return bool(self._quick or self._ripe or (self._slow and not past_slow))

        def all_done() -> bool:
            return self._finished and not self._more and not self._known

        while True:
            await self._until(lambda: at_hand() or all_done())
            if not at_hand():
                return
            if not self._quick and self._ripe:
                self._quick.extend(self._light(self._ready))
                self._ready, self._ripe = {}, False
            await self._run(self._quick.popleft() if self._quick else self._slow.popleft())

    async def _run(self, task: Task) -> None:
        """One run of nmap, and what follows from it for each host as it is told."""
        left = dict.fromkeys(task.addresses)

        def take(host: Host, element: bytes) -> None:
            if host.address in left:  # nobody is told of twice
                del left[host.address]
                self._learn(task, host.address, host, element)

        async def rest() -> None:
            if left:
                version = await ask(task, tuple(left), self._program, self._leave, rate=self._rate, take=take)
                self._progress.nmap_version = version

        self._until_usual[id(left)] = time.monotonic() + USUAL[task.stage]
        try:
            await self._leave.redo(rest)
        except TimeoutError:
            self._part(task, tuple(left))
        else:
            for address in tuple(left):  # nmap had nothing to say of it
                self._learn(task, address, None, b"")
        finally:
            del self._until_usual[id(left)]

    def _learn(self, task: Task, address: str, host: Host | None, element: bytes) -> None:
        known = self._known[address]
        if self._notes:
            self._notes.told(address, task.stage, task.ports, element)
        known.told(task.stage, task.ports, host, element, self._named)
        self._go_on(known)

    def _part(self, task: Task, left: tuple[str, ...]) -> None:
        """A run took too long: parts of it are done instead, among what is slow; a port alone is given up, and all that
        is left of a host with which that has happened too often."""
        instead = parts(task, left)
        if len(left) == 1:
            self._overdue[left[0]] += 1
            if self._overdue[left[0]] > OVERDUE:
                instead = ()
                dropped = [one for one in self._slow if one.addresses == left]
                self._slow = deque(one for one in self._slow if one.addresses != left)
                for one in dropped:
                    self._give_up(one, left[0])
        self._slow.extend(instead)
        self._changed.set()
        if instead:
            return
        for address in left:
            self._give_up(task, address)
            self._go_on(self._known[address])

    def _give_up(self, task: Task, address: str) -> None:
        known, why = self._known[address], f"nmap was not through with it after {task.limit:.0f} s"
        if self._notes:
            self._notes.told(address, task.stage, task.ports, given_up=why)
        known.give_up(task.stage, [key for key in task.ports if key in known.wanted], why)
