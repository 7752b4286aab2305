"""The watch's duty to know of drift: judges after each scan and at an interval, and tells what came and what went.

What stands is kept in ``spool/watch/drift.json``, so that a difference is told once, and not again after a restart.
Judging reads files, looks at sockets and may ask a name server, which takes a while: it is done in a thread, so that
the watch goes on beating. What is to be told is kept first, then told, then kept as told. Killed in between, the watch
tells it again under the same number. Whatever judging fails of, the other duties of the watch go on.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from agent.errors import AgentError, StorageFailure
from agent.paths import SCAN_MEMORY
from agent.workers.watch.duty import Teller, Turn

if TYPE_CHECKING:
    from agent.declaration.model import Watch
    from agent.workers.watch.drift_events import Told
    from agent.workers.watch.from_declaration import Names
    from agent.workers.watch.standing import Kept, Noticed, Standing

INTERVAL: Final = 60.0
"""Seconds from one judgement to the next, at least, while no scan ends."""

LOOK: Final = 1.0
"""Seconds from one look at whether a scan has ended to the next."""

SLOW: Final = 300.0
"""Seconds that a judgement may take until it is told that there is none."""

_SPARING = 50
"""So many times as long as it took is waited until the next judgement."""


_T = TypeVar("_T")


class _Round(NamedTuple):
    """What one judgement has come to."""

    standing: Standing
    noticed: Noticed
    told: list[Told]
    notes: list[str]
    figures: dict[str, int]


_Numbered = tuple[str, str, dict[str, Any]]


class DriftDuty:
    """A duty of the watch (``agent.workers.watch.worker``) whose directory is ``data`` on the host named ``server``."""

    def __init__(self, teller: Teller, service: Watch, data: Path, server: str = "") -> None:
        self._teller = teller
        self._service = service
        self._server = server
        self._data = data
        self._names: Names | None = None
        self._standing: Standing = {}
        self._noticed: Noticed = {}
        self._said: set[str] = set()
        self._last = 0
        self._untold: Sequence[_Numbered] = ()
        self._failure = ""
        self._broken = ""
        self._scans = [one.name for one in service.declared if one.kind == "scan"]
        self._looked: dict[str, tuple[int, int]] = {}
        self._ended: dict[str, tuple[object, ...]] = {}
        self._figures: dict[str, int] = {}

    async def start(self) -> None:
        """Take in what stood before. Raises ``StorageFailure`` when a newer version wrote it."""
        self._standing, self._noticed, self._last, self._untold = self._read()

    async def stop(self) -> None:
        """Nothing is held."""

    def status(self) -> str:
        """How many differences stand, or that nobody can tell."""
        if self._broken:
            return "drift cannot be judged"
        count = self._figures.get("drift")
        if count is None:
            return ""
        return f"{count} differences stand" if count != 1 else "1 difference stands"

    def figures(self) -> Mapping[str, int]:
        """How many there are, and of them how many so grave."""
        return self._figures

    async def run(self, turn: Turn) -> None:
        """Judge after each scan and at an interval, until it is cancelled."""
        again = 0.0
        while True:
            turn()
            now = time.monotonic()
            if self._has_scanned() or now >= again:
                await self._judge(turn)
                took = time.monotonic() - now
                again = now + took + max(INTERVAL, _SPARING * took)
            await asyncio.sleep(LOOK)

    async def _judge(self, turn: Callable[[], None]) -> None:
        """However long it takes, the other duties go on: what is judged may keep whoever looks at it waiting."""
        began = time.monotonic()
        judging = asyncio.ensure_future(self.judge())
        try:
            while not (await asyncio.wait({judging}, timeout=LOOK))[0]:
                turn()
                if time.monotonic() - began >= SLOW:
                    self._cannot(StorageFailure(f"it takes longer than {SLOW:.0f} s"))
        finally:
            judging.cancel()
        judging.result()

    async def judge(self) -> None:
        """Once: look at everything, and tell what has changed. A failure of it is told in one line of the log."""
        self._tell(self._untold)
        self._untold = ()
        try:
            done = await _aside(partial(self._round, self._standing, self._noticed))
        except Exception as error:  # what is judged is chosen by strangers
            self._cannot(error)
            return
        self._broken = ""
        self._standing, self._noticed, self._figures = done.standing, done.noticed, done.figures
        self._said &= {*done.notes, self._failure}
        for note in done.notes:
            self._note(note)
        told = self._numbered(done.told)
        if told:
            await self._keep(told)
        self._tell(told)
        await self._keep()

    def _numbered(self, told: Iterable[Told]) -> list[_Numbered]:
        """With numbers that go up, also when the file that knows the last was lost: by the clock, milliseconds."""
        numbered = []
        for kind, message, data in told:
            self._last = max(self._last + 1, int(time.time() * 1000))
            numbered.append((kind, message, {"change": self._last, **data}))
        return numbered

    def _tell(self, told: Iterable[_Numbered]) -> None:
        for kind, message, data in told:
            self._teller.event(kind, message, **data)

    def _cannot(self, error: Exception) -> None:
        said = str(error) if isinstance(error, AgentError) else f"{type(error).__name__}: {error}"
        self._broken = f"drift cannot be judged: {said}"
        self._note(self._broken)

    def _round(self, before: Standing, noticed: Noticed) -> _Round:
        """In a thread of its own: nothing of this object is changed, but the names it has resolved."""
        from agent.telemetry.kinds import DRIFT_SEVERITIES
        from agent.workers.watch import standing
        from agent.workers.watch.drift import judge
        from agent.workers.watch.drift_events import events
        from agent.workers.watch.from_declaration import Names
        from agent.workers.watch.gather import Watched, gather, stores

        self._names = self._names or Names()
        now = time.time()
        watched = Watched(self._service.expects, self._service.declared, self._server)
        stored = stores(self._data.parent)
        gathered = gather(watched, self._seen, now, names=self._names, noticed=noticed, stored=stored)
        judged = judge(gathered.sources, now)
        listening = gathered.sources.listening
        if listening is not None:
            noticed = standing.notice(noticed, (one.key for one in listening), now)
        folded = standing.fold(before, judged, gathered.sources.blind, now)
        notes = [*gathered.notes, *judged.notes]
        counts = Counter(one.severity for one in folded.standing.values())
        figures = {
            "drift": len(folded.standing),
            **{f"drift_{severity}": counts[severity] for severity in DRIFT_SEVERITIES},
        }
        return _Round(folded.standing, noticed, events(folded), notes, figures)

    def _read(self) -> Kept:
        from agent.workers.watch import standing

        try:
            return standing.read(self._data / standing.NAME) or standing.Kept({}, {})
        except standing.Damaged as error:
            self._teller.log(str(error))
            return standing.Kept({}, {})

    async def _keep(self, untold: Sequence[_Numbered] = ()) -> None:
        from agent.workers.watch.standing import NAME, Kept, write

        kept = Kept(self._standing, self._noticed, self._last, untold)
        try:
            await _aside(partial(write, self._data / NAME, kept))
            self._failure = ""
        except StorageFailure as error:
            self._failure = str(error)
            self._note(self._failure)

    def _note(self, note: str) -> None:
        """Into the log, once for as long as it holds."""
        if note not in self._said:
            self._said.add(note)
            self._teller.log(note)

    def _has_scanned(self) -> bool:
        try:
            return self._scanned()
        except Exception as error:  # a database of a scan is as hostile as what was scanned
            self._cannot(error)
            return False

    def _scanned(self) -> bool:
        """Whether a run of any scan has ended, or was taken in, since this was asked last."""
        found = False
        for name in self._scans:
            path = self._data.parent / name / SCAN_MEMORY
            looked = _size_and_time(path)
            if looked is None or looked == self._looked.get(name):
                continue
            self._looked[name] = looked
            ended = _ended(path)
            if ended != self._ended.get(name):
                self._ended[name] = ended
                found = True
        return found

    @contextmanager
    def _seen(self, name: str) -> Iterator[Path]:
        yield self._data.parent / name


async def _aside(work: Callable[[], _T]) -> _T:
    """Do it in a thread that nobody waits for at the end: a name server may take longer than there is to stop in."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_T] = loop.create_future()

    def settle(result: _T | None, failure: BaseException | None) -> None:
        if done.cancelled():
            return
        if failure is not None:
            done.set_exception(failure)
        else:
            done.set_result(result)  # type: ignore[arg-type]  # without a failure there is one

    def run() -> None:
        result: _T | None = None
        failure: BaseException | None = None
        try:
            result = work()
        except BaseException as error:  # whatever it is, it is for whoever waits
            failure = error
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name="drift", daemon=True).start()
    return await done


def _size_and_time(path: Path) -> tuple[int, int] | None:
    """What changes whenever somebody writes into a database with a log; ``None`` where there is none."""
    for file in (path.with_name(path.name + "-wal"), path):
        with suppress(OSError):
            status = file.stat()
            if status.st_size:
                return status.st_size, status.st_mtime_ns
    return None


def _ended(path: Path) -> tuple[object, ...]:
    """What is another when a run has ended or was taken in; nothing where that cannot be read now."""
    from agent.workers.scan.memory.reading import Memory

    with suppress(StorageFailure), Memory(path) as memory:
        return tuple((run.id, run.status, run.folded) for run in memory.runs(2) if run.status != "running")
    return ()
