"""The one module in which this process becomes another program: execve(2), and what of this one is to survive it.

PID, children, resource limits, pending and blocked signals and the subreaper's role survive by themselves; descriptors
and capabilities only as far as is said here.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import NoReturn

from agent.errors import RuntimeFailure
from agent.linux.capabilities import handing_on, permitted


def become(argv: list[str], environment: Mapping[str, str], descriptors: Collection[int] = ()) -> NoReturn:
    """Execute ``argv``, a path and its arguments, in place of this process. For this very program in another form only.

    ``descriptors`` stay open for it. Capabilities stay, too: what this process holds it would otherwise lose here,
    since it hands nothing on (``capabilities.withhold``). Raises ``RuntimeFailure``; then all is as it was.
    """
    # Root needs nothing handed on.
    held = permitted() if os.geteuid() != 0 else 0
    closing = []
    try:
        for fd in descriptors:
            if not os.get_inheritable(fd):
                os.set_inheritable(fd, True)
                closing.append(fd)
        with handing_on(held):
            os.execve(argv[0], argv, environment)  # noqa: S606  # no shell is the point
    except OSError as error:
        raise RuntimeFailure(f"cannot execute {argv[0]}: {error.strerror}") from error
    finally:
        for fd in closing:
            os.set_inheritable(fd, False)
