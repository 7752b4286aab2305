"""Containers for the tests of this directory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.container import Container
from tests.system.host import Host
from tests.system.installation import installation
from tests.system.root import SUITE

HERE = Path(__file__).parent
TIMEOUT = 300.0
"""Seconds for one test. The first of all makes the Debian that the others start from."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(TIMEOUT))


@pytest.fixture
def container() -> Iterator[Container]:
    """A Debian that has just booted, for this test alone."""
    with Container() as booted:
        yield booted


@pytest.fixture
def suite() -> str:
    """The release of Debian that a machine with an agent has."""
    return SUITE


@pytest.fixture
def prefix() -> str:
    """Where the agent is installed."""
    return "/srv"


@pytest.fixture
def installed(suite: str, prefix: str) -> Iterator[Host]:
    """The same with the agent installed and enabled, not started, and nothing declared."""
    with Host(suite=suite, prefix=prefix, layer=installation(suite, prefix)) as host:
        host.enable()
        yield host
