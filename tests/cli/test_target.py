"""What ``-o`` writes: whole or not at all, and told alike by every command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.cli.base import Session
from agent.cli.main import main
from agent.cli.target import told, writing
from agent.errors import StorageFailure
from tests.workers.flows import traffic
from tests.workers.flows.traffic import NOON

SPAN = ("--from", "2026-11-20T14:00Z", "--to", "2026-11-20T15:00Z")


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    traffic.store(tmp_path / "srv" / "spool" / "edge", "eth0", [traffic.mixed(1, 50, NOON)])
    return tmp_path / "srv"


def test_a_file_is_there_when_it_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("as it was")
    with writing(str(file)) as target:
        target.write(b"whole")
        assert file.read_text() == "as it was"
    assert file.read_text() == "whole"
    assert file.stat().st_mode & 0o777 == 0o640


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("as it was")
    with pytest.raises(KeyError), writing(str(file)) as target:
        target.write(b"half")
        raise KeyError
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "as it was")]
    said = "/dev/full: cannot be written: No space left on device"
    with pytest.raises(StorageFailure, match=said), writing("/dev/full") as target:
        target.write(b"x")


def test_what_was_written_is_told_on_stdout_or_beside_it(capsys: pytest.CaptureFixture[str]) -> None:
    told(Session(), "a\x1bb", "2 packets", {"packets": 2})
    told(Session(), "-", "2 packets", {"packets": 2})
    assert capsys.readouterr() == ("a\\x1bb: 2 packets\n", "")
    told(Session(json=True), "x", "", {"packets": 2})
    told(Session(json=True), "-", "", {"packets": 2})
    out, err = capsys.readouterr()
    assert (json.loads(out), json.loads(err)) == ({"file": "x", "packets": 2}, {"file": "-", "packets": 2})


@pytest.mark.parametrize("words", [("flows", "export", *SPAN), ("capture", "report", *SPAN), ("capture", "query")])
def test_each_command_with_a_file_says_so_in_the_same_way(
    prefix: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], awake: None, words: tuple[str, ...]
) -> None:
    file = tmp_path / "file"
    assert main(["--prefix", str(prefix), *words, "-o", str(file)]) == 0
    assert capfd.readouterr().out.startswith(f"{file}: ")
    assert main(["--prefix", str(prefix), *words, "-o", str(file), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["file"] == str(file)
    assert main(["--prefix", str(prefix), *words, "-o", "-", "--json"]) == 0
    assert json.loads(capfd.readouterr().err)["file"] == "-"
    assert main(["--prefix", str(prefix), *words, "-o", "/dev/full"]) == 2
    assert capfd.readouterr().err == "agentctl: /dev/full: cannot be written: No space left on device\n"


def test_an_export_that_fails_leaves_the_file_of_before(prefix: Path, tmp_path: Path) -> None:
    file = tmp_path / "flows.jsonl"
    file.write_text("as it was")
    assert main(["--prefix", str(prefix), "flows", "export", "tcp prot", *SPAN, "-o", str(file)]) == 1
    assert file.read_text() == "as it was"
    assert not list(tmp_path.glob(".*"))
