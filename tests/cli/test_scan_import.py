"""``agentctl scan import`` keeps to the bounds of what is remembered, also where no worker ever runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.cli.main import main
from agent.workers.scan.memory.reading import Memory
from tests.workers.scan.reports import START, Answer, Machine, report

DECLARED = """
[service.lab]
kind = "scan"
targets = ["10.0.0.0/28"]
history = { size = "1MiB" }
"""


@pytest.mark.parametrize(("name", "kept"), [("lab", []), ("elsewhere", [1, 2])])
def test_what_is_imported_is_bounded_as_declared_or_as_a_scan_is_that_declares_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, kept: list[int]
) -> None:
    """What is so now of 5,000 hosts is more than 1 MiB, so no run stays beside it."""
    (tmp_path / "spool").mkdir()
    (tmp_path / "key").mkdir()
    (tmp_path / "key" / "env.toml").write_text(DECLARED)
    for number in (1, 2):
        machines = {
            f"10.{number}.{last // 250}.{last % 250}": Machine({port: Answer("open") for port in (last % 30 + 1, 31)})
            for last in range(2500)
        }
        path = tmp_path / f"{number}.xml"
        path.write_bytes(report(machines, asked=2500, start=START + number, ports=range(1, 32)))
        assert main(["--prefix", str(tmp_path), "scan", "import", name, str(path), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["imported"][0]["run"] == number
    with Memory(tmp_path / "spool" / name / "scan.db") as memory:
        assert sorted(run.id for run in memory.runs()) == kept
