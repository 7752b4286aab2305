"""Asking systemd for patience while a start or a reload goes on, and only while it does.

``TimeoutStartSec=`` is for an agent that hangs. A service that was granted ten minutes to get ready must not end it: as
long as the loop turns and every service is within the time that its own declaration grants it, the manager is told to
wait on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from agent.linux.notify import SystemdNotifier

T = TypeVar("T")

STEP = 5.0
"""Seconds between two requests. Each asks for three times as many: one that is late does no harm."""


async def patiently(notifier: SystemdNotifier, work: Coroutine[Any, Any, T]) -> T:
    """Await ``work``, which has its own bounds, and ask for more time meanwhile (``EXTEND_TIMEOUT_USEC=``)."""
    going = asyncio.ensure_future(work)
    try:
        while not going.done():
            notifier.extend_timeout(int(3 * STEP * 1_000_000))
            await asyncio.wait({going}, timeout=STEP)
        return going.result()
    finally:
        going.cancel()
