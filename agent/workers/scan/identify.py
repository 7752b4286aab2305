"""Phase 2 of a scan: what listens on the open ports that a sweep found.

Each open TCP port is first asked by ourselves whether it speaks at all (``speak``). Those that do are handed to nmap,
several runs at a time (``detect``); those that do not are held back, and handed to it once in a long while. What nmap
says of a host is taken as soon as it has said it, so that whatever ends this loses nothing of it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from agent.errors import ScanFailure
from agent.workers.scan.argv import ask_argv, target_list
from agent.workers.scan.detect import PortKey, Stage, Task, askable, at_length, better, halves, settled, tasks, unknown
from agent.workers.scan.found import Host, Port, Script
from agent.workers.scan.nmap import SILENCE, run_nmap
from agent.workers.scan.program import Program, ScriptFile
from agent.workers.scan.results import given_as, read_host
from agent.workers.scan.speak import How, look
from agent.workers.scan.stream import XmlStream

PROCESSES: Final = 4
"""Runs of nmap at the same time. One of them does no slow work, so that there is always a way past it."""

BATCH_HOSTS: Final = 64
BATCH_PORTS: Final = 512
"""Most hosts, and about as many ports, of one look."""

EARLY: Final = 1.5
"""Seconds after which nmap gets the ports that have spoken, so that it need not wait for the silent ones."""

UNDERWAY: Final = 96
"""Hosts begun and not done at which no more are begun."""

SLOW_HOSTS: Final = 8
"""Hosts whose silent ports are handed to nmap in one go; the others' turn comes the next time."""

LARGEST: Final = 4 * 1024 * 1024
"""Bytes that one run of nmap may say of one host."""

Clock = Literal["new", "due", "held"]
"""Of a port on which nobody learned what it is: ``new`` is one of which that is not known yet, ``due`` may be asked at
length again, ``held`` may not."""


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


@dataclass(frozen=True, slots=True)
class Held:
    """A port on which nobody learned what it is: it said nothing (``silent``) or nothing that nmap knows.

    ``tried``: nmap asked it at length just now, so that its clock starts anew.
    """

    protocol: str
    number: int
    silent: bool
    tried: bool


@dataclass(frozen=True, slots=True)
class Identified:
    """A host and all that was learned of it. ``held`` are the ports to ask seldom: all others need no clock any more.

    ``raw`` are the bytes of what nmap said, an element of its XML each. ``complete`` is false when this was broken off
    before all was asked.
    """

    host: Host
    held: tuple[Held, ...]
    raw: tuple[bytes, ...]
    complete: bool


@dataclass(slots=True)
class Progress:
    """How far it is: hosts and open ports in all, those done, and runs of nmap that are under way."""

    hosts: int = 0
    hosts_done: int = 0
    ports: int = 0
    ports_done: int = 0
    running: int = 0
    nmap_version: str = ""


Redo = Callable[[Callable[[], Coroutine[Any, Any, None]]], Awaitable[None]]


async def _once(make: Callable[[], Coroutine[Any, Any, None]]) -> None:
    await make()


CONNECTIONS: Final = {"light": 8}
CONNECTIONS_AT_LENGTH: Final = 30
"""Connections that nmap opens at most, or nearly, to a port that it asks in a stage. Measured: it waits 5 s or more for
each, and for one silent port in all 41 s with ``--version-light``, 157 s without."""


async def _free(_address: str) -> None:
    """No limit."""


def _unpaid(_addresses: Sequence[str], _each: int) -> None:
    """No account."""


async def identify(
    hosts: Sequence[Host],
    want: Want,
    program: Program,
    *,
    on_host: Callable[[Identified], None],
    clock: Callable[[str, str, int], Clock] = lambda address, protocol, number: "new",
    permit: Callable[[str], Awaitable[None]] = _free,
    charge: Callable[[Sequence[str], int], None] = _unpaid,
    redo: Redo = _once,
    turn: Callable[[Progress], None] = lambda progress: None,
    turn_every: float = 0.5,
) -> Progress:
    """Identify the services of ``hosts``, whose open ports are known.

    ``on_host`` is called once for each host, as soon as all is known of it; when this is broken off, also for those of
    which something is. ``clock`` tells of the ports that an earlier ``held`` named. ``permit`` is awaited before each
    connection to an address, and ``charge`` called before each run of nmap with its addresses and how many connections
    it may make to each. ``redo`` runs what it is given and may cancel it and do it again; what nmap had told then
    is not asked again. ``turn`` is called every ``turn_every`` seconds.

    Raises ``ScanFailure`` when nmap fails, hangs, or cannot be trusted, and whatever the callbacks raise.
    """
    work = _Identification(hosts, want, program, on_host, clock, permit, charge, redo)
    try:
        async with asyncio.TaskGroup() as group:
            ticking = group.create_task(_tick(lambda: turn(work.progress), turn_every))
            async with asyncio.TaskGroup() as working:
                working.create_task(work.begin_all())
                for number in range(work.processes):
                    working.create_task(work.run_all(past_slow=number == 0 and work.processes > 1))
            ticking.cancel()
    except BaseExceptionGroup as failed:
        raise _first(failed) from failed
    finally:
        work.break_off()
    return work.progress


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """One failure ends all; those that came of it are told by nobody."""
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


