"""Which packets a command is about: the same words in all of them.

What reads the store takes ``--service`` and ``--interface``; an expression is as many words as one likes, as with
tcpdump(8).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from agent.cli.names import CAPTURE

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

of_services: Decorator = click.option(
    "--service", "services", metavar="NAME", type=CAPTURE, multiple=True, help="Of this capture only; may be repeated."
)
"""Gives a command ``--service``: the argument ``services``. None is all."""

of_interfaces: Decorator = click.option(
    "--interface", "interfaces", metavar="NAME", multiple=True, help="Of this interface only; may be repeated."
)
"""Gives a command ``--interface``: the argument ``interfaces``. None is all."""


def matching(metavar: str) -> Decorator:
    """Gives a command an expression of pcap-filter(7): the argument ``expression``, in one word.

    Empty is every packet.
    """

    def together(_: click.Context, __: click.Parameter, words: tuple[str, ...]) -> str:
        return " ".join(words).strip()

    return click.argument("expression", metavar=metavar, nargs=-1, callback=together)
