"""An armed capture keeps what it saw when a person says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.cli.main import main
from agent.workers.capture import pins

DECLARATION = """
[service.edge]
kind = "capture"
interfaces = ["lo"]
trigger = { before = "10s", after = "5s" }

[service.core]
kind = "capture"
interfaces = ["lo"]

[service.api]
kind = "command"
command = ["/bin/true"]
"""


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    (tmp_path / "key").mkdir()
    (tmp_path / "key" / "env.toml").write_text(DECLARATION)
    (tmp_path / "spool" / "edge").mkdir(parents=True)
    return tmp_path


def trigger(prefix: Path, *words: str) -> int:
    return main(["--prefix", str(prefix), "capture", "trigger", *words])


def test_it_is_kept_as_declared_and_a_second_one_changes_nothing(
    prefix: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trigger(prefix, "edge", "--reason", "timeouts") == 0
    (pin,) = pins.read_all(prefix / "spool" / "edge")
    assert (pin.end - pin.begin, pin.reason) == (15_000_000_000, "timeouts")
    assert capsys.readouterr().out == f"edge: kept from 10 s before until 5 s after, pin {pin.id}\n"
    assert trigger(prefix, "edge") == 0
    assert capsys.readouterr().out == "edge: triggered already, and still kept\n"
    assert trigger(prefix, "edge", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"pin": None}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("core", "core is not armed: it has no `trigger`; `agentctl capture pin core` keeps a span of it"),
        ("api", "no capture is named 'api'"),
        ("nobody", "no capture is named 'nobody'"),
        ("edgr", "no capture is named 'edgr'; did you mean edge?"),
    ],
)
def test_what_is_not_armed_is_refused(
    prefix: Path, capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    assert trigger(prefix, name) == 1
    assert capsys.readouterr().err == f"agentctl: {message}\n"


def test_a_capture_that_never_ran_has_nothing_to_keep(prefix: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (prefix / "spool" / "edge").rmdir()
    assert trigger(prefix, "edge") == 2
    assert "no pin can be set: No such file or directory" in capsys.readouterr().err


def test_a_reason_that_is_too_long_is_refused_and_one_of_odd_bytes_is_not(
    prefix: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trigger(prefix, "edge", "--reason", "x" * 501) == 1
    assert capsys.readouterr().err == "agentctl: a reason has at most 500 characters; this one has 501\n"
    assert trigger(prefix, "edge", "--reason", "odd \udcff") == 0
    (pin,) = pins.read_all(prefix / "spool" / "edge")
    assert pin.reason == "odd \N{REPLACEMENT CHARACTER}"