async def _tick(turn: Callable[[], None], every: float) -> None:
    while True:
        turn()
        await asyncio.sleep(every)


@dataclass(slots=True)
class _Knowledge:
    """What is known of one host, and for what it waits: the look at it, and runs of nmap, light ones or any."""

    host: Host
    wanted: frozenset[PortKey]
    waiting: int = 1
    light: int = 1
    planned: set[PortKey] = field(default_factory=set)
    ports: dict[PortKey, Port] = field(default_factory=dict)
    remarks: dict[PortKey, str] = field(default_factory=dict)
    silent: set[PortKey] = field(default_factory=set)
    tried: set[PortKey] = field(default_factory=set)
    given_up: set[PortKey] = field(default_factory=set)
    raw: list[bytes] = field(default_factory=list)
    system: tuple[str, ...] = ()
    scripts: tuple[Script, ...] = ()

    def identified(self, *, complete: bool) -> Identified:
        ports, remarks = dict(self.ports), dict(self.remarks)
        nothing = self.given_up | {key for key in self.wanted - self.silent if key in ports and unknown(ports[key])}
        for key in self.silent:
            if key in ports and not unknown(ports[key]):
                continue  # nmap got a word out of it
            remarks[key] = "says nothing"
            nothing.add(key)
            ports.pop(key, None)
        held = (Held(*key, silent=key in self.silent, tried=key in self.tried) for key in sorted(nothing))
        host = settled(self.host, ports, remarks, system=self.system, scripts=self.scripts)
        return Identified(host, tuple(held), tuple(self.raw), complete)


