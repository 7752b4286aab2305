"""Agents for the acceptance tests: started as an operator starts them, ended whatever the test did."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.versions import Versions
from tests.binary import built
from tests.harness import Agent

WITHOUT_CGROUPS = (
    *("unshare", "--mount", "--propagation", "private"),
    *("sh", "-c", 'umount -R -l /sys/fs/cgroup && exec "$@"', "sh"),
)
"""In a mount namespace of its own that shows no cgroup file system, an agent has to sweep."""
DELEGATED = ("systemd-run", "--scope", "--quiet", "-p", "Delegate=yes")


@pytest.fixture(params=["source", "binary"])
def subject(request: pytest.FixtureRequest) -> str:
    """Both programs that there are: the package as it lies here, and what is built of it."""
    found: str = request.param
    return found


@pytest.fixture
def program(subject: str) -> Path | None:
    """What is run in place of the package: the built program, or nothing."""
    return built().program if subject == "binary" else None


@pytest.fixture
def agent(tmp_path: Path, program: Path | None) -> Iterator[Agent]:
    """A prefix with an agent that has not been started."""
    made = Agent(tmp_path / "srv", program)
    yield made
    made.clean()


@pytest.fixture(params=["cgroup", "sweep"])
def containment(request: pytest.FixtureRequest) -> str:
    """Both ways to hold a service's processes together."""
    found: str = request.param
    return found


@pytest.fixture
def wrapper(containment: str) -> tuple[str, ...]:
    """What to start an agent with so that it contains its services in this way."""
    if containment == "sweep":
        return WITHOUT_CGROUPS
    return DELEGATED if Path("/run/systemd/system").is_dir() else ()


@pytest.fixture
def versions(agent: Agent, tmp_path: Path) -> Versions:
    """Version 1.0.0 is installed, and the agent will run from it."""
    made = Versions(agent, tmp_path / "versions")
    made.make("1.0.0")
    made.install("1.0.0")
    return made
