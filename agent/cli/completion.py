"""``agentctl completion [bash|zsh|fish]``: the script that makes a shell complete commands, options and services."""

from __future__ import annotations

import os
from pathlib import PurePath

import click
from click.shell_completion import ShellComplete, get_completion_class

from agent.cli import output
from agent.cli.base import Session, command
from agent.cli.commands import COMPLETE_VARIABLE
from agent.errors import UsageError

SHELLS = ("bash", "zsh", "fish")


@command(
    "completion",
    examples=(
        'eval "$(agentctl completion bash)"',
        "agentctl completion bash > /etc/bash_completion.d/agentctl",
        "agentctl completion fish > ~/.config/fish/completions/agentctl.fish",
    ),
)
@click.argument("shell", required=False, type=click.Choice(SHELLS))
def completion(session: Session, shell: str | None) -> None:
    """Print the completion script of SHELL, or of the one in $SHELL.

    Names of services are completed too: those of the running agent, else those declared, and captures that are stored.
    """
    shell = shell or PurePath(os.environ.get("SHELL", "")).name
    if shell not in SHELLS:
        raise UsageError(f"which shell? say one of {', '.join(SHELLS)}")
    text = script(shell)
    if session.json:
        output.document({"shell": shell, "script": text})
    else:
        print(text)


def script(shell: str) -> str:
    """The script, from click's template for that shell.

    The method of the base class is called on purpose: bash's own would first run ``bash`` to learn its version, which a
    package build has no need of, and this program starts processes in one place only.
    """
    from agent.cli.main import PROGRAM, agentctl

    chosen = get_completion_class(shell)
    if chosen is None:
        raise LookupError(shell)
    return ShellComplete.source(chosen(agentctl, {}, PROGRAM, COMPLETE_VARIABLE))
