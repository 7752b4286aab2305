"""``config show``: what is in effect, without a running agent and without a secret."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from tests.cli.harness import Agentctl

DECLARATION = """\
[service.api]
kind = "command"
command = ["serve", "--port", "${API_PORT:-8000}"]
environment = { API_TOKEN = "hunter2hunter2" }
stop_timeout = "1m"
"""

PROJECT = """\
[service.web]
kind = "command"
command = ["web"]
"""


@pytest.fixture(autouse=True)
def declared(prefix: Path) -> None:
    (prefix / "key" / "projects").mkdir(parents=True)
    (prefix / "key" / "env.toml").write_text(DECLARATION)
    (prefix / "key" / "projects" / "shop.toml").write_text(PROJECT)


def test_it_is_a_declaration_with_everything_filled_in(agentctl: Agentctl, tmp_path: Path) -> None:
    done = agentctl("config", "show", API_PORT="9000")
    assert (done.returncode, done.stderr) == (0, "")
    shown = tomllib.loads(done.stdout)
    assert shown["service"]["api"]["command"] == ["serve", "--port", "9000"]
    assert shown["service"]["api"]["restart"] == "always"
    assert "web" in shown["service"]
    (tmp_path / "again.toml").write_text(done.stdout)
    assert agentctl("validate", "again.toml").returncode == 0


def test_secrets_are_masked(agentctl: Agentctl) -> None:
    for machine in ([], ["--json"]):
        assert "hunter2" not in agentctl("config", "show", *machine).stdout


def test_json_is_the_same_as_an_object(agentctl: Agentctl) -> None:
    text, machine = agentctl("config", "show"), agentctl("config", "show", "--json")
    assert json.loads(machine.stdout) == tomllib.loads(text.stdout)


def test_mistakes_are_shown_as_validate_shows_them(agentctl: Agentctl, prefix: Path) -> None:
    (prefix / "key" / "env.toml").write_text("[service.api]\nkind = 'comand'\n")
    done = agentctl("config", "show")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == agentctl("validate").stderr
