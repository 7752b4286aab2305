"""Whether systemd runs this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.linux import systemd


def test_systemd_runs_the_machine_where_its_directory_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "RUNNING", tmp_path)
    assert systemd.booted()
    monkeypatch.setattr(systemd, "RUNNING", tmp_path / "nowhere")
    assert not systemd.booted()
