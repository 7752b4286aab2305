"""The command line as a whole: options that work everywhere, exit codes of the contract, and a quick start."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from agent import __version__
from agent.cli.commands import COMMANDS
from tests.cli.harness import ROOT, Agentctl

NEED_AN_AGENT = [
    ["status"],
    ["status", "api"],
    ["start", "api"],
    ["stop", "api", "web"],
    ["restart", "--no-wait", "api"],
    ["reload"],
    ["logs", "api"],
    ["events", "-f"],
    ["timers"],
]


@pytest.mark.parametrize("arguments", NEED_AN_AGENT, ids=" ".join)
@pytest.mark.parametrize("machine", [[], ["--json"]], ids=["text", "json"])
def test_without_an_agent_one_line_names_the_socket_and_the_exit_code_is_2(
    agentctl: Agentctl, arguments: list[str], machine: list[str]
) -> None:
    done = agentctl(*arguments, *machine)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert f"the agent is not running: no answer on {agentctl.prefix}/run/agent.sock" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["--nonsense"],
        ["status", "--nonsense"],
        ["status", "api", "web"],
        ["status", "No-Such"],
        ["status", "../agent"],
        ["start"],
        ["logs"],
        ["logs", "api", "-n", "many"],
        ["logs", "api", "-n", "-1"],
        ["events", "--service", "a/b"],
        ["calendar"],
        ["calendar", "nonsense"],
        ["completion", "csh"],
        ["config"],
        ["run", "a.toml", "b.toml"],
        ["run", "--default", "env.toml"],
        ["status", "--prefix"],
    ],
    ids=" ".join,
)
def test_what_cannot_be_meant_exits_1_and_says_so_on_stderr(agentctl: Agentctl, arguments: list[str]) -> None:
    done = agentctl(*arguments)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr and "Traceback" not in done.stderr


def test_a_mistyped_command_names_the_nearest(agentctl: Agentctl) -> None:
    assert "did you mean status?" in agentctl("statsu").stderr


def test_a_hostile_argument_is_quoted_back_harmlessly(agentctl: Agentctl) -> None:
    for arguments in (["\x1b[2J"], ["status", "\x1b[2J\u202e"], ["status", "--\x1b[2J"]):
        assert agentctl(*arguments).stderr.replace("\n", "").isprintable()


def test_the_version_is_that_of_the_program(agentctl: Agentctl) -> None:
    done = agentctl("--version")
    assert (done.returncode, done.stdout) == (0, f"agentctl {__version__}\n")


@pytest.mark.parametrize("arguments", [[], *([name] for name in COMMANDS), ["config", "show"]], ids=" ".join)
def test_each_help_page_shows_how_to_use_it_and_what_its_exit_codes_mean(
    agentctl: Agentctl, arguments: list[str]
) -> None:
    done = agentctl(*arguments, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(" ".join(["Usage: agentctl", *arguments]))
    assert "--prefix DIR" in done.stdout
    if arguments != ["config"]:
        assert "Examples:\n" in done.stdout
        assert "Exit codes: " in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_the_prefix_may_stand_before_or_after_the_command_and_beats_the_environment(
    agentctl: Agentctl, tmp_path: Path
) -> None:
    other = str(tmp_path / "other")
    assert f"{other}/run/agent.sock" in agentctl("--prefix", other, "status").stderr
    assert f"{other}/run/agent.sock" in agentctl("status", "--prefix", other).stderr
    assert f"{other}/run/agent.sock" in agentctl("--prefix", "elsewhere", "status", "--prefix", other).stderr
    assert f"{tmp_path}/other/run/agent.sock" in agentctl("--prefix", "other", "status").stderr


def test_json_may_stand_before_or_after_the_command(agentctl: Agentctl) -> None:
    before, after = agentctl("--json", "calendar", "daily"), agentctl("calendar", "daily", "--json")
    assert json.loads(before.stdout).keys() == json.loads(after.stdout).keys()


def test_the_default_prefix_is_srv(agentctl: Agentctl) -> None:
    assert "/srv/run/agent.sock" in agentctl("status", PREFIX="").stderr


def loaded(environment: dict[str, str], *arguments: str) -> set[str]:
    """The modules that a command loads, when its output is a pipe."""
    script = (
        "import sys\n"
        "from agent.cli.main import main\n"
        f"main({list(arguments)!r})\n"
        "print(*sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, encoding="utf-8", timeout=30, check=True
    )
    return set(done.stderr.splitlines()[-1].split())


HEAVY = {"scapy", "numpy", "nmap", "psutil", "asyncio", "rich", "sqlite3", "ssl", "msgspec", "tomllib", "subprocess"}


@pytest.mark.parametrize("arguments", NEED_AN_AGENT, ids=" ".join)
def test_asking_the_agent_loads_nothing_heavy(agentctl: Agentctl, arguments: list[str]) -> None:
    assert not loaded(agentctl.environment, *arguments) & HEAVY


COMMAND_MODULES = {f"agent.cli.{place.partition(':')[0]}" for place, _ in COMMANDS.values()}


def test_one_command_does_not_load_the_others(agentctl: Agentctl) -> None:
    assert loaded(agentctl.environment, "status") & COMMAND_MODULES == {"agent.cli.status"}


def test_the_help_of_the_whole_loads_no_command(agentctl: Agentctl) -> None:
    assert not loaded(agentctl.environment, "--help") & COMMAND_MODULES


def test_the_console_script_and_the_module_are_the_same(agentctl: Agentctl) -> None:
    script = "import sys; from agent.cli.main import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", script, "status", "--help"],
        env=agentctl.environment,
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        timeout=30,
        check=False,
    )
    assert done.stdout == agentctl("status", "--help").stdout
