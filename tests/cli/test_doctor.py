"""``doctor``: every check with its verdict, and an exit code that a script can use."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.cli.harness import Agentctl
from tests.cli.served import Served

NAMES = {
    "declaration", "agent", "users", "prefix", "disk", "libpcap", "nmap", "capabilities", "open files", "cgroup",
    "clock",
}  # fmt: skip


@pytest.fixture
def declaration(prefix: Path) -> Path:
    (prefix / "key").mkdir(parents=True)
    path = prefix / "key" / "env.toml"
    path.write_text("[service.api]\nkind = 'command'\ncommand = ['sleep', '60']\n")
    return path


def test_a_good_host_passes_although_no_agent_runs(agentctl: Agentctl, declaration: Path) -> None:
    done = agentctl("doctor", "--json")
    answer = json.loads(done.stdout)
    assert (done.returncode, done.stderr, answer["ok"]) == (0, "", True)
    assert {check["name"] for check in answer["checks"]} == NAMES
    assert all(check.keys() == {"name", "verdict", "finding", "mend"} for check in answer["checks"])
    assert all(check["mend"] for check in answer["checks"] if check["verdict"] != "ok")
    assert next(check for check in answer["checks"] if check["name"] == "agent")["verdict"] == "warn"


def test_what_fails_says_how_to_mend_it_and_exits_2(agentctl: Agentctl, prefix: Path) -> None:
    done = agentctl("doctor")
    assert (done.returncode, done.stderr) == (2, "")
    lines = done.stdout.splitlines()
    where = next(number for number, line in enumerate(lines) if line.startswith("declaration "))
    assert lines[where].split()[1] == "fail"
    assert lines[where + 1].strip() == "mend: agentctl init"
    assert not prefix.exists()


def test_a_wrong_declaration_fails_with_its_first_problem(agentctl: Agentctl, declaration: Path) -> None:
    declaration.write_text("[service.api]\nkind = 'comand'\n")
    done = agentctl("doctor", "--json")
    check = json.loads(done.stdout)["checks"][0]
    assert (done.returncode, check["verdict"]) == (2, "fail")
    assert f"{declaration}:2: service.api.kind" in check["finding"]


def test_a_running_agent_is_asked(agentctl: Agentctl, declaration: Path, served: Served) -> None:
    served.report.containment = "sweep"
    checks = {check["name"]: check for check in json.loads(agentctl("doctor", "--json").stdout)["checks"]}
    assert checks["agent"]["finding"] == "running, pid 4242, version 0.1.0"
    assert checks["cgroup"]["verdict"] == "warn"


def test_something_else_on_the_socket_leads_root_to_no_file_of_its_own(
    agentctl: Agentctl, declaration: Path, served: Served, tmp_path: Path
) -> None:
    for name in ("status", "environ", "limits"):
        os.mkfifo(tmp_path / name)
    served.report.pid = str(tmp_path)  # type: ignore[assignment]  # what answers there may say anything
    checks = {check["name"]: check for check in json.loads(agentctl("doctor", "--json").stdout)["checks"]}
    assert checks["agent"]["verdict"] == "fail"
    assert checks["agent"]["finding"] == "what answers on its socket is no agent"


def test_a_terminal_shows_the_verdicts_in_colour(agentctl: Agentctl) -> None:
    assert "\x1b[1;31mfail" in agentctl.on_terminal("doctor")
