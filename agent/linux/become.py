"""The one module in which this process becomes another program: execve(2), and what of this one is to survive it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NoReturn

from agent.errors import RuntimeFailure
from agent.linux.capabilities import handing_on, permitted


def become(argv: list[str], environment: Mapping[str, str]) -> NoReturn:
    """Execute ``argv``, a path and its arguments, in place of this process. For this very program in another form only.

    Process ID, children, signal mask and inheritable descriptors stay, and so do capabilities: what this process holds
    it would otherwise lose here, since it hands nothing on (``capabilities.withhold``). Raises ``RuntimeFailure``; then
    all is as it was.
    """
    # Root needs nothing handed on.
    held = permitted() if os.geteuid() != 0 else 0
    try:
        with handing_on(held):
            os.execve(argv[0], argv, environment)  # noqa: S606  # no shell is the point
    except OSError as error:
        raise RuntimeFailure(f"cannot execute {argv[0]}: {error.strerror}") from error
