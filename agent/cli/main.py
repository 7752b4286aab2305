"""The command line ``agentctl``: parses, hands over to one command, and turns every end into an exit code.

click's own ``main`` is not used: it exits 2 on a usage error and 1 on a failure, and the contract says the reverse.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from agent import __version__
from agent.cli.base import CONTEXT_SETTINGS, EXIT_CODES, Commands, Session, shared_options
from agent.cli.commands import COMPLETE_VARIABLE
from agent.cli.guard import INTERNAL_ERRORS, complain, guarded
from agent.errors import EXIT_CONFIGURATION, EXIT_INTERRUPTED, EXIT_OK, NotRunning, RuntimeFailure

PROGRAM = "agentctl"


@click.group(
    cls=Commands,
    context_settings=CONTEXT_SETTINGS,
    params=[*shared_options()],
    epilog="\b\nExamples:\n"
    "  agentctl run --default          try it: an agent on a demonstration declaration\n"
    "  sudo ./agentctl install         make it a service of this host\n"
    "  agentctl status                 what runs, since when, and what it costs\n"
    "  agentctl logs -f api            follow what a service prints\n"
    f"\n{EXIT_CODES}",
)
@click.version_option(__version__, message="%(prog)s %(version)s")
def agentctl() -> None:
    """Declare, run and ask about the services of this host.

    The agent keeps true what PREFIX/key/env.toml declares; these commands start it, check its declaration, talk to it
    over PREFIX/run/agent.sock, and read what it has stored.
    """


def main(arguments: list[str] | None = None) -> int:
    """Run ``agentctl`` with ``arguments`` (those of the process when left out); returns the exit code."""
    session = Session()

    def log() -> Path:
        return session.paths().logs / INTERNAL_ERRORS

    return guarded(lambda: _run(sys.argv[1:] if arguments is None else arguments, session), program=PROGRAM, log=log)


def _run(arguments: list[str], session: Session) -> int:
    if instruction := os.environ.get(COMPLETE_VARIABLE):
        from click.shell_completion import shell_complete

        return shell_complete(agentctl, {"obj": session}, PROGRAM, COMPLETE_VARIABLE, instruction)
    try:
        with agentctl.make_context(PROGRAM, arguments, obj=session) as context:
            agentctl.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.Abort:
        return EXIT_INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as help_page:
        print(help_page.format_message(), file=sys.stderr)
        return EXIT_CONFIGURATION
    except click.ClickException as error:
        return _explain(error)
    except NotRunning as error:
        from agent.cli.elsewhere import hint

        raise RuntimeFailure(f"{error}{hint(session.paths().prefix)}") from error
    return EXIT_OK


def _explain(error: click.ClickException) -> int:
    """One line on what cannot be meant, one on where to read more."""
    complain(f"{PROGRAM}: {error.format_message()}")
    context = error.ctx if isinstance(error, click.UsageError) else None
    complain(f"Try '{context.command_path if context else PROGRAM} --help' for help.")
    return EXIT_CONFIGURATION
