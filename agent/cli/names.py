"""Names of services as arguments: checked before they are sent, completed from what the running agent knows."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from agent.cli.base import Session
from agent.errors import AgentError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMPLETION_TIMEOUT = 0.5
"""Seconds that a press of the tab key may wait for the agent."""


class ServiceName(click.ParamType[str]):
    """A word that can be a service's name at all, and so is safe in a path of the API."""

    name = "name"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        if re.fullmatch(r"[a-z][a-z0-9_]*", text, re.ASCII) is None:
            self.fail(f"{text!r} cannot be a service: names are lower-case letters, digits and underscores", param, ctx)
        return text

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
        from click.shell_completion import CompletionItem

        try:
            status = ctx.ensure_object(Session).client(COMPLETION_TIMEOUT).request("GET", "/v1/status")
        except AgentError:
            return []
        names = [str(service["name"]) for service in status["services"]]
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


SERVICE = ServiceName()
