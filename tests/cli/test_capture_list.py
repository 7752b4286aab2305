"""What is stored, and how far back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.cli.main import main


def test_each_interface_is_shown_with_its_segments_and_how_far_back_it_goes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "spool" / "edge" / "eth0"
    place.mkdir(parents=True)
    (place / "20261120T140000.000000Z.pcap").write_bytes(bytes(100))
    (place / "20261120T140000.000000Z.idx").write_bytes(bytes(10))
    (place / "20261120T140100.000000Z.part").write_bytes(bytes(50))
    (place / "notes.txt").write_bytes(bytes(1000))
    assert main(["--prefix", str(tmp_path), "--json", "capture", "list"]) == 0
    (store,) = json.loads(capsys.readouterr().out)["stores"]
    assert store == {"service": "edge", "interface": "eth0", "segments": 2, "bytes": 160, "since": 1795183200.0}
    assert main(["--prefix", str(tmp_path), "capture", "list"]) == 0
    assert "2026-11-20 14:00:00+00:00" in capsys.readouterr().out


def test_an_empty_store_is_said_to_be_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--prefix", str(tmp_path), "capture", "list"]) == 0
    assert capsys.readouterr().out == f"no packets are stored below {tmp_path / 'spool'}\n"
