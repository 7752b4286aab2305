"""``calendar``: what systemd-analyze says, without systemd."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.cli.harness import Agentctl

EXPRESSIONS = ["daily", "Mon..Fri 02:30", "*-*-1..7 18:00:00", "*-02~1", "2020-01-01", "*:0/15 Europe/Helsinki"]


@pytest.mark.parametrize("expression", EXPRESSIONS)
@pytest.mark.parametrize("zone", ["UTC", "Europe/Helsinki"])
def test_it_prints_what_systemd_analyze_prints(agentctl: Agentctl, expression: str, zone: str) -> None:
    arguments = ["calendar", "--iterations", "4", "--base-time", "2026-10-24 12:00:00", expression]
    ours = agentctl(*arguments, TZ=zone)
    theirs = subprocess.run(
        ["systemd-analyze", *arguments],
        env=agentctl.environment | {"TZ": zone},
        capture_output=True,
        encoding="utf-8",
        timeout=30,
        check=True,
    )
    assert (ours.returncode, ours.stderr) == (0, "")
    assert without_now(ours.stdout) == without_now(theirs.stdout)


def without_now(text: str) -> list[str]:
    """Without the lines that depend on when they were asked, and without the padding."""
    return [line.strip() for line in text.splitlines() if "From now" not in line]


def test_json(agentctl: Agentctl) -> None:
    done = agentctl("calendar", "*-*-* 02:30", "--iterations", "2", "--base-time", "@1700000000", "--json")
    assert json.loads(done.stdout) == {
        "expression": "*-*-* 02:30",
        "normalized": "*-*-* 02:30:00",
        "base": 1_700_000_000.0,
        "elapses": [{"number": 1, "time": 1_700_015_400.0}, {"number": 2, "time": 1_700_101_800.0}],
    }


def test_one_that_is_over_never_elapses(agentctl: Agentctl) -> None:
    done = agentctl("calendar", "2020-01-01", "--json")
    assert (done.returncode, json.loads(done.stdout)["elapses"]) == (0, [])


@pytest.mark.parametrize("arguments", [["blue moon"], ["daily", "--base-time", "soon"], ["daily", "--iterations", "0"]])
def test_what_cannot_be_meant_is_one_error(agentctl: Agentctl, arguments: list[str]) -> None:
    done = agentctl("calendar", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("agentctl: ") and "internal" not in done.stderr
