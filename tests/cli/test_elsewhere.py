"""Who looks for the agent below the wrong prefix is told where it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.cli.elsewhere import hint

UNIT = "[Service]\nExecStart=/opt/agent/lib/agent/current/agentctl run\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A system with an agent below /opt/agent."""
    for file, text in (("etc/systemd/system/agent.service", UNIT), ("opt/agent/lib/agent/install.json", "{}")):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_text(text)
    return tmp_path


def test_the_prefix_is_that_of_the_unit(root: Path) -> None:
    assert hint("/srv", root) == "; an agent is installed below /opt/agent: --prefix /opt/agent"
    assert hint("/opt/agent", root) == ""


def test_a_unit_without_an_installation_leads_nowhere(root: Path) -> None:
    (root / "opt/agent/lib/agent/install.json").unlink()
    assert hint("/srv", root) == ""
    (root / "etc/systemd/system/agent.service").unlink()
    assert hint("/srv", root) == ""


def test_what_cannot_be_looked_at_is_not_told(tmp_path: Path) -> None:
    (tmp_path / "etc").write_text("no directory")
    assert hint("/srv", tmp_path) == ""
