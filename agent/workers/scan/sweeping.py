"""The sweep of one chunk in the worker's own loop: which engine asks, who turns it, and what becomes of it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agent.errors import ScanFailure, StorageFailure
from agent.linux.capability_sets import NET_RAW, mask, parse_sets
from agent.linux.files import open_regular, why
from agent.workers.scan.advance import Progress
from agent.workers.scan.allowed import Allowed
from agent.workers.scan.blind import Witness
from agent.workers.scan.budget_file import Budget
from agent.workers.scan.connect import ConnectEngine
from agent.workers.scan.engine import Engine, Probe
from agent.workers.scan.found import Host
from agent.workers.scan.grid import Grid
from agent.workers.scan.ledger import Ledger
from agent.workers.scan.outcome import outcome
from agent.workers.scan.pace import FIRST, Pace
from agent.workers.scan.pausing import Gate
from agent.workers.scan.payloads import questions
from agent.workers.scan.spans import Ranges
from agent.workers.scan.store import RESUME_WITHIN
from agent.workers.scan.sweep import Sweep, single
from agent.workers.scan.syn import SynEngine
from agent.workers.scan.udp import UdpEngine

Kind = Literal["connect", "syn", "udp"]


def protocol_of(kind: Kind) -> Literal["tcp", "udp"]:
    """What is asked in this way."""
    return "udp" if kind == "udp" else "tcp"


_NOTES = "sweep-degraded.txt"
_ENOUGH = 0.005  # seconds of turns without a break: longer would keep others in this loop waiting


@dataclass(frozen=True, slots=True)
class Question:
    """What one sweep asks. ``present`` are those of ``addresses`` that are asked; of the others it is known that nobody
    is there. ``None``: all of them. A chunk that was begun before goes on with those of then. ``patient`` as in
    ``Sweep``."""

    addresses: tuple[str, ...]
    ports: Ranges
    present: Collection[str] | None = None
    patient: bool = False


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep came to. ``everything`` are the addresses that say open to everything, ``lost`` is from 0 to 1,
    ``None`` where nobody answered of whom it could be measured.

    ``degraded``: why nothing of it is all there is, one line, empty when it may be. ``witnesses``: how its canaries
    fared, by address.
    """

    hosts: tuple[Host, ...]
    degraded: str
    everything: frozenset[str]
    sent: int
    answered: int
    lost: float | None
    witnesses: Mapping[str, list[Witness]]


