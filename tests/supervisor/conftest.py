"""What the tests of this floor share: real processes below a subreaper, in a cgroup or without one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.linux.cgroup import CgroupTree
from agent.linux.process import reap_strangers
from agent.supervisor.containment import CgroupContainment, Containment, SweepContainment
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
