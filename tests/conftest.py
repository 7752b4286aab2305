"""What holds for every test: in CI nothing is left out, of a container that a failed test had something is kept, and no
test fails because the machine was busy with another.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.remote import Producer

from agent.linux import priority
from tests import lanes
from tests.system import container

CI = os.environ.get("CI") == "true"

# How long an example takes says something of what else runs: whoever means the time of the code itself says so.
settings.register_profile("beside others", settings.default, deadline=None)
settings.load_profile("beside others")


@pytest.fixture(autouse=True)
def _standard_streams() -> Iterator[None]:
    """No test closes one: whatever is opened next would take its place."""
    yield
    for fd in range(3):
        os.fstat(fd)


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that other users can enter; pytest's own they cannot."""
    directory = Path(tempfile.mkdtemp(prefix="open-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def awake(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that is run in this process does not stand back: the tests after it would have to wait."""

    def refused(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refused)
    monkeypatch.setattr(priority, "_input_output", lambda _: None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    return lanes.count()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> lanes.Lanes:
    return lanes.Lanes(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: lanes.place(item.nodeid))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure when ``CI=true``: there is root, nmap and libpcap, so nothing excuses it.

    And keep the journal and the console of every container that a test has when it fails, and say where.
    """
    report = yield
    if report.failed:
        for place in container.evidence(f"{item.nodeid} ({report.when})"):
            report.sections.append(("Evidence", f"journal, console and units: {place}"))
    if CI and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, which CI does not allow: {call.excinfo and call.excinfo.value}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a file that skips itself while it is imported."""
    report = yield
    if CI and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"{collector.nodeid} was skipped, which CI does not allow"
    return report