class Sweeper:
    """Sweeps chunks for one run. ``identity`` gives, for the number of a chunk, what decides its order, and whether
    what was begun of it can be continued: of the plan, the seed of the run and this number (``Plan.piece``)."""

    def __init__(
        self,
        directory: Path,
        identity: Callable[[int], str],
        *,
        rate: float,
        retries: int,
        allowed: Allowed,
        budget: Budget,
        gate: Gate,
        log: Callable[[str], None],
    ) -> None:
        self._directory = directory
        self._identity = identity
        self._rate = rate
        self._retries = retries
        self._allowed = allowed
        self._budget = budget
        self._gate = gate
        self._log = log
        self._learned = 0.0

    def begun(self, number: int) -> bool:
        """Whether something is known of this chunk already."""
        return any(os.path.lexists(self._path(number, kind)) for kind in ("tcp", "udp"))

    def discard(self, *, notes: bool = True) -> None:
        """Forget everything that was left of chunks, and ``notes``: why it is degraded. Raises ``StorageFailure``."""
        try:
            left = [path for path in self._directory.iterdir() if path.name.startswith("sweep-")]
        except FileNotFoundError:
            return
        except OSError as error:
            raise StorageFailure(f"{self._directory}: cannot be looked into: {why(error)}") from error
        for path in left:
            if notes or path.name != _NOTES:
                _remove(path)

    def forget(self, number: int) -> None:
        """Forget a chunk: what it told is stored elsewhere. Raises ``StorageFailure``."""
        for kind in ("tcp", "udp"):
            _remove(self._path(number, kind))

    def note(self, reason: str) -> None:
        """Remember, for whoever continues this run, why it is degraded. Raises ``StorageFailure``."""
        path = self._directory / _NOTES
        try:
            with os.fdopen(open_regular(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640), "ab") as notes:
                notes.write(f"{reason}\n".encode())
        except OSError as error:
            raise StorageFailure(f"{path}: cannot be written: {why(error)}") from error

    def notes(self) -> list[str]:
        """What was noted. Raises ``StorageFailure``."""
        path = self._directory / _NOTES
        try:
            with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as notes:
                return notes.read(4096).decode("utf-8", "replace").splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StorageFailure(f"{path}: cannot be read: {why(error)}") from error

    def _path(self, number: int, kind: str) -> Path:
        return self._directory / f"sweep-{number}.{kind}"

    async def sweep(
        self,
        number: int,
        kind: Kind,
        question: Question,
        *,
        known: Iterable[tuple[str, int]] = (),
        turn: Callable[[Progress], None],
    ) -> Swept:
        """Sweep chunk ``number``, or what is left of it. ``known`` are ports at its addresses that were open before.

        ``turn`` gets how far it is, ten times a second. Raises ``ScanFailure``, ``StorageFailure``, and ``Ended`` once
        the run is to end. Whatever ends it, it can be continued.
        """
        self._allowed.check(question.addresses)
        protocol = protocol_of(kind)
        grid = Grid(protocol, question.addresses, question.ports)
        key = grid.key(self._identity(number))
        path = self._path(number, protocol)
        ledger = Ledger(path, key, grid.size, now=time.time(), within=RESUME_WITHIN)
        try:
            if ledger.discarded:
                self._log(f"{path}: {ledger.discarded}: this part of the scan is begun anew")
            if ledger.fresh and question.present is not None:
                for place, address in enumerate(grid.addresses):
                    if address not in question.present:
                        ledger.skip(place * grid.width, (place + 1) * grid.width)
            engine = make_engine(kind, grid.addresses)
            places = {address: place for place, address in enumerate(grid.addresses)}
            probes = [(places[address], port) for address, port in known]
            try:
                return await self._run(grid, ledger, engine, key, probes, question.patient, turn)
            finally:
                engine.close()
        finally:
            ledger.close()

    async def _run(
        self,
        grid: Grid,
        ledger: Ledger,
        engine: Engine,
        seed: bytes,
        known: Sequence[Probe],
        patient: bool,
        turn: Callable[[Progress], None],
    ) -> Swept:
        share = self._budget.of(grid.addresses)
        packets = questions if grid.protocol == "udp" else single

        def permit(probes: Sequence[Probe]) -> Sequence[int]:
            return share.take([place for place, _ in probes], [packets(port) for _, port in probes]).positions

        now = time.monotonic()
        # The next hosts are likely on the same path: it need not be learned from the bottom again.
        pace = Pace(self._rate, now, max(FIRST, self._learned / 2))
        sweep = Sweep(
            grid,
            ledger,
            engine,
            pace,
            now,
            seed=seed,
            retries=self._retries,
            patient=patient,
            known=known,
            permit=permit,
            packets=packets,
        )
        missed = 0

        def look() -> None:
            nonlocal missed
            turn(sweep.progress(time.monotonic()))
            if sweep.redone > missed:
                self._log(f"canaries are missed: what went unanswered is asked again, at {pace.rate:.0f} a second")
                missed = sweep.redone

        await drive(sweep, engine, self._gate, look)
        self._learned = pace.rate
        last = sweep.progress(time.monotonic())
        witnesses: dict[str, list[Witness]] = {}
        for (place, _), how in sweep.witnesses.items():
            witnesses.setdefault(grid.addresses[place], []).append(how)
        return Swept(
            tuple(outcome(grid, ledger, sweep.everything)),
            sweep.degraded or engine.trouble,
            frozenset(grid.addresses[place] for place in sweep.everything),
            last.sent,
            last.answered,
            last.lost,
            witnesses,
        )


def _remove(path: Path) -> None:
    """Of a link the link. Raises ``StorageFailure``."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StorageFailure(f"{path}: cannot be removed: {why(error)}") from error


def make_engine(kind: Kind, addresses: Sequence[str]) -> Engine:
    """Raises ``ScanFailure`` when this host cannot ask in this way."""
    try:
        match kind:
            case "connect":
                return ConnectEngine(addresses)
            case "syn":
                return SynEngine(addresses)
            case "udp":
                return UdpEngine(addresses)
    except PermissionError as error:
        raise ScanFailure(f'{kind}: CAP_NET_RAW is not held; engine = "connect" needs none') from error
    except OSError as error:
        raise ScanFailure(f"{kind}: ports cannot be asked: {error.strerror}") from error


def may_send_raw() -> bool:
    """Whether this process itself may open raw sockets."""
    return bool(parse_sets(Path("/proc/self/status").read_text("ascii", "replace")).effective & mask([NET_RAW]))


async def drive(sweep: Sweep, engine: Engine, gate: Gate, turn: Callable[[], None]) -> None:
    """Turn the sweep until it is done. ``turn`` is called ten times a second.

    Raises ``Ended`` once the run is to end, and what the engine raises. Whatever ends it, the ledger can be continued.
    """
    told = rested = time.monotonic()
    try:
        while not sweep.done:
            now = time.monotonic()
            delay = sweep.turn(now) if gate.look() else sweep.hold(now)
            if now - told >= 0.1:
                told = now
                turn()
            if delay > 0 or now - rested >= _ENOUGH:
                await asyncio.sleep(delay)
                rested = time.monotonic()
    finally:
        engine.forget()