class _Identification:
    def __init__(
        self,
        hosts: Sequence[Host],
        want: Want,
        program: Program,
        on_host: Callable[[Identified], None],
        clock: Callable[[str, str, int], Clock],
        permit: Callable[[str], Awaitable[None]],
        charge: Callable[[Sequence[str], int], None],
        redo: Redo,
    ) -> None:
        self._hosts = hosts
        self._want = want
        self._program = program
        self._on_host = on_host
        self._clock = clock
        self._permit = permit
        self._charge = charge
        self._redo = redo
        self._known: dict[str, _Knowledge] = {}
        self._quick: deque[Task] = deque()
        self._slow: deque[Task] = deque()
        self._slow_left = SLOW_HOSTS
        self._changed = asyncio.Event()
        self._all_begun = False
        files = [script.path for script in ((want.certificates,) if want.certificates else ()) + want.scripts]
        self._files = tuple(dict.fromkeys(files))
        self.processes = max(1, min(want.processes, want.rate))  # each sends a packet a second at least
        self._named = frozenset(script.name for script in want.scripts)
        self.progress = Progress(hosts=len(hosts), ports=sum(len(askable(host)) for host in hosts))

    async def begin_all(self) -> None:
        """Look at the ports of one batch of hosts after the other, and say what nmap is to do about them."""
        for batch in _batches(self._hosts):
            await self._until(lambda: len(self._known) < UNDERWAY)
            for host in batch:
                self._known[host.address] = _Knowledge(host, frozenset(askable(host)))
            heard: dict[str, dict[int, How]] = {host.address: {} for host in batch}
            asked = {host.address: [number for kind, number in askable(host) if kind == "tcp"] for host in batch}
            async with asyncio.TaskGroup() as group:
                looking = group.create_task(look(asked, permit=self._permit, into=heard))
                await asyncio.wait({looking}, timeout=EARLY)
                self._hand_over(batch, heard)
            self._hand_over(batch, heard)
            for host in batch:
                self._done("light", host.address)  # the look, for which each has waited too
        self._all_begun = True
        self._changed.set()

    async def run_all(self, *, past_slow: bool) -> None:
        """Do what there is to do until nothing is left; with ``past_slow`` only what is quick."""

        def at_hand() -> bool:
            return bool(self._quick or (self._slow and not past_slow))

        while True:
            await self._until(lambda: at_hand() or (self._all_begun and not self._known))
            if not at_hand():
                return
            await self._run(self._quick.popleft() if self._quick else self._slow.popleft())

    def break_off(self) -> None:
        """Hand out what is known of hosts that are not done."""
        for known in self._known.values():
            if known.ports:
                self._on_host(known.identified(complete=False))
        self._known.clear()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    def _hand_over(self, batch: Sequence[Host], heard: Mapping[str, Mapping[int, How]]) -> None:
        """Plan the runs for ports of which it is known by now whether they speak."""
        light: dict[str, list[PortKey]] = {}
        slow: dict[str, list[PortKey]] = {}
        for host in batch:
            known = self._known[host.address]
            for key in sorted(known.wanted - known.planned):
                how = heard[host.address].get(key[1]) if key[0] == "tcp" else "protocol"
                if how is None:
                    continue
                known.planned.add(key)
                if how == "unreachable":
                    known.remarks[key] = "takes no connection now"
                elif how == "nothing":
                    known.silent.add(key)
                    if self._clock(host.address, *key) == "due":
                        slow.setdefault(host.address, []).append(key)
                elif key[0] == "udp" and not self._program.privileged:
                    known.remarks[key] = "what it is can be asked with CAP_NET_RAW only"
                else:
                    light.setdefault(host.address, []).append(key)
        chosen = dict(list(slow.items())[: self._slow_left])
        self._slow_left -= len(chosen)
        system = {host.address: host for host in batch} if self._want.system and self._program.privileged else None
        self._add(tasks("light", light, scripts=self._files, beside=system))
        self._add(tasks("slow", chosen))

    def _add(self, made: Iterable[Task], *, quick: bool = True) -> None:
        for task in made:
            (self._quick if quick and task.stage == "light" else self._slow).append(task)
            for address in task.addresses:
                self._known[address].waiting += 1
                self._known[address].light += task.stage == "light"
        self._changed.set()

    async def _run(self, task: Task) -> None:
        """One run of nmap, and what follows from it for each host as it is told."""
        left = dict.fromkeys(task.addresses)

        def take(host: Host, element: bytes) -> None:
            if host.address in left:  # nobody is told of twice
                del left[host.address]
                self._learn(task.stage, host, element)

        self.progress.running += 1
        too_long = False
        try:
            await self._redo(lambda: self._ask(task, tuple(left), take))
        except TimeoutError:
            too_long = True
        finally:
            self.progress.running -= 1
        if too_long:
            self._part(task, tuple(left))
        for address in left:  # nmap had nothing to say of it, or too much
            self._done(task.stage, address)

    def _part(self, task: Task, left: tuple[str, ...]) -> None:
        """A run took too long: its halves are done instead, among what is slow; a port alone is given up."""
        instead = halves(task, left)
        self._add(instead, quick=False)
        if not instead:
            for address in left:
                known = self._known[address]
                for key in known.wanted.intersection(task.ports):
                    known.remarks[key] = f"nmap was not through with it after {task.limit:.0f} s"
                    known.tried.add(key)
                    known.given_up.add(key)

    async def _ask(self, task: Task, addresses: tuple[str, ...], take: Callable[[Host, bytes], None]) -> None:
        if not addresses:
            return
        given = given_as(addresses)
        self._charge(addresses, len(task.ports) * CONNECTIONS.get(task.stage, CONNECTIONS_AT_LENGTH))
        program, rate = self._program, max(1, self._want.rate // self.processes)
        stream = XmlStream(
            stages=task.ask.stages, on_host=lambda element: take(read_host(element, given), element), limit=LARGEST
        )
        try:
            async with asyncio.timeout(task.limit):
                verdict = await run_nmap(
                    lambda fd: ask_argv(
                        task.ask, nmap=program.path, rate=rate, privileged=program.privileged, targets=fd
                    ),
                    program.environment,
                    target_list(addresses),
                    capabilities=program.capabilities,
                    hosts=len(addresses),
                    stream=stream,
                    turn=lambda: None,
                    turn_every=min(1.0, task.limit / 8),
                    # Who reports every second is at work, however long: that is what the limit is for.
                    silence=min(SILENCE, 0.75 * task.limit),
                )
        except ScanFailure as error:
            others = f" and {len(addresses) - 1} more" if len(addresses) > 1 else ""
            raise ScanFailure(f"services of {addresses[0]}{others}: {error}") from error
        self.progress.nmap_version = verdict.version

    def _learn(self, stage: Stage, host: Host, element: bytes) -> None:
        known = self._known[host.address]
        known.raw.append(element)
        for port in host.ports:
            if port.key in known.wanted:
                kept = tuple(script for script in port.scripts if script.name in self._named)
                known.ports[port.key] = better(known.ports.get(port.key), replace(port, scripts=kept))
                if stage != "light":
                    known.tried.add(port.key)
        known.system = host.os or known.system
        known.scripts = host.scripts or known.scripts
        self._done(stage, host.address)

    def _done(self, stage: Stage, address: str) -> None:
        """A run is through with an address. What the light ones did not recognise is then asked at length."""
        known = self._known[address]
        known.waiting -= 1
        if stage == "light":
            known.light -= 1
            if not known.light:
                again = [
                    key
                    for key, port in known.ports.items()
                    if key not in known.silent and unknown(port) and self._clock(address, *key) != "held"
                ]
                self._add(at_length(address, again))
        self._settle(address)

    def _settle(self, address: str) -> None:
        known = self._known[address]
        if known.waiting:
            return
        del self._known[address]
        self.progress.hosts_done += 1
        self.progress.ports_done += len(known.wanted)
        self._changed.set()
        self._on_host(known.identified(complete=True))


def _batches(hosts: Sequence[Host]) -> Iterator[list[Host]]:
    batch: list[Host] = []
    ports = 0
    for host in hosts:
        batch.append(host)
        ports += len(askable(host))
        if len(batch) == BATCH_HOSTS or ports >= BATCH_PORTS:
            yield batch
            batch, ports = [], 0
    if batch:
        yield batch
