"""How long a command may read the stores, for commands that could read all of them; and that they stand back meanwhile.

What a limit ended is told: a line on stderr, and with ``--json`` what is left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import click

from agent.cli import text
from agent.cli.guard import complain
from agent.declaration.units import parse_duration
from agent.linux import priority

TIME_LIMIT = "60s"


def limited(default: str = TIME_LIMIT) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Gives a command ``--time-limit``: the argument ``time_limit``, which ``deadline`` takes."""
    return click.option(
        "--time-limit",
        default=default,
        show_default=True,
        metavar="DURATION",
        help="Stop after that long; 0 for never.",
    )


def deadline(time_limit: str) -> float | None:
    """Stand back for everything else on this host from now on; returns when to stop, by ``time.monotonic``."""
    seconds = parse_duration(time_limit)
    priority.be_idle()
    return time.monotonic() + seconds if seconds else None


def warn(stopped: Mapping[str, int]) -> None:
    """Say of each service from when on it is left out."""
    for service, instant in stopped.items():
        complain(f"agentctl: stopped by --time-limit: {service} is left out from {text.instant(instant)} on")


def document(stopped: Mapping[str, int]) -> dict[str, Any]:
    """The same for ``--json``."""
    return {
        "stopped_by": "time" if stopped else None,
        "left_out": [{"service": service, "from": instant / 1e9} for service, instant in stopped.items()],
    }
