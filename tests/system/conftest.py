"""Containers for the tests of this directory, and what is left of one when its test has failed."""

from __future__ import annotations

import re
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.system import container as containers
from tests.system.container import Container
from tests.system.host import Host
from tests.system.root import CACHE, SUITE

HERE = Path(__file__).parent
EVIDENCE = CACHE / "evidence"
TIMEOUT = 300.0
"""Seconds for one test. The first of all makes the Debian that the others start from."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(TIMEOUT))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep the journal and the console of every container that is up when a test fails, and say where."""
    report = yield
    if report.failed and containers.running:
        for number, container in enumerate(containers.running):
            kept = EVIDENCE / re.sub(r"\W+", "-", f"{item.path.stem}-{item.name}-{report.when}") / str(number)
            shutil.rmtree(kept, ignore_errors=True)
            container.keep_evidence(kept)
            report.sections.append(("Evidence", f"journal, console and units: {kept}"))
    return report


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
def installed(suite: str) -> Iterator[Host]:
    """The same with the agent installed and enabled, not started, and nothing declared."""
    with Host(suite=suite) as host:
        host.install()
        yield host
