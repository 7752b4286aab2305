"""``agentctl init``: the directories below the prefix and a first declaration."""

from __future__ import annotations

from agent.cli import output
from agent.cli.base import Session, command
from agent.cli.files import write_declaration
from agent.cli.text import safe
from agent.errors import UsageError


@command("init", examples=("agentctl init", "agentctl --prefix ./var init"))
def init(session: Session) -> None:
    """Create the directories below PREFIX and write a commented declaration to PREFIX/key/env.toml.

    A declaration that is there already is never touched; the exit code is then 1.
    """
    from agent.declaration.default import TEMPLATE

    paths = session.paths()
    if not write_declaration(paths, TEMPLATE):
        raise UsageError(f"{paths.declaration} exists and is left as it is")
    if session.json:
        output.document({"prefix": str(paths.prefix), "declaration": str(paths.declaration)})
    else:
        print(safe(f"{paths.declaration}: written; edit it, then check it with `agentctl validate`"))
