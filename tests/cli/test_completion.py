"""``completion``: scripts for three shells, made without running one of them, and working in the one that is here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.harness import Agentctl
from tests.cli.served import Served
from tests.workers.scan.reports import Machine, report


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_script_asks_agentctl_by_its_variable(agentctl: Agentctl, shell: str) -> None:
    done = agentctl("completion", shell, PATH="/nonexistent")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"_AGENTCTL_COMPLETE={shell}_complete" in done.stdout
    assert json.loads(agentctl("completion", shell, "--json").stdout) == {"shell": shell, "script": done.stdout[:-1]}


def test_the_shell_is_taken_from_the_environment(agentctl: Agentctl) -> None:
    assert agentctl("completion", SHELL="/usr/bin/fish").stdout == agentctl("completion", "fish").stdout
    unknown = agentctl("completion", SHELL="/bin/dash")
    assert unknown.returncode == 1
    assert "bash, zsh, fish" in unknown.stderr


def complete(agentctl: Agentctl, words: str) -> list[str]:
    """What bash is told when the tab key is pressed at the end of ``words``."""
    count = str(len(words.split()) - (0 if words.endswith(" ") else 1))
    done = agentctl(_AGENTCTL_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=count)
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


def test_commands_and_options_are_completed(agentctl: Agentctl) -> None:
    assert complete(agentctl, "agentctl st") == ["status", "start", "stop"]
    assert complete(agentctl, "agentctl logs --fo") == ["--follow"]


def test_without_an_agent_no_service_is_completed_and_nothing_is_said(agentctl: Agentctl) -> None:
    assert complete(agentctl, "agentctl status ") == []


def test_services_are_completed_from_what_the_agent_knows(agentctl: Agentctl, served: Served) -> None:
    for name in ("api", "api_worker", "web"):
        served.declare(name)
    assert complete(agentctl, "agentctl restart ap") == ["api", "api_worker"]
    assert complete(agentctl, "agentctl events --service w") == ["web"]


def test_without_an_agent_services_are_those_declared_and_captures_those_that_stored_something(
    agentctl: Agentctl, prefix: Path
) -> None:
    (prefix / "key").mkdir(parents=True)
    (prefix / "key" / "env.toml").write_text(
        '[service.edge]\nkind = "capture"\ninterfaces = ["lo"]\n'
        '[service.web]\nkind = "command"\ncommand = ["/bin/true"]\n'
    )
    (prefix / "spool" / "gone").mkdir(parents=True)
    (prefix / "spool" / "gone" / "store.json").write_text('{"version": 1}')
    assert complete(agentctl, "agentctl restart ") == ["edge", "web"]
    assert complete(agentctl, "agentctl capture stream ") == ["edge", "gone"]
    assert complete(agentctl, "agentctl flows export --service ") == ["edge", "gone"]


def test_scans_are_completed_with_those_that_were_imported(agentctl: Agentctl, prefix: Path, tmp_path: Path) -> None:
    (prefix / "key").mkdir(parents=True)
    (prefix / "key" / "env.toml").write_text('[service.lan]\nkind = "scan"\ntargets = ["10.0.0.1"]\n')
    (prefix / "spool").mkdir()
    (tmp_path / "a.xml").write_bytes(report({"10.0.0.1": Machine()}))
    assert agentctl("scan", "import", "old", str(tmp_path / "a.xml")).returncode == 0
    assert complete(agentctl, "agentctl scan show ") == ["lan", "old"]
    assert complete(agentctl, "agentctl scan hosts o") == ["old"]


def test_a_group_that_has_a_command_by_itself_is_completed_as_both(agentctl: Agentctl) -> None:
    assert complete(agentctl, "agentctl flows ") == ["top", "export"]
    assert complete(agentctl, "agentctl flows e") == ["export"]
    assert complete(agentctl, "agentctl flows --b") == ["--by"]
    assert complete(agentctl, "agentctl flows --js") == ["--json"]
    assert complete(agentctl, "agentctl flows tcp --s") == ["--sort", "--service"]
    assert complete(agentctl, "agentctl flows export --i") == ["--ipfix", "--idle", "--interface"]


def test_bash_completes_with_the_script(agentctl: Agentctl, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "agentctl"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m agent "$@"\n')
    program.chmod(0o755)
    script = (
        'eval "$(agentctl completion bash)"\n'
        "COMP_WORDS=(agentctl calen) COMP_CWORD=1\n"
        "_agentctl_completion agentctl\n"
        'echo "${COMPREPLY[@]}"\n'
    )
    path = f"{program.parent}:{agentctl.environment['PATH']}"
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        env=agentctl.environment | {"PATH": path},
        capture_output=True,
        encoding="utf-8",
        timeout=30,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("calendar\n", "")
