"""agentctl(1) is one that readers of manual pages take without a word, and has everything that agentctl has."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import manual
from agent.cli.commands import COMMANDS
from agent.cli.flows import FlowCommands
from agent.cli.main import agentctl
from tests.binary import Built

pytestmark = pytest.mark.timeout(300)  # the first one may build

EPOCH = 1_795_651_200


def rendered(page: str) -> str:
    """As groff shows it, plain; it may have nothing to complain about."""
    done = subprocess.run(
        ["groff", "-man", "-ww", "-Tascii", "-P-cbou", "-rLL=200n"],
        input=page,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout


def leaves(group: click.Group, above: str) -> list[tuple[str, click.Command]]:
    """Every command that does something, by the words that name it."""
    context = click.Context(group)
    found = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        words = f"{above} {name}"
        if not isinstance(command, click.Group) or isinstance(command, FlowCommands):
            found.append((words, command))
        if isinstance(command, click.Group):
            found += leaves(command, words)
    return found


def test_neither_groff_nor_mandoc_complains(tmp_path: Path) -> None:
    path = tmp_path / "agentctl.1"
    path.write_text(manual.page(EPOCH))
    rendered(manual.page(EPOCH))
    lint = subprocess.run(["mandoc", "-T", "lint", "-W", "style", str(path)], capture_output=True, text=True)
    assert (lint.returncode, lint.stdout, lint.stderr) == (0, "", "")


def test_it_says_what_it_is_of_which_version_and_day() -> None:
    first = manual.page(EPOCH).partition("\n")[0]
    assert re.fullmatch(r'\.TH AGENTCTL 1 2026-11-26 "agent \d+\.\d+\.\d+" "User Commands"', first)
    assert "agentctl - declare, run and ask about the services of this host" in rendered(manual.page(EPOCH))


def test_every_command_is_in_it_with_its_options_and_examples() -> None:
    text = rendered(manual.page(EPOCH))
    commands = leaves(agentctl, "agentctl")
    assert {words.split()[1] for words, _ in commands} == set(COMMANDS)
    sections = dict(re.findall(r"^   (agentctl \S.*)\n((?:(?:    .*)?\n)+)", text, re.MULTILINE))
    assert list(sections) == [words for words, _ in commands]
    for words, command in commands:
        section = sections[words]
        context = click.Context(command)
        for parameter in command.get_params(context):
            record = parameter.get_help_record(context)
            if record and record[1] and not {"--prefix", "--json", "--help"}.intersection(parameter.opts):
                assert record[0] in section
                meaning = " ".join(record[1].replace("`", "").split())
                assert meaning in " ".join(section.split())
        for example in re.findall(r"^  (agentctl .*)$", command.epilog or "", re.MULTILINE):
            assert re.sub(r" +", " ", example) in re.sub(r" +", " ", section)


def test_what_is_the_same_everywhere_is_said_once() -> None:
    text = rendered(manual.page(EPOCH))
    options = ("--prefix DIR", "--json Print", "-h, --help")
    assert [text.count(f"\n       {option}") for option in options] == [1, 1, 1]
    for word in ("PREFIX/key/env.toml", "PREFIX/run/agent.sock", "PREFIX/log/NAME.log", "NO_COLOR", "EXIT STATUS"):
        assert word in text


@settings(deadline=None, max_examples=300)
@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1))
def test_no_text_is_taken_for_a_request(text: str) -> None:
    for line in manual._lines(text):
        assert not line.startswith((".", "'"))
        assert "`" not in line and "'" not in line


@settings(deadline=None, max_examples=25)
@given(st.text("ab.'`\\-^~\"fB R%$(){}[]|", min_size=1, max_size=60))
def test_text_is_shown_as_it_is_written(text: str) -> None:
    shown = "".join(rendered("\n".join([".TH A 1", ".nh", *manual._lines(text)]) + "\n").split("\n")[1:-2])
    assert "".join(shown.split()) == "".join(re.sub(r"`([^`]+)`", r"\1", " ".join(text.split())).split())


def test_the_program_carries_it(program: Built) -> None:
    carried = (program.tree / "lib/share/agent/man/agentctl.1").read_text()
    assert carried == manual.page(EPOCH)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_program_carries_what_it_prints_for_each_shell(program: Built, shell: str) -> None:
    name = {"bash": "agentctl.bash", "zsh": "_agentctl", "fish": "agentctl.fish"}[shell]
    done = subprocess.run([program.program, "completion", shell], env={}, capture_output=True, text=True, check=True)
    assert (program.tree / "lib/share/agent/completions" / name).read_text() == done.stdout
    assert f"_AGENTCTL_COMPLETE={shell}_complete" in done.stdout
