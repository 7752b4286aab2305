"""What the tests of scans share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.workers.scan import lab
from tests.workers.scan.bench import Bench, known_listeners


@pytest.fixture(scope="session")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lab.Network]:
    """The network of ``lab``, made once for all; nobody changes it."""
    with lab.network(tmp_path_factory.mktemp("lab")) as made:
        yield made


Story = Callable[[lab.Network, pytest.TempPathFactory], Any]
"""Some runs of the worker that take long; what it returns is for several tests to look at."""


Tales = dict[Story, Future[Any]]


@pytest.fixture(scope="session")
def tales() -> Tales:
    """What was told so far."""
    return {}


@pytest.fixture(scope="module")
def told(
    request: pytest.FixtureRequest, tales: Tales, net: lab.Network, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[Story, Future[Any]]:
    """What became of the ``STORIES`` of all modules that are to be run here: told side by side, since they mostly wait.

    In lanes (tests.lanes) those of other modules may be for others.
    """
    in_lanes = "PYTEST_XDIST_WORKER" in os.environ
    modules = dict.fromkeys(
        getattr(item, "module", None) for item in request.session.items if not in_lanes or item.path == request.path
    )
    stories = [story for module in modules for story in getattr(module, "STORIES", ()) if story not in tales]
    with ThreadPoolExecutor(max(1, len(stories))) as pool:
        tales.update({story: pool.submit(story, net, tmp_path_factory) for story in stories})
    return tales


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A scan service of this test's own; what it has started ends with it."""
    made = Bench(tmp_path)
    yield made
    made.close()


@pytest.fixture
def network() -> Iterator[tuple[str, ...]]:
    """As ``known_listeners``: the prefix of a command beside them."""
    with known_listeners() as prefix:
        yield prefix
