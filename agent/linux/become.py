"""Replacing this program by another in the same process, execve(2): the PID, the children and chosen descriptors stay.

Everything else is the kernel's to keep or to drop: pending and blocked signals, the subreaper's role, resource limits
and ambient capabilities stay; descriptors that are close-on-exec, timers, memory and handlers go.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from typing import NoReturn


def become(argv: Sequence[str], environment: Mapping[str, str], descriptors: Collection[int] = ()) -> NoReturn:
    """Execute ``argv[0]`` (a path) in place of this program, which keeps ``descriptors`` open for it.

    Raises ``OSError``, and then nothing has changed. Text must be as execve(2) can take it, without NUL.
    """
    changed = [fd for fd in descriptors if not os.get_inheritable(fd)]
    try:
        for fd in changed:
            os.set_inheritable(fd, True)
        os.execve(argv[0], list(argv), dict(environment))  # noqa: S606  # no shell is meant
    finally:
        for fd in changed:
            os.set_inheritable(fd, False)
