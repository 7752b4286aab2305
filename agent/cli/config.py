"""``agentctl config show [CONFIG]``: the declaration as the agent understands it."""

from __future__ import annotations

import os
from pathlib import Path

import click

from agent.cli import output
from agent.cli.base import CONTEXT_SETTINGS, Session, command, shared_options


@click.group("config", context_settings=CONTEXT_SETTINGS, params=[*shared_options()])
def config() -> None:
    """Show the declaration as the agent understands it."""


@command("show", examples=("agentctl config show", "agentctl config show --json | jq .service.api"))
@click.argument("config", required=False, type=click.Path(path_type=Path))
def show(session: Session, config: Path | None) -> None:
    """Print the declaration CONFIG, or PREFIX/key/env.toml, as it is in effect.

    Projects are merged, variables replaced, defaults filled in, and secrets masked. No agent need run; what a running
    one has in effect is what it read at its start or its last `agentctl reload`.
    """
    from agent.declaration.load import load
    from agent.declaration.show import effective, render

    declaration = load(session.paths(config), os.environ)
    if session.json:
        output.document(effective(declaration))
    else:
        print(render(declaration), end="")


config.add_command(show)
