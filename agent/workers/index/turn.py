"""One index process of a store at a time.

After a capture was killed its index process still finishes what it has in hand, while that of the next capture begins;
both would write to the same files. So each holds flock(2) on the directory of the store for as long as it lives, and
the next waits for that.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time

from agent.workers.runtime import Context

LONGEST = 60.0
"""Seconds after which it is not waited for any more: the other hangs, and so writes nothing."""

PACE = 0.05
"""Seconds between two looks whether the other is gone."""


async def awaited(context: Context) -> None:
    """Wait until we are the only one. Where the file system has no locks, or there is no store, that is so at once."""
    try:
        fd = os.open(context.data, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    until = time.monotonic() + LONGEST
    while not _ours(fd) and time.monotonic() < until:
        context.beat()
        context.status("waiting for an earlier index process to end")
        await asyncio.sleep(PACE)
    # Not closed: the kernel lets go of it when this process ends.


def _ours(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
