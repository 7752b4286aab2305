"""Names of services as arguments: checked before they are sent, completed from what the running agent knows.

Without an agent they are those of the declaration, and of captures and scans also those that have stored something.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from agent.cli.base import Session
from agent.errors import AgentError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMPLETION_TIMEOUT = 0.5
"""Seconds that a press of the tab key may wait for the agent."""


class ServiceName(click.ParamType[str]):
    """A word that can be a service's name at all, and so is safe in a path of the API.

    ``kind``: only services of this kind are offered.
    """

    name = "name"

    def __init__(self, kind: str | None = None) -> None:
        self._kind = kind

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        if re.fullmatch(r"[a-z][a-z0-9_]*", text, re.ASCII) is None:
            self.fail(f"{text!r} cannot be a service: names are lower-case letters, digits and underscores", param, ctx)
        return text

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
        from click.shell_completion import CompletionItem

        return [CompletionItem(name) for name in self._known(ctx.ensure_object(Session)) if name.startswith(incomplete)]

    def _known(self, session: Session) -> list[str]:
        """Who there is, as the agent lists them; else as the files do."""
        with suppress(AgentError):
            told = session.client(COMPLETION_TIMEOUT).request("GET", "/v1/status")["services"]
            return [str(one["name"]) for one in told if self._kind in (None, one["kind"])]
        from agent.cli.declared import services

        paths = session.paths()
        names = {name for name, service in services(paths).items() if self._kind in (None, service.kind)}
        if self._kind == "capture":
            from agent.cli.stores import find

            with suppress(AgentError):
                names.update(store.name for store in find(paths).stores)
        elif self._kind == "scan":
            from agent.cli import scan_stores

            with suppress(AgentError):
                names.update(store.name for store in scan_stores.find(paths).stores)
        return sorted(names)


SERVICE = ServiceName()
CAPTURE = ServiceName("capture")
SCAN = ServiceName("scan")
