"""What the tests of the command line share."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.linux import priority
from tests.cli.harness import Agentctl
from tests.cli.served import Served, serving


@pytest.fixture(autouse=True)
def _not_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that run in this process do not make it stand back for others: it would for the rest of its tests."""
    monkeypatch.setattr(priority, "be_idle", lambda: None)
    monkeypatch.setattr(priority, "stand_back", lambda niceness: None)


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


@pytest.fixture
def theirs() -> Iterator[Path]:
    """A prefix of nobody's, whose declaration is root's alone, where nobody can get to."""
    prefix = Path(tempfile.mkdtemp(prefix="theirs-"))
    prefix.chmod(0o755)
    for name in (".", "key", "run", "spool"):
        (prefix / name).mkdir(exist_ok=True)
        os.chown(prefix / name, 65534 if name != "key" else 0, 65534)
    (prefix / "key" / "env.toml").write_text("")
    (prefix / "key" / "env.toml").chmod(0o600)
    yield prefix
    shutil.rmtree(prefix)
