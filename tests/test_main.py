"""``python -m agent``: which words mean what, and what each part of the program keeps out of memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import agent
from agent.__main__ import container_arguments
from agent.cli.commands import COMMANDS

ROOT = Path(agent.__file__).parent.parent


def python(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8", "PREFIX": str(cwd / "prefix")}
        | variables,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (["env.toml"], ["run", "env.toml"]),
        (["--prefix", "p", "/srv/key/env.toml"], ["run", "--prefix", "p", "/srv/key/env.toml"]),
        (["--prefix=p", "no/such.toml"], ["run", "--prefix=p", "no/such.toml"]),
        (["declaration"], ["run", "declaration"]),
        (["status"], ["status"]),
        (["--prefix", "env.toml"], ["--prefix", "env.toml"]),
        (["validate", "env.toml"], ["validate", "env.toml"]),
        (["run", "env.toml"], ["run", "env.toml"]),
        (["env.toml", "--prefix", "p"], ["env.toml", "--prefix", "p"]),
        (["a.toml", "b.toml"], ["a.toml", "b.toml"]),
        (["nothing"], ["nothing"]),
        (["--help"], ["--help"]),
        ([], []),
    ],
)
def test_a_declaration_at_the_end_means_run(
    given: list[str], meant: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "declaration").touch()
    monkeypatch.chdir(tmp_path)
    assert container_arguments(given) == meant


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_a_command_although_a_file_has_its_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert container_arguments([name]) == [name]


def test_an_internal_word_with_other_arguments_is_no_command(tmp_path: Path) -> None:
    for words in (["worker"], ["daemon", "one"], ["once", "a", "b", "c", "d"], ["prove"], ["prove", "a", "b", "c"]):
        done = python("-m", "agent", *words, cwd=tmp_path)
        assert done.returncode == 1
        assert done.stderr.startswith(f"agentctl: no command is named '{words[0]}'")


def test_a_worker_of_no_known_kind_is_a_configuration_error(tmp_path: Path) -> None:
    done = python("-m", "agent", "worker", "oracle", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "oracle" in done.stderr


@pytest.mark.parametrize("words", [["oracle"], ["database"], ["capture", "/tmp"]])
def test_a_part_of_the_selftest_that_is_none_is_a_configuration_error(words: list[str], tmp_path: Path) -> None:
    done = python("-m", "agent", "prove", *words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"prove {words[0]}: no such part; one of capture, " in done.stderr


def test_dispatch_imports_no_command_line(tmp_path: Path) -> None:
    script = (
        "import sys, agent.__main__\n"
        "print([name for name in ('click', 'rich', 'json', 'asyncio', 'argparse') if name in sys.modules])"
    )
    assert python("-c", script, cwd=tmp_path).stdout == "[]\n"


def test_a_bare_run_needs_no_command_line(tmp_path: Path) -> None:
    """The declaration is missing: the agent itself says so, and click was not there."""
    script = (
        "import sys\nfrom agent.__main__ import main\n"
        "print(main(['run']), 'asyncio' in sys.modules, 'click' in sys.modules)"
    )
    done = python("-c", script, cwd=tmp_path)
    assert done.stdout == "1 True False\n"
    assert str(tmp_path / "prefix" / "key" / "env.toml") in done.stderr


def test_an_unwanted_option_of_run_is_explained_by_the_command_line(tmp_path: Path) -> None:
    done = python("-m", "agent", "run", "--fast", cwd=tmp_path)
    assert done.returncode == 1
    assert "--fast" in done.stderr


def test_the_container_entry_runs_the_declaration_it_is_given(tmp_path: Path) -> None:
    (tmp_path / "wrong.toml").write_text("[service.a-b]\nkind = 'command'\n")
    done = python("-m", "agent", "--prefix", str(tmp_path / "prefix"), "wrong.toml", cwd=tmp_path)
    assert done.returncode == 1
    assert f"{tmp_path}/wrong.toml:1: " in done.stderr
    assert not (tmp_path / "prefix").exists()


def test_everything_that_was_printed_is_out_before_the_process_ends(tmp_path: Path) -> None:
    done = python("-m", "agent", "calendar", "minutely", "--iterations", "5000", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["elapses"]) == 5000


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("agent.paths", ["status"]),
        ("agent.cli.guard", ["run"]),
        ("agent.cli.main", ["status"]),
        ("agent.cli.status", ["status"]),
        ("agent.cli.proofs", ["prove", "calendar"]),
        ("agent.control.daemon", ["run"]),
        ("agent.control.daemon", ["daemon", "plain", "/nowhere", "/nowhere/key/env.toml"]),
        ("agent.control.once", ["once", "plain", "/nowhere", "/nowhere/key/env.toml", "api"]),
        ("agent.workers.main", ["worker", "capture"]),
        ("agent.workers.runtime", ["worker", "scan"]),
    ],
)
def test_a_program_that_is_not_whole_says_so_and_does_not_blame_the_declaration(
    missing: str, words: list[str], tmp_path: Path
) -> None:
    script = f"import runpy, sys; sys.modules[{missing!r}] = None; runpy.run_module('agent', run_name='__main__')"
    done = python("-c", script, *words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert missing in done.stderr
    assert done.stderr.count("\n") == 1
