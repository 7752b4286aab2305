"""A store with runs in it, for the tests of what it remembers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Literal

from agent.workers.scan.found import Host, Port, Rest
from agent.workers.scan.memory.coverage import asked
from agent.workers.scan.memory.reading import Memory
from agent.workers.scan.memory.settling import Doubt
from agent.workers.scan.spans import of, without
from agent.workers.scan.store import MISSES, Ending, Run, ScanStore, Task

NOW = 1_750_000_000.0
TASK = Task("plan", 16, 1, '{"targets":["10.0.0.0/28"]}')
ASKED = ((1, 100),)


def host(last: int, *ports: Port | int, state: str = "closed", low: int = 1, high: int = 100) -> Host:
    """``10.0.0.LAST``, asked for TCP ports ``low`` to ``high``: those given, which are open, and the others."""
    told = tuple(Port("tcp", port, "open", "syn-ack") if isinstance(port, int) else port for port in ports)
    others = without(((low, high),), of(port.number for port in told))
    rest = (Rest("tcp", state, "reset", others),) if others else ()
    return Host(f"10.0.0.{last}", "up", "arp-response", ports=told, rest=rest)


class Service:
    """A scan service that runs every hour."""

    def __init__(self, path: Path, *, misses: int = MISSES) -> None:
        self.path = path
        self.misses = misses
        self.now = NOW

    def open(self) -> ScanStore:
        """The store as its worker has it."""
        return ScanStore(self.path, site="here", misses=self.misses)

    def run(
        self,
        hosts: Iterable[Host],
        *,
        silent: Sequence[int] = (),
        status: Ending = "finished",
        degraded: str = "",
        again: Iterable[Host] = (),
        withheld: tuple[Literal["blind", "dark", "settled"], Sequence[int]] = ("dark", ()),
    ) -> list[str]:
        """One run from its beginning to its end; what it told, as ``kind address port``."""
        self.now += 3600
        with closing(self.open()) as store:
            run = store.begin(TASK, self.now)
            self.keep(store, run, hosts, silent)
            store.recheck(run, again, self.now + 5)
            how, those = withheld
            store.withhold(run, [f"10.0.0.{last}" for last in those], how)
            store.end(run, status, self.now + 10, degraded=degraded)
            return told(store)

    def keep(self, store: ScanStore, run: Run, hosts: Iterable[Host], silent: Sequence[int] = ()) -> None:
        """Store what a run found."""
        nobody = asked(f"10.0.0.{last}" for last in silent)
        store.store(run, hosts, self.now + 1, chunk=len(run.done), addresses=16, asked=nobody)

    def now_open(self) -> list[str]:
        """What is open now, as ``address port``."""
        with Memory(self.path) as memory:
            return [
                f"{host.address} {port.number}" for host in memory.now() for port in host.ports if port.state == "open"
            ]


def in_doubt(store: ScanStore, run: Run) -> list[Doubt]:
    """What the run would leave open now."""
    return [doubt for step in store.doubts(run) for doubt in step]


def told(store: ScanStore) -> list[str]:
    """What is to be told now."""
    found: list[str] = []
    store.tell(lambda event: found.append(_short(event.kind, event.data)))
    return found


def _short(kind: str, data: dict[str, object]) -> str:
    words = [kind, str(data.get("address", ""))] + ([str(data["port"])] if "port" in data else [])
    return " ".join(word for word in words if word)


def fill(disk: Path) -> None:
    """Leave nothing free."""
    with suppress(OSError), (disk / "filler").open("ab", buffering=0) as file:
        while True:
            file.write(bytes(4096))
