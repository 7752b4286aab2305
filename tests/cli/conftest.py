"""What the tests of the command line share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.harness import Agentctl
from tests.cli.served import Served, serving


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """A prefix that does not exist yet."""
    return tmp_path / "prefix"


@pytest.fixture
def agentctl(prefix: Path, tmp_path: Path) -> Agentctl:
    """agentctl on that prefix."""
    return Agentctl(prefix, tmp_path)


@pytest.fixture
def environment(agentctl: Agentctl) -> dict[str, str]:
    """The environment that agentctl gets."""
    return agentctl.environment


@pytest.fixture
def served(prefix: Path) -> Iterator[Served]:
    """An agent in memory that answers on that prefix's control socket."""
    with serving(prefix) as agent:
        yield agent
