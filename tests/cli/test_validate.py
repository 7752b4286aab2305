"""``validate``: everything that is wrong, at once, and nothing done about it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.harness import Agentctl

RIGHT = """\
[service.api]
kind = "command"
command = ["sleep", "${SECONDS_TO_SLEEP:-60}"]

[service.nightly]
kind = "command"
command = ["true"]
oncalendar = "daily"
enabled = false
"""

WRONG = """\
[service.api]
kind = "command"
comand = ["sleep", "60"]
restart = "never"
"""


@pytest.fixture
def declaration(prefix: Path) -> Path:
    (prefix / "key").mkdir(parents=True)
    return prefix / "key" / "env.toml"


def test_a_right_one_is_one_line_with_what_it_declares(agentctl: Agentctl, declaration: Path) -> None:
    declaration.write_text(RIGHT)
    done = agentctl("validate")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{declaration}: valid: 2 services: 2 command; 1 on a timer, 1 disabled\n"


def test_all_mistakes_are_shown_with_their_places(agentctl: Agentctl, declaration: Path) -> None:
    declaration.write_text(WRONG)
    done = agentctl("validate")
    assert (done.returncode, done.stdout) == (1, "")
    lines = done.stderr.splitlines()
    assert any(line.startswith(f"{declaration}:3: service.api.comand: ") and "command" in line for line in lines)
    assert any(line.startswith(f"{declaration}:4: service.api.restart: ") for line in lines)


def test_another_file_can_be_named(agentctl: Agentctl, tmp_path: Path, prefix: Path) -> None:
    (tmp_path / "other.toml").write_text(RIGHT)
    assert agentctl("validate", "other.toml").returncode == 0
    assert not prefix.exists()


def test_a_missing_one_is_a_mistake_of_the_user(agentctl: Agentctl, prefix: Path) -> None:
    done = agentctl("validate")
    assert done.returncode == 1
    assert str(prefix / "key" / "env.toml") in done.stderr and done.stderr.count("\n") == 1


def test_json(agentctl: Agentctl, declaration: Path) -> None:
    declaration.write_text(RIGHT)
    assert json.loads(agentctl("validate", "--json").stdout) == {
        "file": str(declaration),
        "valid": True,
        "services": 2,
        "problems": [],
    }
    declaration.write_text(WRONG)
    done = agentctl("validate", "--json")
    answer = json.loads(done.stdout)
    assert (done.returncode, done.stderr, answer["valid"]) == (1, "", False)
    assert {(problem["line"], problem["where"]) for problem in answer["problems"]} >= {
        (3, "service.api.comand"),
        (4, "service.api.restart"),
    }
    assert all(problem.keys() == {"file", "line", "where", "text"} for problem in answer["problems"])


def test_the_file_of_the_example_is_for_the_agent_to_read(agentctl: Agentctl) -> None:
    assert "install -o root -g agent -m 640 env.toml /srv/key/\n" in agentctl("validate", "--help").stdout
