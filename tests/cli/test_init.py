"""``init``: a first declaration, and never a second one."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.harness import Agentctl


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def test_it_makes_the_directories_and_a_declaration_that_is_valid(agentctl: Agentctl, prefix: Path) -> None:
    done = agentctl("init")
    assert (done.returncode, done.stderr) == (0, "")
    assert str(prefix / "key" / "env.toml") in done.stdout
    assert {path.name for path in prefix.iterdir()} == {"key", "run", "tmp", "spool", "log"}
    assert mode(prefix / "key" / "secrets") == 0o700
    assert mode(prefix / "key" / "env.toml") & 0o007 == 0
    assert agentctl("validate").returncode == 0


def test_a_declaration_that_is_there_is_left_alone(agentctl: Agentctl, prefix: Path) -> None:
    agentctl("init")
    declaration = prefix / "key" / "env.toml"
    declaration.write_text("# mine\n")
    done = agentctl("init")
    assert done.returncode == 1
    assert str(declaration) in done.stderr and done.stderr.count("\n") == 1
    assert declaration.read_text() == "# mine\n"


def test_a_dangling_link_is_not_followed(agentctl: Agentctl, prefix: Path, tmp_path: Path) -> None:
    (prefix / "key").mkdir(parents=True)
    (prefix / "key" / "env.toml").symlink_to(tmp_path / "elsewhere")
    assert agentctl("init").returncode == 1
    assert not (tmp_path / "elsewhere").exists()


def test_a_prefix_that_cannot_be_made_is_a_failure_in_one_line(agentctl: Agentctl, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = agentctl("init", "--prefix", str(tmp_path / "file" / "below"))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "internal" not in done.stderr


def test_json(agentctl: Agentctl, prefix: Path) -> None:
    assert json.loads(agentctl("init", "--json").stdout) == {
        "prefix": str(prefix),
        "declaration": str(prefix / "key" / "env.toml"),
    }
