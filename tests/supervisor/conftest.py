"""What the tests of this floor share: real processes below a subreaper, in a cgroup or without one."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from agent.control.layout import lay_out
from agent.declaration.load import load
from agent.declaration.model import Declaration, LogPolicy
from agent.linux.cgroup import CgroupTree
from agent.linux.process import reap_strangers
from agent.paths import Paths
from agent.supervisor.containment import CgroupContainment, Containment, SweepContainment
from agent.supervisor.engine import Supervisor, SupervisorState
from agent.supervisor.generation import Generation
from agent.supervisor.lifecycle import Phase
from agent.supervisor.report import Action, Outcome, ReloadReport, ServiceReport
from agent.supervisor.unit import Unit
from agent.telemetry.events import EventStore, History
from agent.telemetry.log_pump import LogPump
from agent.telemetry.logs import LogFile, LogState
from tests.linux.conftest import subreaper, tree

__all__ = ["subreaper", "tree"]

MARK = "0123456789abcdef:api"


@pytest.fixture
def loop(subreaper: None) -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that fails the test with the first error of a callback; orphans that it leaves are ended and reaped."""
    errors: list[str] = []
    made = asyncio.new_event_loop()
    made.set_exception_handler(
        lambda loop, context: errors.append(f"{context['message']}: {context.get('exception')!r}")
    )
    yield made
    made.close()
    reap_strangers(lambda pid: False)
    assert not errors


@pytest.fixture(params=["cgroup", "sweep"])
def containment(request: pytest.FixtureRequest, loop: asyncio.AbstractEventLoop) -> Iterator[Containment]:
    """One service's, of both ways."""
    made: Containment = SweepContainment(loop, MARK)
    if request.param == "cgroup":
        tree: CgroupTree = request.getfixturevalue("tree")
        made = CgroupContainment(loop, tree.service("api"))
    yield made
    made.close()


def until(loop: asyncio.AbstractEventLoop, condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Turn the loop until something is so."""

    async def wait() -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.002)

    loop.run_until_complete(wait())


def descriptors() -> int:
    """How many this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


class FileSink:
    """A log as the agent's own."""

    def __init__(self, path: Path) -> None:
        self.file = LogFile(path, 1024 * 1024, 1)
        self.closed = False

    @property
    def dropped_bytes(self) -> int:
        return self.file.dropped_bytes

    def pump(self, fd: int) -> LogPump:
        return LogPump(fd, self.file)

    def adjust(self, policy: LogPolicy) -> None:
        self.file.adjust(policy.size, policy.keep)

    def freeze(self) -> LogState:
        return self.file.freeze()

    def thaw(self, state: LogState) -> None:
        self.file.thaw(state)

    def close(self) -> None:
        self.closed = True
        self.file.close()


class Host:
    """A supervisor with real services below a prefix of its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop, prefix: Path) -> None:
        self.loop = loop
        self.paths = Paths.of(prefix)
        lay_out(self.paths)
        self.events = EventStore(self.paths.agent_spool / "events.db", schedule=loop.call_later)
        self._generations: list[Generation] = []
        self.supervisor = self.supervise("")

    def declare(self, text: str) -> Declaration:
        """A declaration from its text."""
        self.paths.key.mkdir(exist_ok=True)
        self.paths.declaration.write_text(text)
        return load(self.paths, {})

    def supervise_later(self, text: str) -> Supervisor:
        """A supervisor that has not been started."""
        self.supervisor = Supervisor(
            loop=self.loop,
            paths=self.paths,
            declaration=self.declare(text),
            environ={},
            events=self.events,
            tree=None,
            sink=lambda service: FileSink(self.paths.log(service.name)),
        )
        self._generations.append(self.supervisor._generation)
        return self.supervisor

    def supervise(self, text: str) -> Supervisor:
        """An agent's life begins: everything declared is started, and has settled."""
        made = self.supervise_later(text)
        self.loop.run_until_complete(made.start())
        self.loop.run_until_complete(made.settled())
        return made

    def reload(self, text: str) -> ReloadReport:
        return self.loop.run_until_complete(self.supervisor.reload(self.declare(text)))

    def act(self, action: Action, name: str, *, wait: bool = True) -> Outcome:
        return self.loop.run_until_complete(self.supervisor.act(action, name, wait))

    def report(self, name: str) -> ServiceReport:
        return self.supervisor.reports(name)[0]

    def until(self, name: str, phase: Phase) -> Unit:
        """Turn the loop until a service is in a phase."""
        unit = self.supervisor.unit(name)
        until(self.loop, lambda: unit.phase is phase)
        return unit

    def kinds(self, name: str) -> list[str]:
        """The kinds of its events, oldest first."""
        return [event.kind for event in self.events.last(1000, name)]

    def hand_over(self) -> None:
        """As by execve(2): another program goes on with what was frozen, in a loop of its own."""
        state, history = msgspec.json.encode(self.supervisor.freeze()), msgspec.json.encode(self.events.freeze())
        self._vanish()
        handler = self.loop.get_exception_handler()
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(handler)
        self.events = EventStore(self.paths.agent_spool / "events.db", schedule=self.loop.call_later)
        self.events.thaw(msgspec.json.decode(history, type=History))
        frozen = msgspec.json.decode(state, type=SupervisorState)
        self.supervisor = Supervisor(
            loop=self.loop,
            paths=self.paths,
            declaration=frozen.declaration,
            environ={},
            events=self.events,
            tree=None,
            sink=lambda service: FileSink(self.paths.log(service.name)),
            frozen=frozen,
        )
        self._generations.append(self.supervisor._generation)
        self.loop.run_until_complete(self.supervisor.start())

    def _vanish(self) -> None:
        """Close what is not inherited, and let go of what is without closing it."""
        for unit in self.supervisor.units.values():
            if (receiver := unit._premises.listener._receiver) is not None:
                receiver._socket.detach()
            if unit.run is not None:
                unit.run._containment.close()
                assert isinstance(unit.run._sink, FileSink)
                unit.run._sink.file._shut()
        self.close_records()
        self.events._disconnect()
        self.loop.close()

    def close_records(self) -> None:
        """Those of all supervisors so far."""
        for generation in self._generations:
            if generation._fd >= 0:
                os.close(generation._fd)
                generation._fd = -1

    def stop(self) -> list[str]:
        return self.loop.run_until_complete(self.supervisor.stop())


@pytest.fixture
def host(loop: asyncio.AbstractEventLoop, tmp_path: Path) -> Iterator[Host]:
    """Nothing of it is left afterwards."""
    made = Host(loop, tmp_path / "srv")
    yield made
    assert made.stop() == []
    made.close_records()
    made.events.close()
    made.loop.close()
